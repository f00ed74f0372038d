"""Training objectives: what a model has to predict, and what it sees instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from variegate.ops._base import Op

__all__ = [
    "UL2",
    "FillInMiddle",
    "MaskedLM",
    "NgramMask",
    "PrefixLM",
    "SentencePermute",
    "SpanCorruption",
    "TextInfilling",
    "WholeWordMask",
]


@dataclass(frozen=True, kw_only=True, repr=False)
class FillInMiddle(Op):
    """Moves a random middle of each row to its end, behind sentinels (Bavarian et al., 2022).

    With probability `fim_rate` a row is cut at two places, all equally likely, into prefix, middle and suffix, each of
    which may be empty. PSM gives ``<prefix> prefix <suffix> suffix <middle> middle``; with probability `fim_spm_rate`
    it is SPM instead, ``<prefix> <suffix> suffix <middle> prefix middle``, as in SantaCoder and StarCoder. Columns
    (labels, loss masks) move with their tokens; ``source`` tells which moved, and only sentinels count as edited.
    Protected tokens at the start and at the end of a row stay there, and no cut comes between two protected tokens; an
    empty row stays empty.

    At the level of characters a row is cut where two grapheme clusters of its text meet, so that a model learns to go
    on within a word. Each part is what the tokenizer makes of its text, as if it had been encoded alone; a byte-level
    BPE encodes only the words about a cut again, other tokenizers the text from one special or protected token to the
    next. A token that was encoded again comes from the token that held its first character, and counts as edited.
    Special tokens are protected; added tokens, the unknown token and parts of characters are not cut.

    Attributes:
        fim_rate: The probability that a row is rearranged, in [0, 1].
        fim_spm_rate: The share of rearranged rows that are SPM.
        prefix_id: The sentinel before the prefix.
        middle_id: The sentinel before the middle.
        suffix_id: The sentinel before the suffix.
        level: Where a row may be cut: at a ``token``, or at a ``character``, which needs the batch's tokenizer.
        inserted: What sentinels have in columns:
            ``ignore`` (as in padding: -100 in ``labels``, -1 in ``word_ids``, 0 elsewhere), or ``inherit`` the values
            of the left neighbour (at the start of a row, the right one).
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A rate outside [0, 1], or ids that are no token ids; at the level of characters, in the call, a
            batch without a tokenizer, a token that its vocabulary lacks, a text that it cannot encode.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7, 8, 9, 10]], ids=[11])
        >>> op = FillInMiddle(fim_rate=1.0, fim_spm_rate=0.0, prefix_id=1, middle_id=2, suffix_id=3)
        >>> op(batch, seed=7).to_lists()
        [[1, 5, 6, 3, 8, 9, 10, 2, 7]]
        >>> code = ["def area(width, height):"]
        >>> tokenizer = vg.Tokenizer.train(code, vocab_size=300, special_tokens=["<p>", "<m>", "<s>"])
        >>> op = FillInMiddle(fim_rate=1.0, fim_spm_rate=0.0, prefix_id=0, middle_id=1, suffix_id=2, level="character")
        >>> tokenizer.decode(op(tokenizer.encode(code, ids=[11]), seed=5)).texts
        ['<p>de<s>th, height):<m>f area(wid']
    """

    fim_rate: float = 0.5
    fim_spm_rate: float = 0.5
    prefix_id: int
    middle_id: int
    suffix_id: int
    level: Literal["token", "character"] = "token"
    inserted: Literal["ignore", "inherit"] = "ignore"
    spans: Literal["follow", "drop", "forbid"] = "follow"


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
class NgramMask(Op):
    """Chooses runs of tokens to predict, and hides most of them (SpanBERT, TACL 2020; ALBERT, ICLR 2020).

    In a row of n free tokens, n * mlm_probability of them (rounded up or down at random, so that the share is right on
    average) are chosen, in runs: lengths are drawn by `ngram_weights` until the runs hold as many, the last one cut,
    and all ways to place the runs are equally likely. A run becomes mask tokens, random tokens, or stays, as a whole.
    A protected token within a run cuts it. The column ``labels`` (int32) is that of `MaskedLM`.

    Attributes:
        mlm_probability: The share of chosen tokens, in [0, 1].
        mask_id: The id of the mask token.
        vocab_size: Random tokens are uniform over the ids below it.
        ngram_weights: How likely a run of 1, 2, ... tokens is; ALBERT's 1/n up to 3 by default. SpanBERT takes
            ``[0.8**n for n in range(10)]``.
        mask_replace_prob: The share of runs that become mask tokens.
        random_replace_prob: The share that become random tokens; the rest stay as they are.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A probability outside [0, 1], shares whose sum exceeds 1, weights that are negative or all 0, ids
            that are no token ids; in the call, a token above 2^31 - 1, which no int32 label holds.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7, 8, 9, 10]], ids=[11])
        >>> op = NgramMask(mlm_probability=0.5, mask_id=4, vocab_size=32, ngram_weights=[0, 0, 1],
        ...                mask_replace_prob=1.0, random_replace_prob=0.0)
        >>> out = op(batch, seed=7)
        >>> out.to_lists(), out.columns["labels"].tolist()
        ([[5, 6, 7, 4, 4, 4]], [-100, -100, -100, 8, 9, 10])
    """

    mlm_probability: float = 0.15
    mask_id: int
    vocab_size: int
    ngram_weights: tuple[float, ...] = (6.0, 3.0, 2.0)
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class PrefixLM(Op):
    """Splits each row at a random place: the model sees the start and learns the rest (Raffel et al., "T5", JMLR 2020).

    Of n free tokens the prefix has at least n * min_prefix and at most n * max_prefix, all numbers equally likely;
    where these allow it, there is at least one token on either side. Protected tokens count for neither side and stay
    in their place.

    Attributes:
        min_prefix: The least share of the prefix, in [0, 1]; 1 leaves the rows as they are.
        max_prefix: The greatest share of the prefix.
        form: ``targets`` makes the rest a second sequence, for an encoder and a decoder. ``labels`` leaves it in place
            for one decoder, with -100 in the column ``labels`` (int32) on the prefix and the tokens themselves on the
            rest.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: Shares outside [0, 1] or in the wrong order; in the call, a batch that has targets, or for labels
            a token above 2^31 - 1.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7, 8, 9, 10]], ids=[11])
        >>> out = PrefixLM()(batch, seed=7)
        >>> out.to_lists()[0] + out.targets.to_lists()[0]
        [5, 6, 7, 8, 9, 10]
        >>> PrefixLM(min_prefix=0.5, max_prefix=0.5, form="labels")(batch, seed=7).columns["labels"].tolist()
        [-100, -100, -100, 8, 9, 10]
    """

    min_prefix: float = 0.0
    max_prefix: float = 1.0
    form: Literal["targets", "labels"] = "targets"
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class SentencePermute(Op):
    """Lets the sentences of each row change places (Lewis et al., "BART", ACL 2020).

    A share of the sentences, drawn at random and rounded up, changes places among itself, all orders equally likely.
    ``targets`` are the rows as they went into the call, before every op of a composition. What follows the last end
    is a sentence too. A sentence with a protected token stays, and protected tokens at the start and at the end of a
    row belong to no sentence. Tokens of a sentence that moved count as edited.

    Attributes:
        permute_sentence_ratio: The share of sentences, in [0, 1].
        end_ids: The tokens that end a sentence, such as those of full stops. This, `end_column` or `sentence_tag`.
        end_column: A bool or uint8 column that is not 0 on the last token of each sentence.
        sentence_tag: The tag of spans that are sentences; what lies between them is one too.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A share outside [0, 1]; not one of `end_ids`, `end_column` and `sentence_tag`; in the call, a
            batch that lacks the column or has targets.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 2, 7, 2, 8, 9, 2]], ids=[11])
        >>> out = SentencePermute(end_ids=[2])(batch, seed=7)
        >>> out.to_lists(), out.targets.to_lists()
        ([[8, 9, 2, 5, 6, 2, 7, 2]], [[5, 6, 2, 7, 2, 8, 9, 2]])
    """

    permute_sentence_ratio: float = 1.0
    end_ids: tuple[int, ...] | None = None
    end_column: str | None = None
    sentence_tag: str | None = None
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
        prefix_id: Starts the inputs (the mode token of UL2); None adds nothing.
        eos_id: Ends inputs and targets (1 in T5); None adds nothing.
        inserted: What sentinels and eos have in columns:
            ``ignore`` (as in padding: -100 in ``labels``, -1 in ``word_ids``, 0 elsewhere), or ``inherit`` the values
            of the left neighbour (at the start of a row, the right one).
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
    prefix_id: int | None = None
    eos_id: int | None = None
    inserted: Literal["ignore", "inherit"] = "ignore"
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class TextInfilling(Op):
    """Puts one mask token in the place of each of several spans (Lewis et al., "BART", ACL 2020).

    In a row of n free tokens, n * mask_ratio of them (rounded up) go, in spans: lengths are drawn from a Poisson law
    until the spans hold as many, the last one cut, and all ways to place the spans are equally likely. An empty span
    adds a mask token. A protected token within a span cuts it. ``targets`` are the rows as they went into the call,
    before every op of a composition.

    Attributes:
        mask_ratio: The share of tokens, in [0, 1].
        poisson_lambda: The mean length of a span, in [0.5, 100].
        mask_id: The id of the mask token.
        inserted: What mask tokens have in columns:
            ``ignore`` (as in padding: -100 in ``labels``, -1 in ``word_ids``, 0 elsewhere), or ``inherit`` the values
            of the left neighbour (at the start of a row, the right one).
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A parameter out of its bounds; in the call, a batch that has targets.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7, 8, 9, 10]], ids=[11])
        >>> out = TextInfilling(mask_ratio=0.3, mask_id=4)(batch, seed=7)
        >>> out.to_lists(), out.targets.to_lists()
        ([[4, 7, 8, 9, 10]], [[5, 6, 7, 8, 9, 10]])
    """

    mask_ratio: float = 0.3
    poisson_lambda: float = 3.0
    mask_id: int
    inserted: Literal["ignore", "inherit"] = "ignore"
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class UL2(Op):
    """Corrupts each row by one of several denoisers (Tay et al., "UL2", ICLR 2023).

    Each denoiser is a `SpanCorruption`. Regular (R): a noise density of 0.15 and spans of 3 or 8 tokens on average.
    Sequential (S): the last quarter of the row is one span. Extreme (X): a density of 0.5 and spans of 3, 8 or 64, or
    0.15 and 64. The kind is drawn by `weights`, the settings within a kind are equally likely. For settings of your
    own, put `SpanCorruption` with a `prefix_id` into `OneOf`.

    Attributes:
        weights: How likely R, S and X are; by default all seven settings are equally likely.
        r_id: The token that starts the inputs of R; None adds nothing.
        s_id: The token that starts the inputs of S.
        x_id: The token that starts the inputs of X.
        sentinel_id: The id of the first sentinel.
        sentinel_step: -1 where sentinels count down (T5), 1 where they count up.
        num_sentinels: How many there are; a row has no more noise spans, which then are longer.
        eos_id: Ends inputs and targets; None adds nothing.
        inserted: What sentinels, eos and the first token have in columns:
            ``ignore`` (as in padding: -100 in ``labels``, -1 in ``word_ids``, 0 elsewhere), or ``inherit`` the values
            of the left neighbour (at the start of a row, the right one).
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: Weights that are not three, negative or all 0; sentinels that leave the range of token ids; in
            the call, a batch that has targets.

    Example:
        >>> import variegate as vg
        >>> batch = vg.TokenBatch.from_lists([[5, 6, 7, 8, 9, 10, 11, 12]], ids=[11])
        >>> out = UL2(weights=(0, 1, 0), s_id=3, sentinel_id=99)(batch, seed=7)
        >>> out.to_lists(), out.targets.to_lists()
        ([[3, 5, 6, 7, 8, 9, 10, 99]], [[99, 11, 12]])
    """

    weights: tuple[float, ...] = (2.0, 1.0, 4.0)
    r_id: int | None = None
    s_id: int | None = None
    x_id: int | None = None
    sentinel_id: int
    sentinel_step: int = -1
    num_sentinels: int = 100
    eos_id: int | None = None
    inserted: Literal["ignore", "inherit"] = "ignore"
    spans: Literal["follow", "drop", "forbid"] = "follow"


@dataclass(frozen=True, kw_only=True, repr=False)
class WholeWordMask(Op):
    """Chooses words to predict and hides most of their tokens (BERT's "Whole Word Masking", 2019; Cui et al., 2021).

    A word is a run of tokens with equal numbers in the column `word_ids`; a negative number is no word and is never
    chosen, and neither is a word with a protected token. A word is chosen with `mlm_probability`; each of its tokens
    by itself then becomes the mask token, a random token, or stays: what transformers'
    ``DataCollatorForLanguageModeling`` does with ``whole_word_mask``. The column ``labels`` (int32) is that of
    `MaskedLM`.

    Attributes:
        mlm_probability: The probability that a word is chosen, in [0, 1]; drawn to 2^-24.
        mask_id: The id of the mask token.
        vocab_size: Random tokens are uniform over the ids below it.
        mask_replace_prob: The share of chosen tokens that become the mask token.
        random_replace_prob: The share that become a random token; the rest stay as they are.
        word_ids: The name of an int32 column.
        spans: What becomes of spans that an edit touches.

    Raises:
        InvalidInput: A probability outside [0, 1], shares whose sum exceeds 1, ids that are no token ids; in the call,
            a batch without the column, or a token above 2^31 - 1, which no int32 label holds.

    Example:
        >>> import variegate as vg
        >>> import numpy as np
        >>> words = {"word_ids": np.array([-1, 0, 0, 1, -1], np.int32)}
        >>> batch = vg.TokenBatch.from_lists([[1, 7, 8, 9, 2]], ids=[12], columns=words)
        >>> op = WholeWordMask(mlm_probability=0.5, mask_id=4, vocab_size=32, mask_replace_prob=1.0,
        ...                    random_replace_prob=0.0)
        >>> op(batch, seed=8).to_lists()
        [[1, 4, 4, 9, 2]]
    """

    mlm_probability: float = 0.15
    mask_id: int
    vocab_size: int
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    word_ids: str = "word_ids"
    spans: Literal["follow", "drop", "forbid"] = "follow"
