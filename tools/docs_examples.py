"""What the documentation shows is made when it is built: a hook of mkdocs.

``<!-- examples: FAMILY -->`` on a page becomes a table of the `EXAMPLES` of a family of ops (the module that holds
them: ``noise``, ``words``, ...), each really run. ``<!-- output -->`` becomes what the page's Python blocks have
printed since the output before it; they run top to bottom in one namespace.
"""

from __future__ import annotations

import contextlib
import html
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import variegate as vg
from variegate import ops
from variegate.batch import IGNORE_INDEX

FAMILY = re.compile(r"^<!-- examples: (\w+) -->$", re.M)
OUTPUT = "<!-- output -->"
PART = re.compile(rf"^```python\n(?P<code>.*?)^```$|^{OUTPUT}$", re.M | re.S)


@dataclass(frozen=True)
class Example:
    """One row of a table: what the op does to the batch.

    Attributes:
        op: The op.
        batch: What it is called with; rows that have no ids of their own are keyed by their text.
        seed: A seed that shows what the op is about.
    """

    op: ops.Op
    batch: vg.TextBatch | vg.TokenBatch
    seed: int = 7

    @property
    def family(self) -> str:
        """The module that holds the op."""
        return type(self.op).__module__.rpartition(".")[2]

    def run(self) -> Any:
        """The batch that comes out, with sources or edits."""
        return self.op(self.batch, seed=self.seed, return_source=True)


def _text(*texts: str, spans: Iterable[tuple[int, int, int, str]] | None = None) -> vg.TextBatch:
    return vg.TextBatch.from_texts(texts, spans=spans)


def _unigram() -> vg.Tokenizer:
    """A Unigram tokenizer of a few pieces, the longer the likelier."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    longer = ["un", "re", "ing", "able", "ed", "pre", "dict", "ict", "predict", "train", "ain"]
    pieces = ["▁", *"abcdefghijklmnopqrstuvwxyz", *longer, *(f"▁{piece}" for piece in longer)]
    model = models.Unigram([("<unk>", -20.0), *((piece, -8.0 + len(piece) / 4) for piece in pieces)], 0)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return vg.Tokenizer(tokenizer)


TOKENIZER = vg.Tokenizer.default()
TEXT = _text("If the file does not exist, an error is raised.")
MOVIE = _text("A sad but not dull film about two brothers.")
TOKENS = TOKENIZER.encode(TEXT)
WORDS = TOKENIZER.with_word_ids(TOKENIZER.encode(["Unbelievable results, reproducibly: a paragraph."]))
LONG = TOKENIZER.encode(["Return a list of the words in the string, using the separator between words and lines."])
SENTENCES = TOKENIZER.encode(["Open the file. Read the first line. Return the words in a list."])
CODE = TOKENIZER.encode(["def double(x):\n    return x + x\n"])
ROWS = TOKENIZER.encode(["Return the first line.", "Close the file.", "Open the next file."])

MASK: dict[str, Any] = {"mask_id": TOKENIZER.token_to_id("<|mask|>")}
MLM: dict[str, Any] = MASK | {"vocab_size": TOKENIZER.vocab_size}
SENTINELS: dict[str, Any] = {"sentinel_id": TOKENIZER.token_to_id("<extra_id_0>"), "sentinel_step": 1}
FIM: dict[str, Any] = {
    f"{part}_id": TOKENIZER.token_to_id(f"<|fim_{part}|>") for part in ("prefix", "middle", "suffix")
}
STOP = (TOKENIZER.token_to_id("."),)

EXAMPLES = (
    Example(ops.TokenDropout(rate=0.2), TOKENS),
    Example(ops.TokenInsert(rate=0.2, vocab_size=TOKENIZER.vocab_size), TOKENS),
    Example(ops.TokenMask(rate=0.2, **MASK), TOKENS),
    Example(ops.TokenReplace(rate=0.2, vocab_size=TOKENIZER.vocab_size), TOKENS, seed=10),
    Example(ops.TokenSwap(rate=0.2), TOKENS),
    Example(ops.LocalShuffle(k=2), TOKENS),
    Example(ops.MaskedLM(mlm_probability=0.3, **MLM), TOKENS, seed=9),
    Example(ops.WholeWordMask(mlm_probability=0.4, **MLM), WORDS, seed=5),
    Example(ops.NgramMask(mlm_probability=0.3, **MLM), LONG, seed=4),
    Example(ops.SpanCorruption(noise_density=0.3, mean_noise_span_length=2.0, **SENTINELS), TOKENS),
    Example(ops.PrefixLM(), TOKENS, seed=4),
    Example(ops.PrefixLM(form="labels"), TOKENS, seed=4),
    Example(ops.UL2(**SENTINELS), LONG, seed=6),
    Example(ops.TextInfilling(**MASK), LONG, seed=5),
    Example(ops.SentencePermute(end_ids=STOP), SENTENCES, seed=1),
    Example(ops.FillInMiddle(fim_rate=1.0, fim_spm_rate=0.0, **FIM), CODE, seed=1),
    Example(ops.FillInMiddle(fim_rate=1.0, fim_spm_rate=1.0, **FIM), CODE, seed=1),
    Example(ops.BpeDropout(rate=0.3), WORDS, seed=8),
    Example(ops.UnigramSample(alpha=0.2), _unigram().encode(["unpredictable training"]), seed=3),
    Example(ops.KeyboardTypo(rate=0.1), TEXT),
    Example(ops.OcrNoise(rate=0.2), _text("The clerk returned 100 modern forms.")),
    Example(ops.Homoglyph(rate=0.3), _text("Please pay on account 51.")),
    Example(ops.CharInsert(rate=0.1), TEXT),
    Example(ops.CharSubstitute(rate=0.1), TEXT),
    Example(ops.CharDelete(rate=0.1), TEXT, seed=5),
    Example(ops.CharTranspose(rate=0.1), TEXT),
    Example(ops.CaseNoise(rate=0.1), TEXT),
    Example(ops.WhitespaceNoise(rate=0.3, split_rate=0.05), TEXT, seed=2),
    Example(ops.PunctuationInsert(rate=0.3), MOVIE),
    Example(ops.Diacritics(rate=1.0), _text("Việt Nam, garçon, ёлка, Αθήνα")),
    Example(ops.Diacritics(rate=0.2, mode="add"), TEXT),
    Example(ops.Contraction(rate=0.7), _text("I do not know. We'll see, but it isn't far.")),
    Example(ops.WordSwap(rate=0.2), MOVIE),
    Example(ops.WordDelete(rate=0.3), MOVIE, seed=5),
    Example(ops.WordInsert(rate=0.5), MOVIE, seed=3),
    Example(ops.Synonym(rate=0.7), _text("Two CARS stopped quickly, and a big old house was not far.")),
    Example(ops.Rewriter(rate=1.0), _text("In order to win, they made use of a large number of tricks.")),
    Example(
        ops.Rewriter({"{x} because {y}": "because {y}, {x}"}, rate=1.0),
        _text("The dog barked because it was hungry."),
    ),
    Example(ops.Misspelling(rate=0.7), _text("We definitely received a separate address.")),
    Example(
        ops.EntitySwap(rate=1.0, tag="PER", entities=("Grace Hopper", "Alan Turing")),
        _text("Ada met Bob in London.", spans=[(0, 0, 3, "PER"), (0, 8, 11, "PER")]),
    ),
    Example(vg.Compose([ops.WordDelete(rate=0.2), ops.KeyboardTypo(rate=0.1)]), MOVIE),
    Example(vg.Compose([ops.KeyboardTypo(rate=0.05), ops.TokenDropout(rate=0.1), ops.BpeDropout(rate=0.2)]), TOKENS),
    Example(vg.OneOf([ops.TokenSwap(rate=0.3), ops.TokenMask(rate=0.3, **MASK)]), ROWS, seed=11),
    Example(vg.SomeOf([ops.CaseNoise(rate=0.2), ops.CharDelete(rate=0.2), ops.CharTranspose(rate=0.2)], k=2), TEXT),
    Example(vg.Sometimes(ops.TokenDropout(rate=0.4), p=0.5), ROWS, seed=10),
    Example(vg.Repeat(ops.TokenDropout(rate=0.2), n=3), ROWS[0]),
)


def table(family: str) -> str:
    """The HTML table of a family's examples.

    Raises:
        ValueError: A family without examples.
    """
    found = [example for example in EXAMPLES if example.family == family]
    if not found:
        raise ValueError(f"there is no example of the family {family!r}")
    return f'<table class="examples">\n{"".join(map(_body, found))}</table>'


def outputs(markdown: str) -> str:
    """A page whose output markers are what its Python blocks print."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()

    def part(match: re.Match[str]) -> str:
        nonlocal printed
        if match["code"] is not None:
            with contextlib.redirect_stdout(printed):
                exec(match["code"], namespace)
            return match[0]
        text, printed = printed.getvalue(), io.StringIO()
        return f"```{{ .text .no-copy .output }}\n{text}```"

    return PART.sub(part, markdown)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs with every page."""
    markdown = FAMILY.sub(lambda match: table(match[1]), markdown)
    return outputs(markdown) if OUTPUT in markdown else markdown


def _body(example: Example) -> str:
    """One op: its call, then a row for what goes in, what comes out, and what is to be learnt."""
    name, rest = re.fullmatch(r"(\w+)(.*)", repr(example.op)).groups()
    link = f'<a href="api/ops.html#variegate.ops.{name}">{name}</a>'
    head = f"<code>{link}{html.escape(rest, quote=False)}</code> <small>seed {example.seed}</small>"
    rows = "".join(
        f'<tr><th scope="row">{label}</th><td>{"".join(f"<div>{row}</div>" for row in rows)}</td></tr>\n'
        for label, rows in _lines(example.batch, example.run())
    )
    return f'<tbody>\n<tr><th colspan="2" scope="rowgroup">{head}</th></tr>\n{rows}</tbody>\n'


def _lines(before: Any, after: Any) -> Iterator[tuple[str, list[str]]]:
    """What to show of an op: labels, each with the HTML of its rows."""
    return _texts(before, after) if isinstance(after, vg.TextBatch) else _tokens(before, after)


def _texts(before: Any, after: vg.TextBatch) -> Iterator[tuple[str, list[str]]]:
    """Texts, with the runs of bytes that were replaced struck out and what replaced them marked."""
    taken: list[list[tuple[int, int]]] = [[] for _ in before.texts]
    given: list[list[tuple[int, int]]] = [[] for _ in after.texts]
    moved = [0] * len(before)
    for row, start, end, length in zip(*(part.tolist() for part in after.edits), strict=True):
        taken[row].append((start, end))
        given[row].append((start + moved[row], start + moved[row] + length))
        moved[row] += length - (end - start)
    yield "before", [_runs(text.encode(), runs, "del") for text, runs in zip(before.texts, taken, strict=True)]
    yield "after", [_runs(text.encode(), runs, "mark") for text, runs in zip(after.texts, given, strict=True)]


def _runs(text: bytes, runs: list[tuple[int, int]], tag: str) -> str:
    """A text with its runs of bytes in a tag; runs that touch are one."""
    out, at = "", 0
    for start, end in runs:
        if start < end:
            out += f"{html.escape(text[at:start].decode())}<{tag}>{html.escape(text[start:end].decode())}</{tag}>"
            at = end
    return (out + html.escape(text[at:].decode())).replace(f"</{tag}><{tag}>", "")


def _tokens(before: Any, after: vg.TokenBatch) -> Iterator[tuple[str, list[str]]]:
    """Tokens in boxes: those that went struck out, those that an op chose marked."""
    pieces = _pieces(before.tokenizer)

    def rows(values: Any, offsets: Any) -> list[list[int]]:
        return [row.tolist() for row in np.split(values, offsets[1:-1])]

    source = rows(after.source, after.offsets)
    chosen = rows((after.edited != 0) | (after.source < 0), after.offsets)
    objective = after.targets is not None or "labels" in after.columns
    kept: dict[int, set[int]] = {}
    for parent, sources in zip(after.rows.get("parent", after.ids).tolist(), source, strict=True):
        kept.setdefault(parent, set()).update(sources)
    yield (
        "before",
        [
            _boxes(
                (pieces[token], "span" if objective or at in kept[parent] else "del") for at, token in enumerate(row)
            )
            for parent, row in zip(before.ids.tolist(), before.to_lists(), strict=True)
        ],
    )
    yield (
        "input" if objective else "after",
        [
            _boxes((pieces[token], "mark" if mark else "span") for token, mark in zip(row, marks, strict=True))
            for row, marks in zip(after.to_lists(), chosen, strict=True)
        ],
    )
    if "labels" in after.columns:
        labels = rows(after.columns["labels"], after.offsets)
        yield "labels", [_boxes(("·" if at == IGNORE_INDEX else pieces[at], "span") for at in row) for row in labels]
    if after.targets is not None:
        yield "targets", [_boxes((pieces[token], "span") for token in row) for row in after.targets.to_lists()]


def _pieces(tokenizer: vg.Tokenizer) -> list[str]:
    """What to show of each token: special ones by name, others as the text that they add."""
    special = set(tokenizer.special_ids.tolist())
    return [
        str(tokenizer.id_to_token(token)) if token in special or not text else text.decode(errors="replace")
        for token, text in enumerate(tokenizer.token_bytes)
    ]


def _boxes(tokens: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<{tag} class="token">{html.escape(piece).replace(chr(10), "↵")}</{tag}>' for piece, tag in tokens)
