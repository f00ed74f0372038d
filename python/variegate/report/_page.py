"""The page: its sections from top to bottom, each a function of the report."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from variegate.report._html import Html, join, tag
from variegate.report._marks import difference, plain, side_by_side, spans, tightened

__all__ = ["page", "problems"]

Report = Mapping[str, Any]

_MEASURES = {
    "tokens": "Tokens",
    "types": "Distinct tokens",
    "entropy": "Entropy, bits a token",
    "coverage": "Coverage of the reference",
    "tail_coverage": "Coverage of its tail",
    "duplicate_share": "Duplicate share",
}
_EXAMPLES = 4  # shown of one stage and reason
_SHARES = {"kind": "Kind", "source": "Source", "license": "Licence", "generation": "Generation"}


def page(report: Report, *, out: str) -> str:
    """The whole page of one `report.json`, as text; `out` is the run directory's name for the commands on it."""
    sections = [
        ("funnel", "Where every record went", _funnel(report)),
        ("examples", "What the stages did", _examples(report["stages"])),
        ("shares", "What the set is made of", _shares(report["shares"])),
        ("measures", "Measured against the real text", _measures(report["measures"])),
        ("throughput", "Time", _throughput(report)),
        ("files", "Files", _files(report)),
        ("reproduce", "How to reproduce", _reproduce(report, out)),
    ]
    shown = [(key, title, body) for key, title, body in sections if body]
    contents = tag(
        "nav",
        tag("ul", *(tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in shown)),
        aria_label="Contents",
    )
    main = [
        tag("section", tag("h2", title, id=f"{key}-h"), body, id=key, aria_labelledby=f"{key}-h")
        for key, title, body in shown
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        tag("title", f"Variegate run {report['recipe_hash'][:12]}"),
        tag("style", Html(files("variegate.report").joinpath("style.css").read_text(encoding="utf-8"))),
    )
    body = tag("body", tag("main", _summary(report), contents, *main), tag("footer", _footer(report)))
    return join(Html("<!doctype html>\n"), tag("html", head, body, lang="en")) + "\n"


def problems(report: Report) -> list[str]:
    """Each sum of the funnel that does not come out, as one sentence; an empty list says that all do.

    What is checked: in + created = out + rejected in every stage, the reasons of a stage against its rejects, what a
    stage passes on against what the next one takes, and the last stage against the rows of the output.
    """
    stages, output = report["stages"], report["output"]
    found = []
    before, flow = "the sources", sum(source["rows"] for source in report["inputs"])
    for index, stage in enumerate(stages):
        name = f"stage {stage['name']}"
        if index == 0 and stage["kind"] == "read":
            if stage["out"] != flow:
                found.append(f"{before} hold {flow:,} records, {name} passed on {stage['out']:,}")
        elif stage["in"] != flow:
            found.append(f"{before} passed on {flow:,} records, {name} took {stage['in']:,}")
        if stage["in"] + stage["created"] != stage["out"] + stage["rejected"]:
            found.append(
                f"{name}: {stage['in']:,} in + {stage['created']:,} created is not "
                f"{stage['out']:,} out + {stage['rejected']:,} dropped"
            )
        reasons = sum(stage["reasons"].values())
        if reasons != stage["rejected"]:
            found.append(f"{name}: its reasons explain {reasons:,} of {stage['rejected']:,} dropped records")
        flow, before = stage["out"], name
    if output["rows"] != flow:
        found.append(f"{before} passed on {flow:,} records, the output holds {output['rows']:,}")
    return found


def _summary(report: Report) -> Html:
    inputs, stages, output = report["inputs"], report["stages"], report["output"]
    read = stages[0]["in"] if stages else 0
    created = sum(stage["created"] for stage in stages)
    dropped = sum(stage["rejected"] for stage in stages)
    wrong = problems(report)
    facts = [
        (
            "read",
            f"{read:,}",
            f"{_bytes(sum(source['bytes'] for source in inputs))} of {_plural(len(inputs), 'source')}",
        ),
        ("created", f"{created:,}", f"by {_plural(sum(1 for stage in stages if stage['created']), 'stage')}"),
        ("dropped", f"{dropped:,}", "each in the rejects ledger"),
        ("written", f"{output['rows']:,}", f"{_bytes(output['bytes'])}, {output['format']}"),
        (
            "seconds",
            _seconds(report["seconds"]),
            f"{_plural(report['workers'], 'worker')}, {_rate(read, report['seconds'])} rows/s",
        ),
    ]
    tiles = (
        tag("div", tag("dt", name), tag("dd", value, tag("small", note)), class_=f"tile {name}")
        for name, value, note in facts
    )
    verdict = (
        tag(
            "p",
            tag("strong", "Every record is accounted for: "),
            f"{read:,} read + {created:,} created = ",
            f"{output['rows']:,} written + {dropped:,} dropped.",
            class_="good",
            role="status",
        )
        if not wrong
        else tag(
            "div",
            tag(
                "p", tag("strong", "The counts of this run do not add up. "), "Do not train on it before you know why:"
            ),
            tag("ul", *(tag("li", line) for line in wrong)),
            class_="bad",
            role="alert",
        )
    )
    return tag(
        "header",
        tag("p", "Variegate run", class_="over"),
        tag("h1", _headline(report)),
        verdict,
        tag("dl", *tiles, class_="tiles"),
    )


def _headline(report: Report) -> str:
    names = [source["source"] for source in report["inputs"]]
    named = " + ".join(names[:3]) + (f" + {len(names) - 3} more" if len(names) > 3 else "")
    return f"{named or 'Templates'} → {report['output']['rows']:,} records"


def _funnel(report: Report) -> Html:
    stages = report["stages"]
    most = max([stage["in"] + stage["created"] for stage in stages], default=0) or 1
    rows: list[Html] = []
    for stage in stages:
        rows += _funnel_rows(stage, most)
    head = tag(
        "tr",
        tag("th", "Stage", scope="col"),
        *(tag("th", name, scope="col", class_="n") for name in ("In", "Created", "Dropped", "Out")),
    )
    total = tag(
        "tr",
        tag("th", "written to ", tag("code", "data/"), scope="row"),
        tag("td", ""),
        tag("td", ""),
        tag("td", ""),
        _number(report["output"]["rows"]),
        class_="total",
    )
    legend = tag(
        "p",
        *(
            tag("span", tag("i", "", class_=f"key {key}"), name, class_="legend")
            for key, name in (("in", "came in"), ("new", "created"), ("out", "went on"), ("drop", "dropped"))
        ),
        " The two bars of a stage are equally long, because in + created = dropped + out.",
        class_="note",
    )
    return join(
        legend,
        _table("The funnel: records in, created, dropped and out by stage", head, [*rows, total], class_="funnel"),
    )


def _funnel_rows(stage: Report, most: int) -> list[Html]:
    name, kind, reasons = stage["name"], stage["kind"], stage["reasons"]
    came, created, dropped, went = (stage[count] for count in ("in", "created", "rejected", "out"))
    label = tag("th", name, *([tag("small", kind)] if kind not in name else []), scope="row")
    cells = [_number(came), _number(created, quiet=True), _number(dropped, quiet=True), _number(went)]
    bars = join(
        tag("div", _bar("in", came, most), _bar("new", created, most), class_="bar"),
        tag("div", _bar("out", went, most), _bar("drop", dropped, most), class_="bar"),
    )
    why: list[Html] = []
    if reasons:
        ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        why = [
            tag(
                "ul",
                *(tag("li", tag("b", f"{count:,}"), " ", _words(reason)) for reason, count in ordered),
                class_="why",
            )
        ]
    told = [tag("p", line, class_="why") for line in _targets(stage)]
    return [
        tag("tr", label, *cells),
        tag("tr", tag("td", tag("div", bars, aria_hidden="true"), *why, *told, colspan=5), class_="under"),
    ]


def _targets(stage: Report) -> list[str]:
    """Whether a stage reached what was asked of it, or of those before it."""
    lines = []
    if stage.get("short"):
        lines.append(f"{_plural(stage['short'], 'record')} with fewer variants than asked for")
    for name, target in stage.get("targets", {}).items():
        missing = "" if target["accepted"] >= target["wanted"] else ": the budget is exhausted"
        wanted = f"{target['accepted']:,} of {target['wanted']:,} wanted"
        lines.append(f"{name}: {wanted}, from {_plural(target['candidates'], 'candidate')}{missing}")
    return lines


def _bar(kind: str, count: int, most: int) -> Html:
    return tag("i", "", class_=kind, style=f"width:{100 * count / most:.3f}%") if count else Html("")


def _examples(stages: Sequence[Report]) -> Html:
    blocks = []
    for stage in stages:
        seen: Counter[str] = Counter()
        shown = []
        for example in stage["examples"]:
            group = example.get("reason", "")
            seen[group] += 1
            if seen[group] <= _EXAMPLES:
                shown.append(_example(example))
        if shown:
            blocks.append(
                join(
                    tag(
                        "h3",
                        stage["name"],
                        *([tag("small", stage["kind"])] if stage["kind"] not in stage["name"] else []),
                    ),
                    *shown,
                )
            )
    return join(*blocks)


def _example(example: Report) -> Html:
    if "before" in example:
        edits = tightened(example["before"], example["after"], example["edits"])
        left, right = side_by_side(example["before"], example["after"], edits)
        return _pair(
            f"{example['op']}: {_plural(len(edits), 'edit')}",
            example.get("record_id"),
            ("before", left),
            ("after", right),
        )
    if "kept" in example:
        kept, dropped = example["kept"], example["dropped"]
        edits = difference(kept["text"], dropped["text"])
        left, right = side_by_side(kept["text"], dropped["text"], edits)
        alike = f", similarity {example['similarity']:.3f}" if example.get("similarity") is not None else ""
        same = "identical text" if example["reason"] == "duplicate" else "no difference in what is shown"
        how = _plural(len(edits), "difference") if edits else same
        return _pair(
            f"{_words(example['reason'])}{alike}: {how}",
            None,
            (f"kept {_short(kept['record_id'])}", left),
            (f"dropped {_short(dropped['record_id'])}", right),
        )
    if "spans" in example:
        return _single("expansion", example.get("record_id"), spans(example["text"], map(tuple, example["spans"])))
    return _single(
        f"dropped: {_words(example['reason'])}" if "reason" in example else "record",
        example.get("record_id"),
        plain(example["text"]),
    )


def _pair(caption: str, record: str | None, left: tuple[str, Html], right: tuple[str, Html]) -> Html:
    sides = (
        tag("div", tag("h4", name), tag("pre", body, dir="auto", tabindex=0), class_="side")
        for name, body in (left, right)
    )
    return tag("figure", _caption(caption, record), tag("div", *sides, class_="pair"))


def _single(caption: str, record: str | None, body: Html) -> Html:
    return tag("figure", _caption(caption, record), tag("pre", body, dir="auto", tabindex=0))


def _caption(caption: str, record: str | None) -> Html:
    return tag("figcaption", caption, *([" ", tag("code", _short(record))] if record else []))


def _shares(shares: Report) -> Html:
    tables = []
    for key, title in _SHARES.items():
        values = shares.get(key)
        if not values:
            continue
        rows_total = sum(share["rows"] for share in values.values()) or 1
        bytes_total = sum(share["bytes"] for share in values.values()) or 1
        ordered = sorted(values.items(), key=lambda item: (-item[1]["bytes"], str(item[0])))
        head = tag(
            "tr",
            tag("th", title, scope="col"),
            *(tag("th", name, scope="col", class_="n") for name in ("Rows", "Share", "Bytes", "Share")),
        )
        rows = []
        for value, share in ordered:
            part = share["bytes"] / bytes_total
            bar = tag("div", _bar("out", share["bytes"], bytes_total), class_="bar", aria_hidden="true")
            rows.append(
                tag(
                    "tr",
                    tag("th", str(value), bar, scope="row"),
                    _number(share["rows"]),
                    _cell(_percent(share["rows"] / rows_total)),
                    _cell(_bytes(share["bytes"])),
                    _cell(_percent(part)),
                )
            )
        tables.append(_table(f"Shares by {title.lower()}", head, rows))
    return tag("div", *tables, class_="grid") if tables else Html("")


def _measures(measures: Mapping[str, Report]) -> Html:
    if not measures:
        return Html("")
    names = [name for name in _MEASURES if any(values.get(name) is not None for values in measures.values())]
    head = tag(
        "tr", tag("th", "Measure", scope="col"), *(tag("th", label, scope="col", class_="n") for label in measures)
    )
    rows = [
        tag(
            "tr",
            tag("th", _MEASURES[name], scope="row"),
            *(_cell(_measure(name, values.get(name))) for values in measures.values()),
        )
        for name in names
    ]
    note = tag(
        "p",
        "Coverage is the share of the reference's distinct tokens that occur; the tail is the rare ones, which a model "
        "that is trained on synthetic text loses first. 100 % says that nothing went missing.",
        class_="note",
    )
    return join(note, _table("Measures of each set", head, rows))


def _throughput(report: Report) -> Html:
    total = report["seconds"] or 1
    head = tag(
        "tr",
        tag("th", "Stage", scope="col"),
        *(tag("th", name, scope="col", class_="n") for name in ("Seconds", "Share", "Rows/s", "Tokens/s", "MB/s")),
    )
    rows = []
    for stage in report["stages"]:
        spent = stage["seconds"]
        bar = tag("div", _bar("in", min(spent, total), total), class_="bar", aria_hidden="true")
        rows.append(
            tag(
                "tr",
                tag("th", stage["name"], bar, scope="row"),
                _cell(_seconds(spent)),
                _cell(_percent(spent / total)),
                _cell(_rate(stage["in"] + stage["created"], spent)),
                _cell(_rate(stage["tokens"], spent) if stage.get("tokens") else "–"),
                _cell(_rate(stage["bytes"] / 1e6, spent) if stage.get("bytes") else "–"),
            )
        )
    rest = total - sum(stage["seconds"] for stage in report["stages"])
    if rest > 0:
        rows.append(
            tag(
                "tr",
                tag("th", "writing the output", scope="row"),
                _cell(_seconds(rest)),
                _cell(_percent(rest / total)),
                _cell("–"),
                _cell("–"),
                _cell("–"),
            )
        )
    rows.append(
        tag(
            "tr",
            tag("th", "all", scope="row"),
            _cell(_seconds(total)),
            _cell(""),
            _cell(_rate(sum(source["rows"] for source in report["inputs"]), total)),
            _cell(""),
            _cell(_rate(sum(source["bytes"] for source in report["inputs"]) / 1e6, total)),
            class_="total",
        )
    )
    return _table("Time and throughput by stage", head, rows)


def _files(report: Report) -> Html:
    names = ("Files", "Rows", "Bytes")
    head = tag(
        "tr",
        tag("th", "Source", scope="col"),
        tag("th", "Kind, licence", scope="col"),
        *(tag("th", name, scope="col", class_="n") for name in names),
    )
    rows = [
        tag(
            "tr",
            tag("th", source["source"], scope="row"),
            tag("td", f"{source['kind']}, {source['license'] or 'no licence'}"),
            _number(_count(source["files"])),
            _number(source["rows"]),
            _cell(_bytes(source["bytes"])),
        )
        for source in report["inputs"]
    ]
    output = report["output"]
    out_head = tag(
        "tr",
        tag("th", "Output", scope="col"),
        *(tag("th", name, scope="col", class_="n") for name in ("Rows", "Bytes")),
        tag("th", "SHA-256", scope="col"),
    )
    out_rows = [
        tag(
            "tr",
            tag("th", tag("code", file["path"]), scope="row"),
            _number(file["rows"]),
            _cell(_bytes(file["bytes"])),
            tag("td", tag("code", file["sha256"], class_="hash")),
        )
        for file in output["files"]
    ]
    return join(_table("Sources read", head, rows), _table("Files written", out_head, out_rows))


def _reproduce(report: Report, out: str) -> Html:
    where = shlex.quote(out)
    facts = [
        ("Variegate", report["variegate"]),
        ("Seed", report["seed"]),
        ("Recipe hash", report["recipe_hash"]),
        ("Merkle root of the output", report["output"]["merkle_root"]),
        ("Workers", f"{report['workers']} (any number gives the same files)"),
    ]
    commands = (
        f"pip install variegate=={report['variegate']}\n"
        f"variegate run recipe.yaml -o {where}     # the recipe is below\n"
        f"variegate check {where}                  # hashes, Merkle root and ledger"
    )
    return join(
        tag("pre", commands, tabindex=0),
        tag(
            "dl",
            *(tag("div", tag("dt", name), tag("dd", tag("code", str(value)))) for name, value in facts),
            class_="facts",
        ),
        tag(
            "details",
            tag("summary", "The recipe, with every default written out"),
            tag("pre", report["recipe"], tabindex=0),
        ),
    )


def _footer(report: Report) -> Html:
    return tag(
        "p",
        f"Variegate {report['variegate']}. This file needs no network and runs no script; the numbers are in ",
        tag("code", "report.json"),
        ".",
    )


def _table(caption: str, head: Html, rows: Iterable[Html], *, class_: str | None = None) -> Html:
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *rows), class_=class_)
    return tag("div", table, class_="scroll", role="region", aria_label=caption, tabindex=0)


def _number(count: int, *, quiet: bool = False) -> Html:
    return _cell("–" if quiet and not count else f"{count:,}")


def _cell(value: str) -> Html:
    return tag("td", value, class_="n")


def _measure(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name in ("types", "tokens"):
        return f"{value:,.0f}"
    return f"{value:.3f}" if name == "entropy" else _percent(value)


def _words(reason: str) -> str:
    return reason.replace("_", " ")


def _count(files: Any) -> int:
    return files if isinstance(files, int) else len(files)


def _short(record: str) -> str:
    return record[:12]


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share == 0 or share >= 0.001 else "< 0.1 %"


def _seconds(value: float) -> str:
    return (
        f"{value:.2f} s"
        if value < 10
        else f"{value:.1f} s"
        if value < 120
        else f"{int(value // 60)} min {value % 60:.0f} s"
    )


def _rate(count: float, seconds: float) -> str:
    if seconds <= 0:
        return "–"
    value = count / seconds
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _bytes(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
