"""Texts with their edits, differences and spans marked; long unmarked stretches are cut out and counted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from variegate.report._html import Html, join, tag, text

__all__ = ["difference", "plain", "side_by_side", "spans", "tightened"]

Edit = tuple[int, int, int, int]

_WHOLE = 900  # a text up to this many characters is shown whole
_CONTEXT = 160  # what stays visible on each side of a mark in a longer one
_MOST = 2400  # characters of a longer text that are looked at; the rest is counted
_WORDS = re.compile(r"\w+|\s+|[^\w\s]")


def side_by_side(before: str, after: str, edits: Iterable[Sequence[int]]) -> tuple[Html, Html]:
    """Both texts, `<del>` around what the edits took from `before`, `<ins>` around what they put into `after`.

    `edits` holds `[source start, source end, output start, output end]` in characters, half-open, in any order;
    offsets outside the texts are clipped. Returns the two panes.

    Example:
        >>> side_by_side("a big cat", "a bog cat", [(3, 4, 3, 4)])
        ('a b<del>i</del>g cat', 'a b<ins>o</ins>g cat')
    """
    quads = [tuple(int(number) for number in edit) for edit in edits]
    left = [(start, end, "del", "") for start, end, _, _ in quads]
    right = [(start, end, "ins", "") for _, _, start, end in quads]
    return _marked(before, left), _marked(after, right)


def tightened(before: str, after: str, edits: Iterable[Sequence[int]]) -> list[Edit]:
    """The edits without the characters that both sides of an edit begin or end with; empty ones fall away.

    Example:
        >>> tightened("a word", "a wird", [(2, 6, 2, 6)])
        [(3, 4, 3, 4)]
    """
    tight = []
    for start, end, out_start, out_end in edits:
        old, new = before[start:end], after[out_start:out_end]
        head = _common(old, new)
        tail = _common(old[head:][::-1], new[head:][::-1])
        if len(old) > head + tail or len(new) > head + tail:
            tight.append((start + head, end - tail, out_start + head, out_end - tail))
    return tight


def difference(kept: str, dropped: str) -> list[Edit]:
    """Word edits that turn `kept` into `dropped`, in characters; cost is bounded whatever the texts.

    Equal ends are cut off first; of the middle, the first 2,400 characters of each are compared and the rest counts
    as one edit.

    Example:
        >>> difference("one two three", "one 2 three")
        [(4, 7, 4, 5)]
    """
    head = _common(kept, dropped)
    tail = _common(kept[head:][::-1], dropped[head:][::-1])
    # Grow the middle to whole words, so that "two" against "ten" is one edit and not two letters.
    while head and _inside_word(kept, head) | _inside_word(dropped, head):
        head -= 1
    while tail and _inside_word(kept, len(kept) - tail) | _inside_word(dropped, len(dropped) - tail):
        tail -= 1
    old, new = kept[head : len(kept) - tail], dropped[head : len(dropped) - tail]
    old_words, new_words = _WORDS.findall(old[:_MOST]), _WORDS.findall(new[:_MOST])
    old_at, new_at = _starts(old_words, head), _starts(new_words, head)
    codes = difflib.SequenceMatcher(None, old_words, new_words, autojunk=False).get_opcodes()
    edits = [(old_at[a], old_at[b], new_at[c], new_at[d]) for kind, a, b, c, d in codes if kind != "equal"]
    if len(old) > _MOST or len(new) > _MOST:
        edits.append((old_at[-1], head + len(old), new_at[-1], head + len(new)))
    return edits


def spans(value: str, marks: Iterable[tuple[int, int, str]]) -> Html:
    """`value` with each `(start, end, tag)` marked and named; of overlapping spans the outer one is drawn.

    Example:
        >>> spans("1+1 is 2", [(7, 8, "answer")])
        '1+1 is <mark>2<span class="tag">answer</span></mark>'
    """
    return _marked(value, [(int(start), int(end), "mark", str(name)) for start, end, name in marks])


def plain(value: str) -> Html:
    """`value` without marks; a long one shows its beginning."""
    return _marked(value, [])


def _marked(value: str, marks: list[tuple[int, int, str, str]]) -> Html:
    """Walks the marks from left to right; a mark that begins inside the one before it is cut to what is left of it."""
    pieces: list[Html] = []
    at = 0
    whole = len(value) <= _WHOLE
    for start, end, kind, name in sorted(marks, key=lambda mark: (mark[0], -mark[1])):
        start = max(at, min(start, len(value)))
        end = max(start, min(end, len(value)))
        if not whole and start > _MOST:
            break
        pieces.append(text(value[at:start]) if whole else _shortened(value[at:start], first=at == 0))
        if end > start:
            label = tag("span", name, class_="tag") if name else Html("")
            inner = _returns(value[start:end]) if len(value[start:end]) <= _WHOLE else _shortened(value[start:end])
            pieces.append(tag(kind, inner, label))
        at = end
    rest = value[at:]
    if whole:
        pieces.append(text(rest))
    else:
        keep = _CONTEXT if marks else _WHOLE
        pieces.append(join(rest[:keep], _skipped(len(rest) - keep)) if len(rest) > keep else text(rest))
    return join(*pieces)


def _shortened(piece: str, *, first: bool = False) -> Html:
    head = 0 if first else _CONTEXT
    if len(piece) <= head + _CONTEXT + 40:
        return text(piece)
    return join(piece[:head], _skipped(len(piece) - head - _CONTEXT), piece[-_CONTEXT:])


def _skipped(count: int) -> Html:
    return tag("span", f" … {count:,} characters … ", class_="skip")


def _returns(value: str) -> Html:
    """An edited line break shows as a sign and still breaks the line."""
    return join(*(join("↵\n") if part == "\n" else text(part) for part in re.split("(\n)", value) if part))


def _common(left: str, right: str) -> int:
    shorter = min(len(left), len(right))
    low, high = 0, shorter
    while low < high:
        middle = (low + high + 1) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _inside_word(value: str, at: int) -> bool:
    return 0 < at < len(value) and all(sign.isalnum() or sign == "_" for sign in value[at - 1 : at + 1])


def _starts(words: list[str], start: int) -> list[int]:
    starts = [start]
    for word in words:
        starts.append(starts[-1] + len(word))
    return starts
