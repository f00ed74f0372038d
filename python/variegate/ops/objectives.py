"""Training objectives: masked language modelling and span corruption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from variegate.ops._base import Op

__all__ = ["MaskedLM", "SpanCorruption"]


@dataclass(frozen=True, kw_only=True, repr=False)
class MaskedLM(Op):
    """Chooses tokens to predict and hides most of them (Devlin et al., "BERT", NAACL 2019).

    Parameters mean what they mean in transformers' ``DataCollatorForLanguageModeling``. The column ``labels`` (int32)
    holds the token before where one was chosen and -100 elsewhere. Protect the special tokens of your vocabulary.

    Attributes:
        mlm_probability: The probability that a token is chosen, in [0, 1]; drawn to 2^-24.
        mask_id: The id of the mask token.
        vocab_size: Random tokens are uniform over the ids below it.
        mask_replace_prob: The share of chosen tokens that become the mask token.
        random_replace_prob: The share that become a random token; the rest stay as they are.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A probability outside [0, 1], shares whose sum exceeds 1, ids that are no token ids; in the call,
            a token above 2^31 - 1, which no int32 label holds.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[1, 7, 8, 2]], ids=[11])
        >>> op = MaskedLM(mlm_probability=1.0, mask_id=4, vocab_size=32, mask_replace_prob=1.0,
        ...               random_replace_prob=0.0, protect=vg.ops.Protect(ids=(1, 2)))
        >>> out = op(batch, seed=7)
        >>> out.to_lists(), out.columns["labels"].tolist()
        ([[1, 4, 4, 2]], [-100, 7, 8, -100])
    """

    mlm_probability: float = 0.15
    mask_id: int
    vocab_size: int
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class SpanCorruption(Op):
    """Cuts noise spans out of each row and makes them the targets (Raffel et al., "T5", JMLR 2020).

    In a row of n free tokens, round(n * noise_density) tokens (at least 1, at most n - 1) are noise, in
    round(noise / mean_noise_span_length) spans; noise and the rest are each cut at random, all cuts equally likely, and
    take turns, the rest first: the law of T5's ``random_spans_noise_mask``. Each noise span is replaced by a sentinel;
    ``targets`` (with the same ids) holds each sentinel and, behind it, its span. A row with fewer than two free tokens
    has no noise. What follows the last noise span (protected tokens, or a row without noise) has a sentinel in the
    targets too. Columns move into both; spans stay with the input.

    Attributes:
        noise_density: The share of noise, in [0, 1]; 0 leaves the rows as they are.
        mean_noise_span_length: Tokens a noise span has on average, at least 1.
        sentinel_id: The id of the first sentinel (32099 in T5).
        sentinel_step: -1 where sentinels count down (T5), 1 where they count up.
        num_sentinels: How many there are; a row has no more noise spans, which then are longer.
        eos_id: Ends inputs and targets (1 in T5); None adds nothing.
        inserted: What sentinels and eos have in columns: ``ignore`` (-100 in ``labels``, 0 elsewhere), or ``inherit``
            the values of the left neighbour (at the start of a row, the right one).
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A parameter out of its bounds, sentinels that leave the range of token ids; in the call, a batch
            that has targets.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7, 8, 9, 10]], ids=[11])
        >>> out = SpanCorruption(noise_density=0.3, sentinel_id=99, eos_id=1)(batch, seed=7)
        >>> out.to_lists(), out.targets.to_lists()
        ([[5, 6, 7, 8, 99, 1]], [[99, 9, 10, 1]])
    """

    noise_density: float = 0.15
    mean_noise_span_length: float = 3.0
    sentinel_id: int
    sentinel_step: int = -1
    num_sentinels: int = 100
    eos_id: int | None = None
    inserted: Literal["ignore", "inherit"] = "ignore"
    spans: Literal["follow", "drop", "forbid"] = "follow"
