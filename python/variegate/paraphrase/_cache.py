"""Translations kept on disk."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from variegate.errors import InvalidInput

__all__ = ["TranslationCache"]

_VERSION = 1
_AT_ONCE = 500  # keys of one query; SQLite allows 999 everywhere
_WAIT = 120.0  # seconds that a process waits for another one's write


class TranslationCache:
    """Translations in an SQLite file, by engine, languages and text.

    Each `put` is one transaction, so that a killed process loses nothing that it put, and several processes may write
    to one file at the same time; of two translations of a text the first stays. The file must be on a disk of the
    machine: SQLite's write-ahead log does not work over network file systems. Connections live as long as a call.

    Args:
        path: The file; it is made where it is missing.

    Raises:
        InvalidInput: A file that is no cache of translations, or that cannot be opened.

    Example:
        >>> import tempfile, os
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = TranslationCache(os.path.join(folder, "cache.sqlite"))
        ...     cache.put("engine 1", "en", "es", {"dog": "perro"})
        ...     cache.get("engine 1", "en", "es", ["dog", "cat"]), len(cache)
        ({'dog': 'perro'}, 1)
    """

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        with self._open() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            if version == _VERSION and tables == ["translations"]:
                return
            if version or tables:
                raise InvalidInput(f"cache: {self.path} is no cache of translations of this version")
            connection.execute("PRAGMA journal_mode = WAL")
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS translations (key BLOB PRIMARY KEY, engine TEXT, source TEXT,"
                    " target TEXT, text TEXT, result TEXT) WITHOUT ROWID"
                )
                connection.execute(f"PRAGMA user_version = {_VERSION}")

    def get(self, engine: str, source: str, target: str, texts: Sequence[str]) -> dict[str, str]:
        """The translations that are there, by text."""
        keys = {_key(engine, source, target, text): text for text in texts}
        found: dict[str, str] = {}
        with self._open() as connection:
            wanted = list(keys)
            for at in range(0, len(wanted), _AT_ONCE):
                part = wanted[at : at + _AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = connection.execute(f"SELECT key, result FROM translations WHERE key IN ({marks})", part)
                found.update((keys[key], result) for key, result in rows)
        return found

    def put(self, engine: str, source: str, target: str, translations: Mapping[str, str]) -> None:
        """Adds translations; those that are there already stay."""
        rows = [
            (_key(engine, source, target, text), engine, source, target, text, result)
            for text, result in translations.items()
        ]
        with self._open() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR IGNORE INTO translations VALUES (?, ?, ?, ?, ?, ?)", rows)

    def __len__(self) -> int:
        with self._open() as connection:
            (count,) = connection.execute("SELECT count(*) FROM translations").fetchone()
        return int(count)

    def __repr__(self) -> str:
        return f"TranslationCache({self.path!r})"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
        except sqlite3.Error as error:
            raise InvalidInput(f"cache: {self.path} cannot be opened ({error})") from None
        try:
            # In a write-ahead log a commit outlives its process; only the machine's fall could take the last ones.
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection
        except sqlite3.DatabaseError as error:
            raise InvalidInput(f"cache: {self.path} cannot be used ({error})") from error
        finally:
            connection.close()


def _key(*parts: str) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.digest()
