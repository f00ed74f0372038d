"""The command line: `variegate run recipe.yaml -o out` and the commands around it.

Every error that the library raises on purpose becomes one line on stderr that says what to do next. Exit codes are
part of the interface; `EXIT_CODES` has them, `--help` and the documentation show them. Modules that cost time to
import are imported in the command that needs them.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from variegate.errors import InvalidInput, MissingExtra, RecipeError, RunConflict, SandboxUnavailable, VariegateError

if TYPE_CHECKING:
    from variegate.recipe import Recipe
    from variegate.run import Example, Fate, Plan, RunDiff
    from variegate.templates import Derivation, Grammar, Step

__all__ = ["EXIT_CODES", "app", "main"]

EXIT_CODES = {
    0: "done",
    1: "failed: the data, the disk, or what check, diff or doctor found",
    2: "the command line or the recipe is wrong",
    3: "the directory belongs to another recipe, or a run still holds it",
    4: "something that the command needs is not installed",
    70: "a bug in Variegate (with a traceback)",
    130: "interrupted; the same command continues",
}
"""What each exit code says."""

_EPILOG = "\b\n" + "\n".join(["Exit codes:", *(f"{code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())])


_FULL = (errno.ENOSPC, errno.EDQUOT)

_SHOWN = 60
"""The most characters that are shown of a part of a derivation."""

_LOG10_OF_2 = 0.30102999566398120


class _Stopped(Exception):
    """Carries what typer would swallow past it; the cause is the real thing."""


class _Group(TyperGroup):
    """Typer ends the process without a word on Ctrl-C and on a closed pipe; this tells `main` instead."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override,unused-ignore]
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, OSError) as error:
            raise _Stopped from error


app = typer.Typer(
    name="variegate",
    cls=_Group,
    help="Turn real text into an augmented, deduplicated, provenance-marked training set.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


grammar = typer.Typer(
    help="Look into a template grammar, and draw from it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.add_typer(grammar, name="grammar")


class ProgressKind(StrEnum):
    """How progress is shown on stderr."""

    AUTO = "auto"
    LIVE = "live"
    JSON = "json"
    NONE = "none"


RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
OutPath = Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The run directory.", show_default=False)]
RunPath = Annotated[Path, typer.Argument(help="The run directory.", show_default=False)]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-w",
        min=1,
        metavar="N",
        help="Threads; the result is the same with any number.",
        show_default="all cores",
    ),
]
Progress = Annotated[
    ProgressKind,
    typer.Option(
        "--progress", help="On stderr: a live table, JSON lines, or nothing; auto asks whether stderr is a terminal."
    ),
]


GrammarPath = Annotated[Path, typer.Argument(metavar="FILE", help="The grammar.", show_default=False)]
Start = Annotated[
    str | None,
    typer.Option("--start", metavar="RULE", help="The rule to begin with.", show_default="the first"),
]
Lexicons = Annotated[
    list[str] | None,
    typer.Option(
        "--lexicon", metavar="NAME=FILE", help="What lex:NAME draws from: a string a line.", show_default=False
    ),
]
RowsFile = Annotated[
    Path | None,
    typer.Option("--rows", metavar="FILE", help="CSV, JSONL or Parquet file of what col: takes.", show_default=False),
]
Seed = Annotated[int, typer.Option("--seed", metavar="S", min=0, max=2**64 - 1, help="Of the draws.")]


def _version(wanted: bool) -> None:
    if wanted:
        from variegate import __version__

        print(f"variegate {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(recipe: RecipePath, out: OutPath, workers: Workers = None, progress: Progress = ProgressKind.AUTO) -> None:
    """Run a recipe; on a directory that it was stopped in, continue."""
    from variegate import recipe as recipes

    _run(recipes.load(recipe), out, workers, progress)


@app.command()
def validate(recipe: RecipePath) -> None:
    """Check a recipe; read no data."""
    from variegate import recipe as recipes

    loaded = recipes.load(recipe)
    parts = [_plural(len(loaded.sources), "source"), _plural(len(loaded.stages), "stage"), f"seed {loaded.seed}"]
    _say(f"{recipe} is valid: {', '.join(parts)}, hash {loaded.hash()[:12]}")


@app.command()
def plan(recipe: RecipePath, workers: Workers = None) -> None:
    """Estimate records, time and disk of a run, from running a sample; write nothing."""
    from variegate import recipe as recipes
    from variegate import run as runs

    _show_plan(runs.plan(recipes.load(recipe), workers=workers))


@app.command()
def demo(out: OutPath, workers: Workers = None, progress: Progress = ProgressKind.AUTO) -> None:
    """Run the whole job on the text and code of the Python standard library: no network, no download.

    Corpus, grammar and recipe go into OUT-input, beside OUT.
    """
    from variegate import demo as demos
    from variegate import recipe as recipes

    # Beside the run directory, which holds nothing but the run.
    inputs = out.resolve().with_name(f"{out.resolve().name}-input")
    _say(f"reading the standard library of this Python into {inputs}")
    prepared = demos.prepare(inputs)
    _say(f"corpus: {prepared.rows:,} records, {prepared.bytes / 1e6:.1f} MB of text and code")
    _say(f"recipe: {prepared.recipe}")
    _run(recipes.load(prepared.recipe), out, workers, progress)


@app.command()
def report(out: RunPath) -> None:
    """Write report.html of a finished run anew and print its path."""
    from variegate import report as reports

    _say(str(reports.render(out)))


@app.command()
def check(out: RunPath) -> None:
    """Verify a finished run: every hash, the Merkle root, and that the ledger adds up."""
    from variegate import run as runs

    found = runs.check(out)
    _say(
        f"{out} is intact: {_plural(found.rows, 'record')} in {_plural(found.files, 'file')} ({_size(found.bytes)}), "
        f"{found.rejected:,} rejected, every hash and every sum right"
    )
    _say(f"merkle root {found.merkle_root}")


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A finished run directory.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="The one to compare with it.", show_default=False)],
    examples: Annotated[
        int, typer.Option("--examples", min=0, metavar="N", help="Show up to N records of each kind of difference.")
    ] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if the final sets do not hold the same records.")
    ] = False,
) -> None:
    """Show what two finished runs differ in: recipe, inputs, funnel, records, shares, measures."""
    from variegate import run as runs

    found = runs.diff(a, b, examples=examples)
    if as_json:
        _say(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        _show_diff(found)
    if exit_code and not found.same:
        raise typer.Exit(1)


@app.command()
def dedup(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="JSONL, text (a line is a record) or Parquet.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="A folder that is not there yet.", show_default=False)
    ],
    threshold: Annotated[
        float | None,
        typer.Option(metavar="J", help="Least Jaccard similarity of duplicates, over 0 to 1.", show_default="0.8"),
    ] = None,
    ngram: Annotated[
        int | None, typer.Option(metavar="N", help="Units in a shingle, 1 to 32.", show_default="5")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(metavar="word|char", help="What a shingle is made of.", show_default="word")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="fineweb|slimpajama|nemo",
            help="The settings of a published pipeline; options beside it go first.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[str, typer.Option(metavar="FIELD", help="The field that holds the text.")] = "text",
    keep: Annotated[
        str, typer.Option(metavar="longest|first|none", help="Which record of duplicates stays.")
    ] = "longest",
    mode: Annotated[
        str, typer.Option(metavar="lsh|exact", help="Compare what sketches suggest, or all that can be similar.")
    ] = "lsh",
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="What comparing may take, like 512MB: the rest waits on disk.", show_default="no limit"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Of the sketches.")] = 0,
    progress: Progress = ProgressKind.AUTO,
) -> None:
    """Remove copies and near-duplicates from files; the records that stay are not changed.

    OUT gets them as `kept`, and as `removed` the others, each with the record that is kept in its favour.
    """
    from variegate import _dedup_files, _progress
    from variegate.dedup import Deduper

    if unit not in (None, "word", "char"):
        raise typer.BadParameter(f"--unit must be word or char (it is {unit})")
    choices: dict[str, Any] = {"unit": unit, "preset": preset, "keep": keep, "mode": mode}
    try:
        deduper = Deduper(threshold=threshold, ngram=ngram, seed=seed, memory=memory, **choices)
    except InvalidInput as error:
        raise typer.BadParameter(str(error)) from None
    began = time.monotonic()
    with _progress.show(_shown(progress), sys.stderr) as told:
        stats = _dedup_files.deduplicate(files, out, deduper, text=text, progress=told).stats
    _say(
        f"{_plural(stats['rows'], 'record')} read, {stats['kept']:,} kept in {out}; removed: "
        f"{_plural(stats['exact'], 'copy', 'copies')}, {_plural(stats['near'], 'near-duplicate')}"
    )
    if stats["capped_buckets"]:
        _say(
            f"{_plural(stats['capped_buckets'], 'bucket')} had too many records to compare all (the largest "
            f"{stats['largest_bucket']:,}): some near-duplicates may be left"
        )
    _say(f"finished in {time.monotonic() - began:.1f} s")


@app.command()
def doctor() -> None:
    """Check this installation: versions, instruction sets, extras, randomness, and a small run."""
    from variegate import _doctor

    findings = _doctor.examine(_say)
    if findings:
        raise VariegateError(f"{_plural(findings, 'check')} failed: see the lines marked 'bad' above")


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from variegate.recipe import Recipe

    _say(json.dumps(Recipe.json_schema(), indent=2))


@grammar.command()
def explain(
    file: GrammarPath,
    start: Start = None,
    lexicon: Lexicons = None,
    rows: RowsFile = None,
    index: Annotated[
        str | None,
        typer.Option("--index", "-k", metavar="K", help="Show the derivation K, from 0.", show_default=False),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample", min=1, metavar="N", help="Show N derivations drawn by the weights.", show_default=False
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Count the derivations of each rule; show how derivations are made."""
    if index is not None and sample is not None:
        raise typer.BadParameter("give --index or --sample, not both")
    sys.set_int_max_str_digits(0)  # a count may have 19,729 digits
    g = _grammar(file, start, lexicon, rows)
    shown: list[int] = []
    if index is not None:
        if not re.fullmatch(r"\d+", index):
            raise typer.BadParameter(f"--index must be a whole number, 0 or more (it is {index})")
        shown = [int(index)]
    elif sample is not None:
        drawn = g.sample(sample, seed=seed)
        if "_index" in drawn.rows:
            shown = [int(i) for i in drawn.rows["_index"]]
        else:
            shown = [g.index_of(text) for text in drawn.texts]
    derivations = [(g.nth(k), g.explain(k)) for k in shown]
    if as_json:
        report = {
            "start": g.start,
            "count": g.count(),
            "rules": g.rule_counts(),
            "derivations": [
                {
                    "index": derivation.index,
                    "text": derivation.text,
                    "bindings": derivation.bindings,
                    "spans": [span._asdict() for span in derivation.spans],
                    "steps": [step._asdict() for step in steps],
                }
                for derivation, steps in derivations
            ],
        }
        _say(json.dumps(report, indent=2, ensure_ascii=False, default=_plain))
        return
    _say(f"{_many(g.count())} from {g.start!r}, {_plural(len(g.rule_counts()), 'rule')}")
    if not derivations:
        _table([("rule", "derivations"), *((name, _great(count)) for name, count in g.rule_counts().items())])
    for derivation, steps in derivations:
        _show_derivation(derivation, steps)


@grammar.command("sample")
def sample_texts(
    file: GrammarPath,
    n: Annotated[int, typer.Option("-n", min=0, metavar="N", help="How many texts.")] = 10,
    seed: Seed = 0,
    start: Start = None,
    lexicon: Lexicons = None,
    rows: RowsFile = None,
    unique: Annotated[
        bool, typer.Option("--no-replace", help="Draw no derivation twice, all alike, whatever the weights.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="A JSONL file to write instead of stdout.", show_default=False
        ),
    ] = None,
) -> None:
    """Draw texts, one JSON object a line: id, text, bindings, spans."""
    g = _grammar(file, start, lexicon, rows)
    drawn = g.sample(n, seed=seed, law="uniform" if unique else "weights", replace=not unique)
    spans: list[list[dict[str, Any]]] = [[] for _ in range(n)]
    if drawn.spans is not None:
        for row, first, end, tag in drawn.spans.to_list():
            spans[row].append({"start": first, "end": end, "tag": tag})
    columns = {name: drawn.rows[name].tolist() for name in g.bindings}
    lines = (
        json.dumps(
            {
                "id": f"{drawn.ids[i]:016x}",
                "text": text,
                "bindings": {name: column[i] for name, column in columns.items() if column[i] is not None},
                "spans": _in_characters(text, spans[i]),
            },
            ensure_ascii=False,
            default=_plain,
        )
        for i, text in enumerate(drawn.texts)
    )
    if out is None:
        for line in lines:
            _say(line)
        return
    with open(out, "w", encoding="utf-8") as file_out:
        file_out.writelines(line + "\n" for line in lines)
    _say(f"{_plural(n, 'text')} in {out}")


def _grammar(file: Path, start: str | None, lexicons: list[str] | None, rows: Path | None) -> Grammar:
    """The grammar of a file, with what it draws from."""
    from variegate.templates import Grammar, read_lexicon, read_rows

    named = [given.partition("=") for given in lexicons or ()]
    for name, equals, path in named:
        if not (name and equals and path):
            raise typer.BadParameter(f"--lexicon must be NAME=FILE (it is {name + equals + path})")
    return Grammar.from_file(
        file,
        start=start,
        lexicons={name: read_lexicon(path) for name, _, path in named},
        rows=None if rows is None else read_rows(rows),
    )


def _plain(value: object) -> float | str:
    """What JSON has no type for: decimals as numbers, dates as ISO 8601 writes them."""
    return float(value) if isinstance(value, Decimal) else str(value)


def main() -> None:
    """Runs the command line and exits with one of `EXIT_CODES`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot write is no reason to fail
    sys.exit(_guarded(app))


def _shown(progress: ProgressKind) -> str:
    """How progress is shown; auto asks whether stderr is a terminal."""
    if progress is ProgressKind.AUTO:
        return "live" if sys.stderr.isatty() else "json"
    return progress.value


def _run(recipe: Recipe, out: Path, workers: int | None, progress: ProgressKind) -> None:
    """Runs a loaded recipe, shows how far it is, renders the report and says what there is now."""
    from variegate import _progress, report
    from variegate import run as runs

    with _progress.show(_shown(progress), sys.stderr) as told:
        result = runs.run(recipe, out, workers=workers, progress=told)
    page = report.render(out)
    if result.already_complete:
        _say(f"{out} was already complete: nothing to do")
    _say(f"{_plural(result.rows, 'record')} in {out / 'data'}, {result.rejected:,} in {out / 'rejects'}")
    if not result.already_complete:
        _say(f"{'continued and ' if result.continued else ''}finished in {result.seconds:.1f} s")
    _say(f"report: {page}")


def _show_plan(plan: Plan) -> None:
    rows = [("source", "files", "size", "records")]
    for source in plan.sources:
        about = "" if source.exact else "~"
        rows.append((source.name, f"{source.files:,}", _size(source.bytes), f"{about}{source.rows:,}"))
    if plan.sources:
        _columns(rows)
        _say("")
    about = "" if plan.exact else "~"
    lines = [("stage", "records in", "records out", "rejected", "time")]
    for stage in plan.stages:
        label = stage.name if stage.name == stage.kind else f"{stage.name} ({stage.kind})"
        taken, passed, rejected = (f"{about}{n:,}" for n in (stage.rows_in, stage.rows_out, stage.rejected))
        lines.append((label, taken, passed, rejected, _duration(stage.seconds)))
    _columns(lines)
    _say("")
    _say(f"would write {about}{_plural(plan.rows, 'record')} with {_size(plan.text_bytes)} of text")
    disk = f"{_size(plan.disk_bytes)} of disk (at most {_size(plan.peak_bytes)} while it runs)"
    _say(f"would take {_duration(plan.seconds)} and {disk}, judged by a sample; nothing was written")


def _show_derivation(derivation: Derivation, steps: Sequence[Step]) -> None:
    _say("")
    _say(f"derivation {derivation.index:,}")
    for step in steps:
        words = {"group": "(...)?", "tag": f"<{step.name}>", "compute": f"{{{step.name}}}"}.get(step.kind, step.name)
        if step.kind == "draw":
            words += f" = {step.value}"
        elif step.choice == (0, 1):
            words += ", left out"
        elif step.choice is not None and step.choice[1] > 1:
            words += ", alternative {} of {}".format(*step.choice)
        if step.text and step.kind != "draw":
            text = step.text if len(step.text) <= _SHOWN else step.text[: _SHOWN - 1] + "…"
            words += f": {json.dumps(text, ensure_ascii=False)}"
        _say(_harmless(f"{'  ' * (step.depth + 1)}{words}"))
    if derivation.bindings:
        _say(_harmless("bindings: " + ", ".join(f"{name} = {value}" for name, value in derivation.bindings.items())))
    _say(_harmless(f"text: {derivation.text}"))


def _in_characters(text: str, spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spans in bytes as spans in characters."""
    raw = text.encode()
    return [span | {key: len(raw[: span[key]].decode()) for key in ("start", "end")} for span in spans]


def _great(count: int) -> str:
    """A number that may have thousands of digits."""
    if count < 10**15:
        return f"{count:,}"
    digits = int(count.bit_length() * _LOG10_OF_2)
    digits += count >= 10**digits
    lead = count // 10 ** (digits - 4)
    return f"about {lead // 1000}.{lead % 1000:03}e{digits - 1}"


def _many(count: int) -> str:
    return f"{_great(count)} derivation" + ("" if count == 1 else "s")


def _duration(seconds: float) -> str:
    """A time as people say it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"~{seconds / size:.1f} {unit}"
    return f"~{seconds:.1f} s"


def _show_diff(found: RunDiff) -> None:
    for number, name in enumerate("AB"):
        rows, size, root = (found.output[key][number] for key in ("rows", "bytes", "merkle_root"))
        folder = (found.a, found.b)[number]
        _say(_harmless(f"{name}: {folder}, {_plural(rows, 'record')} ({_size(size)}), merkle root {root[:16]}"))
    further = "" if found.records.fields_compared else "; further fields, which one of them has as JSON, not compared"
    if found.identical:
        _say("The final sets are identical, byte for byte.")
    elif found.same:
        _say(f"The final sets hold the same records, in another order or in other files{further}.")
    else:
        _say(f"The final sets differ{further}.")
    if not found.recipe:
        _say("The recipes are the same.")
    facts = [f"{name} {_change(*pair)}" for name, pair in found.versions.items()]
    facts += [f"input {one.path} of {one.source}: {one.change}" for one in found.inputs]
    for lines in (found.recipe, facts):
        if lines:
            _say("")
            for line in lines:
                _say(_harmless(line))
    _show_funnels(found)
    _show_records(found)
    shares: list[Sequence[str]] = [("share", "records", "bytes of text", "tokens")]
    for share in found.shares:
        counts = [_change(share.a.get(name), share.b.get(name)) for name in ("rows", "bytes", "tokens")]
        shares.append((f"{share.by} {share.value}", *counts))
    _table(shares)
    _table([("measure", "A", "B"), *((name, _number(a), _number(b)) for name, (a, b) in found.measures.items())])
    for example in found.records.examples:
        _show_example(example)


def _show_funnels(found: RunDiff) -> None:
    """The stages that differ, with their reasons below them."""
    rows: list[Sequence[str]] = [("stage", "in", "created", "out", "rejected")]
    for stage in found.stages:
        if stage.differs:
            a, b = stage.a or {}, stage.b or {}
            only = "" if stage.a and stage.b else " (only in A)" if stage.a else " (only in B)"
            numbers = [_change(a.get(name), b.get(name)) for name in ("in", "created", "out", "rejected")]
            rows.append((stage.name + only, *numbers))
            before, after = a.get("reasons", {}), b.get("reasons", {})
            for reason in sorted(before.keys() | after.keys()):
                rows.append((f"  {reason}", "", "", "", _change(before.get(reason, 0), after.get(reason, 0))))
    _table(rows)


def _show_records(found: RunDiff) -> None:
    """How many records are in both, by kind and source, and what became of those that are not."""
    heads = ("same", "text", "provenance", "fields", "only_a", "only_b")
    titles = ("the same", "other text", "other provenance", "other fields", "only in A", "only in B")
    lines: list[tuple[str, Any]] = [("all", found.records)]
    lines += [(f"{group.kind}, {group.source}", group) for group in found.records.groups]
    shown = [name for name in heads if name not in ("text", "provenance", "fields") or getattr(found.records, name)]
    rows = [("records", *(title for name, title in zip(heads, titles, strict=True) if name in shown))]
    rows += [(label, *(f"{getattr(counts, name):,}" for name in shown)) for label, counts in lines]
    if not found.same:
        _table(rows)
    for here, there, fates in (("A", "B", found.records.fates_a), ("B", "A", found.records.fates_b)):
        if fates:
            _say("")
            _say(f"Of those only in {here}:")
            _columns([(f"  {_fate(fate, there)}", f"{fate.records:,}") for fate in fates])


def _fate(fate: Fate, other: str) -> str:
    if fate.fate == "rejected":
        return f"rejected in {other} by {fate.stage} ({fate.reason})"
    return {
        "same_text": f"same text in {other} under another id",
        "same_parents": f"made otherwise in {other} from the same parents",
    }.get(fate.fate, f"never made in {other}")


def _show_example(example: Example) -> None:
    what = {
        "text": "other text",
        "provenance": "other provenance",
        "fields": "other fields",
        "same_text": f"same text as {example.counterpart} in B",
        "same_parents": f"same parents as {example.counterpart} in B",
        "only_a": "only in A",
        "only_b": "only in B",
    }[example.what]
    if example.rejected:
        stage, reason = example.rejected
        what += f", rejected in {'B' if example.what == 'only_a' else 'A'} by {stage} ({reason})"
    _say("")
    _say(_harmless(f"{example.record_id} ({example.kind}, {example.source}): {what}"))
    for name, (a, b) in example.changes.items():
        _say(_harmless(f"  {name}: {a} -> {b}"))
    if not example.changes:
        same = example.a == example.b
        for mark, text in (("=", example.a),) if same else (("-", example.a), ("+", example.b)):
            if text is not None:
                _say(_harmless(f"  {mark} {text}".replace("\n", "\\n").replace("\t", "\\t")))


def _change(a: Any, b: Any) -> str:
    """Two values as one cell: once if they are equal, and with nothing on the side that has none."""
    if a == b:
        return "" if a is None else _number(a)
    return f"{_number(a)} -> {_number(b)}"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> None:
    """Prints a table with an empty line before it, if there is more than its head."""
    if len(rows) > 1:
        _say("")
        _columns([[_harmless(cell) for cell in row] for row in rows])


def _columns(rows: Sequence[Sequence[str]]) -> None:
    """Prints a table: the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        _say("  ".join(cells).rstrip())


def _guarded(command: Callable[..., Any]) -> int:
    """Runs a typer app; turns what it raises into a line on stderr and an exit code."""
    # UsageError and ClickException, wherever this typer keeps them.
    usage, shown = cast("tuple[type[Exception], type[Any]]", typer.BadParameter.__mro__[1:3])
    try:
        code = command(prog_name="variegate", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except shown as error:
        if not error.format_message() or type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
            return 2
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        _complain(error.format_message().rstrip(".") + hint)
        return 2 if isinstance(error, usage) else 1
    except RecipeError as error:
        return _complain(str(error), 2)
    except RunConflict as error:
        return _complain(str(error), 3)
    except (MissingExtra, SandboxUnavailable) as error:
        return _complain(str(error), 4)
    except VariegateError as error:
        return _complain(str(error), 1)
    except _Stopped as stopped:
        return _stopped(stopped.__cause__)
    except BrokenPipeError as error:
        return _stopped(error)
    except MemoryError:
        return _complain("out of memory: give the machine more, or the recipe less", 1)
    except Exception:
        traceback.print_exc()
        return _complain("this is a bug in Variegate: please report the lines above", 70)


def _stopped(error: BaseException | None) -> int:
    if isinstance(error, BrokenPipeError):
        # The reader of our output left (`| head`): nothing is wrong, and nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        later = "; the same command continues once there is room" if error.errno in _FULL else ""
        return _complain(f"{where}{error.strerror or error}{later}", 1)
    return _complain("interrupted; the same command continues", 130)


def _complain(message: str, code: int = 2) -> int:
    """One readable line on stderr."""
    with contextlib.suppress(OSError):
        print(f"variegate: {_harmless(message)}", file=sys.stderr, flush=True)
    return code


def _harmless(text: str) -> str:
    """The text with what could drive a terminal shown as escapes."""
    return re.sub(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]", lambda match: repr(match[0])[1:-1], text)


def _say(line: str) -> None:
    print(line, flush=True)


def _size(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def _plural(count: int, noun: str, many: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


if __name__ == "__main__":
    main()
