"""Character noise on text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from variegate.ops._base import Op

__all__ = ["KeyboardTypo"]


@dataclass(frozen=True, kw_only=True, repr=False)
class KeyboardTypo(Op):
    """Replaces letters by their neighbours on the keyboard.

    Each letter a-z of the text (either case) is hit with probability `rate` and becomes one of the letters whose keys
    touch its own, all equally likely; its case stays. Spaces, digits, punctuation and letters beyond ASCII stay, and so
    does a letter that carries a combining mark: no grapheme cluster is cut. Takes a `TextBatch`; with
    ``return_source=True`` its ``edits`` say which bytes changed.

    Attributes:
        rate: The probability, in [0, 1]; drawn to 2^-24.
        layout: ``qwerty``, ``qwertz``, ``azerty`` or ``dvorak``.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1], or a layout that is not there; in the call, a `TokenBatch`.

    Example:
        >>> import variegate as vg
        >>> out = KeyboardTypo(rate=0.2)(vg.TextBatch.from_texts(["Hello there, world!"], ids=[1]), seed=2)
        >>> len(out.texts[0])
        19
    """

    rate: float
    layout: Literal["azerty", "dvorak", "qwerty", "qwertz"] = "qwerty"
    spans: Literal["follow", "drop", "forbid"] = "follow"
