"""Paraphrases by translation into another language and back."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from variegate.batch import TextBatch
from variegate.errors import EngineFailed, InvalidInput
from variegate.paraphrase._cache import TranslationCache
from variegate.paraphrase._engines import TextRefused, Translator
from variegate.paraphrase._filter import RoundTrip
from variegate.provenance import child_ids

__all__ = ["BackTranslate"]

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class BackTranslate:
    """Paraphrases texts by translating them into a pivot language and back (Sennrich et al. 2016).

    What comes back often says something else, so a filter decides on every text, and its decisions can be seen:
    `candidates` has all of them, a call has the accepted texts. With a cache, a text is translated once and for all:
    the second run makes no call of the engine, and a run that was killed goes on where it was.

    Attributes:
        engine: What translates, in both directions.
        source: The language of the texts, by the code that the engine knows.
        pivot: The language in between.
        cache: The SQLite file that keeps the translations (see `TranslationCache`); None keeps none.
        filter: What decides.
        batch_size: Texts that go to the engine at once; each batch is kept as soon as it is there.

    Raises:
        InvalidInput: A batch size below 1; in a call, a cache that cannot be used, or a text that the engine does not
            take, with its row.
        EngineFailed: In a call, an engine that stopped, with its rows; what it had finished is in the cache.
        MissingExtra: In a call, an engine that is not installed.

    Example:
        >>> import variegate as vg
        >>> class Toy:
        ...     words = {("en", "es"): {"big": "grande"}, ("es", "en"): {"grande": "large"}}
        ...
        ...     def identity(self, source, target):
        ...         return "toy 1"
        ...
        ...     def translate(self, texts, source, target):
        ...         known = self.words[source, target]
        ...         return [" ".join(known.get(word, word) for word in text.split()) for text in texts]
        >>> batch = vg.TextBatch.from_texts(["a big dog ran", "a dog ran"], ids=[1, 2])
        >>> back = BackTranslate(Toy())
        >>> out = back(batch)
        >>> out.texts, out.rows["_parent"]
        (['a large dog ran'], array([0]))
        >>> back.candidates(batch).rows["reason"]
        array(['', 'unchanged'], dtype=object)
    """

    engine: Translator
    _: KW_ONLY
    source: str = "en"
    pivot: str = "es"
    cache: str | os.PathLike[str] | None = None
    filter: RoundTrip = field(default_factory=RoundTrip)
    batch_size: int = 256

    def __post_init__(self) -> None:
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise InvalidInput(f"BackTranslate: batch_size must be at least 1 (it is {self.batch_size!r})")
        for name in ("source", "pivot"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise InvalidInput(f"BackTranslate: {name} must be the code of a language (it is {value!r})")
        for name in ("identity", "translate"):
            if not callable(getattr(self.engine, name, None)):
                raise InvalidInput(f"BackTranslate: engine must have a method {name} (it is {self.engine!r})")
        if not callable(getattr(self.filter, "judge", None)):
            raise InvalidInput(f"BackTranslate: filter must have a method judge (it is {self.filter!r})")

    def __call__(self, batch: TextBatch, *, progress: Callable[[int, int], object] | None = None) -> TextBatch:
        """The accepted paraphrases, in the order of their sources.

        Args:
            batch: The texts.
            progress: Called with the rows done and all rows after each batch of the engine.

        Returns:
            A batch whose ``rows`` are those of the sources, and ``_parent`` (int64), the row of the source. Its ids are
            a 64-bit hash of the source's id, ``BackTranslate``, the pivot and 0. ``stats`` has an entry
            ``BackTranslate`` with the rows, the accepted rows, the texts that the engine translated, and the reasons of
            those that were refused.
        """
        candidates = self.candidates(batch, progress=progress)
        parents = np.flatnonzero(candidates.rows["accepted"])
        out = candidates.take(parents)
        out.rows = {**{name: column[parents] for name, column in batch.rows.items()}, "_parent": parents}
        out.stats = candidates.stats
        return out

    def candidates(self, batch: TextBatch, *, progress: Callable[[int, int], object] | None = None) -> TextBatch:
        """What came back for every text, and the filter's decisions on it.

        Args:
            batch: The texts.
            progress: As in a call.

        Returns:
            A batch whose row i is the candidate for row i, with the columns ``accepted`` (bool), ``reason`` (see
            `RoundTrip`; ``""`` if accepted), ``overlap``, ``length`` (float64) and ``pivot``, the text in between.
        """
        if not isinstance(batch, TextBatch):
            raise InvalidInput(f"BackTranslate: batch must be a TextBatch, not {type(batch).__name__}")
        texts = batch.texts
        cache = None if self.cache is None else TranslationCache(self.cache)
        results: list[str] = []
        pivots: list[str] = []
        verdicts = []
        calls = 0
        for first in range(0, len(texts), self.batch_size):
            sources = texts[first : first + self.batch_size]
            there, called = self._translated(sources, self.source, self.pivot, cache, first)
            there = [self._unmarked(text, result)[0] for text, result in zip(sources, there, strict=True)]
            back, recalled = self._translated(there, self.pivot, self.source, cache, first)
            for source, pivot, result in zip(sources, there, back, strict=True):
                result, left = self._unmarked(pivot, result)
                # A word that came through unknown is no harm where it stands in the source, as names do.
                known = set(_WORD.findall(source.casefold()))
                verdicts.append(
                    self.filter.judge(source, result, untranslated=sum(word.casefold() not in known for word in left))
                )
                results.append(result)
            pivots += there
            calls += called + recalled
            if progress is not None:
                progress(min(first + self.batch_size, len(texts)), len(texts))
        reasons = [verdict.reason for verdict in verdicts]
        refused = Counter(reason for reason in reasons if reason)
        out = TextBatch.from_texts(
            results,
            ids=child_ids(batch.ids, stage=f"BackTranslate {self.pivot}", k=np.zeros(len(batch), np.int64)),
            rows={
                "accepted": np.array([not reason for reason in reasons], bool),
                "reason": _objects(reasons),
                "overlap": np.array([verdict.overlap for verdict in verdicts], np.float64),
                "length": np.array([verdict.length for verdict in verdicts], np.float64),
                "pivot": _objects(pivots),
            },
        )
        out.stats = {
            "BackTranslate": {
                "rows": len(texts),
                "accepted": len(texts) - refused.total(),
                "translated": calls,
                "refused": dict(sorted(refused.items())),
            }
        }
        return out

    def _translated(
        self, texts: Sequence[str], source: str, target: str, cache: TranslationCache | None, first: int
    ) -> tuple[list[str], int]:
        """The translations, and how many of them the engine was asked for. Text without words is its own."""
        found = {text: text for text in texts if not text.strip()}
        wanted = list(dict.fromkeys(text for text in texts if text.strip()))
        engine = self.engine.identity(source, target) if wanted else ""
        if not isinstance(engine, str) or not _encodable(engine):
            raise EngineFailed(
                f"BackTranslate: {source} to {target}: the engine's identity is no text (it is {engine!r})"
            )
        if cache is not None and wanted:
            found |= cache.get(engine, source, target, wanted)
        missing = [text for text in wanted if text not in found]
        if missing:
            results = self._asked(missing, source, target, texts, first)
            made = dict(zip(missing, results, strict=True))
            if cache is not None:
                cache.put(engine, source, target, made)
                made = cache.get(engine, source, target, missing)
            found |= made
        return [found[text] for text in texts], len(missing)

    def _asked(self, missing: list[str], source: str, target: str, texts: Sequence[str], first: int) -> list[str]:
        where = f"rows {first} to {first + len(texts) - 1}, {source} to {target}"
        try:
            answer: object = self.engine.translate(missing, source, target)
            results = None if isinstance(answer, str) or not isinstance(answer, Iterable) else list(answer)
        except TextRefused as error:
            row = first + list(texts).index(missing[error.index])
            raise InvalidInput(f"BackTranslate: row {row}, {source} to {target}: the text {error.why}") from error
        except EngineFailed as error:
            kept = (
                "" if self.cache is None else "; what was translated before is kept, and a new run goes on from there"
            )
            raise EngineFailed(f"BackTranslate: {where}: {error}{kept}") from error
        except Exception as error:
            error.add_note(f"BackTranslate: {where}")
            raise
        if results is None:
            raise EngineFailed(f"BackTranslate: {where}: the engine answered {answer!r}, which is no list of texts")
        if len(results) != len(missing):
            raise EngineFailed(f"BackTranslate: {where}: {len(missing)} texts had {len(results)} translations")
        for text, result in zip(missing, results, strict=True):
            if not isinstance(result, str) or not _encodable(result):
                raise EngineFailed(f"BackTranslate: {where}: {text!r} became {result!r}, which is no text")
        return results

    def _unmarked(self, text: str, result: str) -> tuple[str, list[str]]:
        """A translation without the engine's marks, and the words that they stood before.

        Where the text has the mark as a sign of its own the two cannot be told apart: the result stays, and if it has
        more of them than the text, counts as a word left.
        """
        mark: str = getattr(self.engine, "unknown_mark", "")
        if not mark or mark not in result:
            return result, []
        if mark in text:
            return result, [mark] if result.count(mark) != text.count(mark) else []
        parts = (_WORD.match(part) for part in result.split(mark)[1:])
        return result.replace(mark, ""), [part[0] for part in parts if part]


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _objects(items: list[str]) -> Any:
    out = np.empty(len(items), object)
    out[:] = items
    return out
