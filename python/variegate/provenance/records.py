"""Identities of records, batch-wise, and the hashes that bind rows to a manifest.

Every identity is a prefix of SHA-256 over fields that are each preceded by their length as eight little-endian bytes,
so that anyone can recompute it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from variegate import _core

__all__ = [
    "DIGITAL_SOURCE_TYPES",
    "FIELDS",
    "MerkleTree",
    "Ragged",
    "child_ids",
    "child_record_ids",
    "merkle_root",
    "record_hashes",
    "source_ids",
    "source_record_ids",
]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ragged: TypeAlias = tuple[Bytes, npt.NDArray[np.int64]]
"""Values and offsets: cell r is values[offsets[r]:offsets[r + 1]]."""

FIELDS = (
    "record_id",
    "parents",
    "source",
    "license",
    "kind",
    "generation",
    "ops",
    "generator",
    "generator_terms",
    "seed",
    "digital_source_type",
)
"""Fields of the provenance struct, in order."""

_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
DIGITAL_SOURCE_TYPES: dict[str, str | None] = {
    "human": _IPTC + "digitalCreation",
    "unknown": None,
    "augmented": _IPTC + "algorithmicallyEnhanced",
    "templated": _IPTC + "algorithmicMedia",
    "generated": "http://c2pa.org/digitalsourcetype/trainedAlgorithmicData",
}
"""The IPTC or C2PA term for each kind of record; none is claimed for `unknown`."""


def source_record_ids(
    source: str, key: Ragged | None, *, content: Ragged, file: str, row: npt.NDArray[np.int64]
) -> Bytes:
    """Identities of source records: `uint8[rows, 16]`.

    H(source, key), or without keys H(source, content, file, row) with the row as eight little-endian bytes.
    """
    name = source.encode()
    fields: list[bytes | Ragged] = [name, key] if key is not None else [name, content, file.encode(), _numbers(row)]
    return _digest(fields, len(row), 16)


def source_ids(source: str, key_or_content: Ragged) -> npt.NDArray[np.uint64]:
    """Random keys of source records, `uint64[rows]`: H64(source, key or content)."""
    rows = len(key_or_content[1]) - 1
    return _digest([source.encode(), key_or_content], rows, 8).reshape(-1).view("<u8").astype(np.uint64, copy=False)


def child_record_ids(parents: Bytes, *, spec: bytes, seed: int, k: npt.NDArray[np.int64]) -> Bytes:
    """Identities of derived records, `uint8[rows, 16]`: H(parent ids, hash of the stage's spec, seed, k).

    `parents` is `uint8[rows, 16 * parents of each]`; numbers go in as eight little-endian bytes.
    """
    rows, width = parents.shape
    cells = (np.ascontiguousarray(parents).reshape(-1), np.arange(rows + 1, dtype=np.int64) * width)
    return _digest([cells, spec, seed.to_bytes(8, "little"), _numbers(k)], rows, 16)


def child_ids(parents: npt.NDArray[np.uint64], *, stage: str, k: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Random keys of derived records, `uint64[rows]`: H64(parent id, stage, k)."""
    fields: list[bytes | Ragged] = [_numbers(parents), stage.encode(), _numbers(k)]
    return _digest(fields, len(parents), 8).reshape(-1).view("<u8").astype(np.uint64, copy=False)


def record_hashes(columns: Sequence[Ragged]) -> Bytes:
    """SHA-256 over the given columns of each row, `uint8[rows, 32]`."""
    return _digest(list(columns), len(columns[0][1]) - 1, 32)


def merkle_root(hashes: Bytes) -> bytes:
    """Root of the Merkle tree of RFC 6962 over 32-byte entries.

    Example:
        >>> merkle_root(np.empty((0, 32), np.uint8)).hex()[:8]
        'e3b0c442'
    """
    return _core.merkle_root(np.ascontiguousarray(hashes).reshape(-1))


class MerkleTree:
    """`merkle_root` for entries that come in parts; holds 2^16 of them and the roots of full subtrees.

    Example:
        >>> entries = np.arange(96, dtype=np.uint8).reshape(3, 32)
        >>> tree = MerkleTree()
        >>> tree.update(entries[:2])
        >>> tree.update(entries[2:])
        >>> tree.root() == merkle_root(entries)
        True
    """

    leaves = 1 << 16

    def __init__(self) -> None:
        """A tree without entries."""
        self._waiting = np.empty((0, 32), np.uint8)
        self._full: list[tuple[int, bytes]] = []

    def update(self, hashes: Bytes) -> None:
        """Adds entries, `uint8[n, 32]`."""
        self._waiting = np.concatenate([self._waiting, hashes])
        # The last full subtree waits too: it is the root itself where nothing follows.
        while len(self._waiting) > self.leaves:
            height, root = 0, merkle_root(self._waiting[: self.leaves])
            while self._full and self._full[-1][0] == height:
                height, root = height + 1, _node(self._full.pop()[1], root)
            self._full.append((height, root))
            self._waiting = self._waiting[self.leaves :]

    def root(self) -> bytes:
        """The root of the tree of all entries."""
        root = merkle_root(self._waiting)
        for _, left in reversed(self._full):
            root = _node(left, root)
        return root


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _numbers(values: npt.NDArray[np.int64] | npt.NDArray[np.uint64]) -> Ragged:
    """Each number as a cell of eight little-endian bytes."""
    cells = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).view(np.uint8)
    return cells, np.arange(len(values) + 1, dtype=np.int64) * 8


def _digest(fields: list[bytes | Ragged], rows: int, width: int) -> Bytes:
    return _core.identity_digest(fields, rows, width).reshape(rows, width)
