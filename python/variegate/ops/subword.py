"""Subword regularisation: the same text in other tokens.

These ops need the tokenizer that made the batch's tokens: its ``tokenizer``, or the argument of the call. The spec
holds the parameters alone. A word that a draw changes is written in new tokens, whose ``source`` is the token that held
their first byte; their columns come from there too. Words that keep their tokens, special tokens, byte-fallback and
unknown tokens, and words with a protected token are copied. The text stays the same, to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from variegate.ops._base import Op

__all__ = ["BpeDropout", "UnigramSample"]


@dataclass(frozen=True, kw_only=True, repr=False)
class BpeDropout(Op):
    """Encodes words with merges left out at random (Provilkov et al., "BPE-Dropout", ACL 2020).

    Each time BPE looks at a candidate merge of a word, it passes over it with probability `rate`; what was passed over
    comes back after the next merge. This is the law of the ``dropout`` of Hugging Face's tokenizers, drawn from the
    seed. For BPE with byte-level or ▁-marked text.

    Attributes:
        rate: The probability that a merge is left out, in [0, 1], drawn to 2^-24; 0 keeps all tokens, 1 leaves single
            characters (byte-level: bytes).
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1]; in the call, no tokenizer, or one that is not BPE.

    Example:
        >>> import variegate as vg
        >>> batch = vg.Tokenizer.default().encode(["Unbelievable results"], ids=[1])
        >>> some, all = (BpeDropout(rate=rate)(batch, seed=3) for rate in (0.5, 1.0))
        >>> len(batch.tokens) < len(some.tokens) < len(all.tokens), batch.tokenizer.decode(some).texts
        (True, ['Unbelievable results'])
    """

    rate: float
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class UnigramSample(Op):
    """Draws the segmentation of words from a unigram language model (Kudo, "Subword Regularization", ACL 2018).

    A word's segmentation is drawn with probability in proportion to P(segmentation)^alpha, over all that the vocabulary
    allows, by filtering forward and sampling backward over the lattice: sentencepiece's ``nbest_size=-1``. No character
    becomes unknown. For Unigram tokenizers.

    Attributes:
        alpha: The smoothing, in [0, 1000]: 0 makes all segmentations equally likely, 1 takes the model as it is, and
            the largest give the tokenizer's own encoding.
        rate: The probability that a word is drawn at all, in [0, 1], drawn to 2^-24; the others keep their tokens.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A parameter out of its bounds; in the call, no tokenizer, or one that is not Unigram.

    Example:
        >>> import variegate as vg
        >>> vg.ops.UnigramSample(alpha=0.1).to_spec()
        {'UnigramSample': {'alpha': 0.1, 'rate': 1.0, 'spans': 'follow'}}
    """

    alpha: float
    rate: float = 1.0
    spans: Literal["follow", "drop", "forbid"] = "follow"
