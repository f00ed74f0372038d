"""Conversations as token batches: a chat template lays the turns out, columns say whose turn a token belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from variegate.batch import TextBatch, TokenBatch
from variegate.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from variegate.tokenizer import Tokenizer

__all__ = ["SEGMENTS", "TEMPLATES", "encode_messages"]

SEGMENTS = {"system": 1, "user": 2, "assistant": 3, "tool": 4, "developer": 5}
"""What the column ``segment`` holds for each role; 0 is no turn, other roles count from 6 in template order."""

TEMPLATES: dict[str, dict[str, tuple[str, str]]] = {
    "chatml": {role: (f"<|im_start|>{role}\n", "<|im_end|>\n") for role in SEGMENTS},
}
"""The built-in templates: for each role, what stands before and after the content of a turn."""


def encode_messages(
    conversations: Iterable[Sequence[Mapping[str, str]]],
    tokenizer: Tokenizer,
    *,
    template: str | Mapping[str, tuple[str, str]],
    ids: ArrayLike | None,
) -> TokenBatch:
    """One row per conversation; see `TokenBatch.from_messages`."""
    turns = _template(template)
    segments = dict(SEGMENTS)
    for role in turns:
        segments.setdefault(role, len(segments) + 1)
    texts, lengths, owners, learned = [], [], [], []
    for c, conversation in enumerate(conversations):
        parts: list[str] = []
        for m, message in enumerate(conversation):
            role, content = _message(message, f"conversation {c}, message {m}")
            if role not in turns:
                raise InvalidInput(
                    f"conversation {c}, message {m}: the template has no role {role!r}, only {list(turns)}"
                )
            before, after = turns[role]
            marker = after.rstrip()
            parts += [before, content, after]
            lengths += [_bytes(before), _bytes(content) + _bytes(marker), _bytes(after) - _bytes(marker)]
            owners += [segments[role]] * 3
            learned += [0, int(role == "assistant"), 0]
        texts.append("".join(parts))
    laid = TextBatch.from_texts(texts, ids=ids)
    batch = tokenizer.encode(laid)
    start, _ = tokenizer._hf.offsets(laid.data, laid.offsets, batch.tokens, batch.offsets, False)
    # A token belongs to the part that its first byte lies in.
    start += np.repeat(laid.offsets[:-1], batch.lengths)
    part = np.searchsorted(np.cumsum(lengths, dtype=np.int64), start, "right")
    part = np.minimum(part, len(lengths) - 1)
    batch.columns["segment"] = np.array(owners, np.uint8)[part]
    batch.columns["loss_mask"] = np.array(learned, np.uint8)[part]
    return batch


def _template(template: str | Mapping[str, tuple[str, str]]) -> Mapping[str, tuple[str, str]]:
    if not isinstance(template, str):
        return template
    if template not in TEMPLATES:
        raise InvalidInput(
            f"template must be a mapping of role to (before, after) or one of {list(TEMPLATES)}, not {template!r}"
        )
    return TEMPLATES[template]


def _message(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        has = f"it has {sorted(message)}" if isinstance(message, Mapping) else f"it is {type(message).__name__}"
        raise InvalidInput(f"{where} must be a mapping with 'role' and 'content' ({has})")
    role, content = message["role"], message["content"]
    if not isinstance(content, str):
        raise InvalidInput(f"{where}: 'content' must be str, not {type(content).__name__}")
    return role, content


def _bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
