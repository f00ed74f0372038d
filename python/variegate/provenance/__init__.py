"""Where every record comes from: identities, licences, kinds, and the proof that a set is whole.

Each row of a final set carries a `provenance` struct with the fields of `FIELDS`. `record_hashes` and `merkle_root`
bind the rows to the manifest; `combine` gives the licence of what is made from several parents.
"""

from __future__ import annotations

from variegate.provenance.licenses import combine, derive
from variegate.provenance.records import (
    DIGITAL_SOURCE_TYPES,
    FIELDS,
    MerkleTree,
    child_ids,
    child_record_ids,
    merkle_root,
    record_hashes,
    source_ids,
    source_record_ids,
)

__all__ = [
    "DIGITAL_SOURCE_TYPES",
    "FIELDS",
    "MerkleTree",
    "child_ids",
    "child_record_ids",
    "combine",
    "derive",
    "merkle_root",
    "record_hashes",
    "source_ids",
    "source_record_ids",
]
