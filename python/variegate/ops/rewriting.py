"""Phrases said in another way, by rules."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal, Self, overload

from variegate.batch import TextBatch, TokenBatch
from variegate.errors import InvalidInput
from variegate.ops._base import Batch, Op
from variegate.ops.rules import Rules

if TYPE_CHECKING:
    from variegate.tokenizer import Tokenizer

__all__ = ["Rewriter"]


@dataclass(frozen=True, repr=False)
class Rewriter(Op):
    """Rewrites phrases by rules: "make use of {x}" to "use {x}".

    Each match of a rule (see `Rules`) is hit with probability `rate` and becomes one of the rule's alternatives, drawn
    by their weights. Where matches overlap the leftmost counts, then the longest, then the first rule. What takes the
    place of a phrase has its case (a capital first letter, capitals throughout); a capture that leaves the start of a
    sentence loses the capital of words such as "The"; after "a" and "an" only what goes with them is drawn. Captures
    that stay in their order are not edited, so that spans in them stay.

    A match beside a negation, or with one in a capture, is left alone.

    Attributes:
        rules: The rules (or pairs, or a mapping); None is a set of several hundred for English, which keep the meaning.
        rate: The probability, in [0, 1]; drawn to 2^-24.
        negations: The words that are negations; None stands for `NEGATIONS`, () for none.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1], or what is no rule; in the call, a `TokenBatch` without a tokenizer.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TextBatch.from_texts(["In order to win, make use of it."], ids=[1])
        >>> Rewriter({"in order to": "to", "make use of": "use"}, rate=1.0)(batch, seed=1).texts
        ['To win, use it.']
        >>> sorted(Rewriter({"in order to": "to | so as to"})(batch, n=3, seed=1).texts)
        ['So as to win, make use of it.', 'To win, make use of it.']
    """

    rules: Rules | None = None
    _: KW_ONLY
    rate: float = 0.5
    negations: tuple[str, ...] | None = None
    spans: Literal["follow", "drop", "forbid"] = "follow"

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, rate: float = 0.5) -> Self:
        """A rewriter by the rules of a file, as `Rules.from_file`."""
        return cls(Rules.from_file(path), rate=rate)

    @overload
    def __call__(
        self,
        batch: Batch,
        *,
        seed: int,
        epoch: int = 0,
        variant: int = 0,
        return_source: bool = False,
        tokenizer: None = None,
        n: int | None = None,
    ) -> Batch: ...

    @overload
    def __call__(
        self,
        batch: TokenBatch | TextBatch,
        *,
        seed: int,
        epoch: int = 0,
        variant: int = 0,
        return_source: bool = False,
        tokenizer: Tokenizer,
        n: int | None = None,
    ) -> TokenBatch: ...

    def __call__(
        self,
        batch: TokenBatch | TextBatch,
        *,
        seed: int,
        epoch: int = 0,
        variant: int = 0,
        return_source: bool = False,
        tokenizer: Tokenizer | None = None,
        n: int | None = None,
    ) -> TokenBatch | TextBatch:
        """Runs over a batch as every op; with `n`, makes that many distinct variants of each record.

        Args:
            batch: The rows, as for every op.
            seed: The job's seed, below 2^64.
            epoch: The pass over the data, below 2^32.
            variant: Which of several variants of the same rows; not with `n`.
            return_source: Whether to set ``source`` and ``edited`` (on text: ``edits``), relative to `batch`.
            tokenizer: As for every op.
            n: Variants that differ from the record and from each other: those of `variegate.paraphrase.paraphrase` with
                this op alone, which says what comes back.

        Raises:
            InvalidInput: As every op, and `n` below 1 or beside a variant.
        """
        if n is None:
            call = {"seed": seed, "epoch": epoch, "variant": variant, "return_source": return_source}
            return super().__call__(batch, tokenizer=tokenizer, **call)  # type: ignore[call-overload, no-any-return]
        from variegate.paraphrase import paraphrase

        if variant != 0:
            raise InvalidInput(f"Rewriter: variant must not be given with n (it is {variant!r})")
        if tokenizer is not None:
            batch = tokenizer.encode(batch) if isinstance(batch, TextBatch) else batch.replace(tokenizer=tokenizer)
        call = {"seed": seed, "epoch": epoch, "return_source": return_source}
        return paraphrase(batch, n, using=(self,), **call)  # type: ignore[type-var, arg-type]
