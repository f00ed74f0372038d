"""Deduplication: exact copies, and near-duplicates confirmed by exact Jaccard similarity.

`near` finds candidates by MinHash and bands, and compares every candidate exactly: chance decides only which pairs
are compared, and a document is never removed unless it is as similar as `threshold` says. Results depend on the rows,
the parameters and the seed; not on threads or instruction sets. `substring` finds what repeats within documents and
across them, `decontaminate` and `overlap` what they share with evaluation items or a protected corpus, to the token.
"""

from variegate.dedup._index import Added, Index, Matches
from variegate.dedup._near import Deduper, DedupResult, exact, near
from variegate.dedup._semantic import semantic
from variegate.dedup._spill import Progress
from variegate.dedup._units import Normalize
from variegate.dedup._windows import (
    DecontaminationResult,
    Hits,
    OverlapResult,
    OverlapSpans,
    RepeatSpans,
    SubstringResult,
    decontaminate,
    overlap,
    substring,
)

__all__ = [
    "Added",
    "DecontaminationResult",
    "DedupResult",
    "Deduper",
    "Hits",
    "Index",
    "Matches",
    "Normalize",
    "OverlapResult",
    "OverlapSpans",
    "Progress",
    "RepeatSpans",
    "SubstringResult",
    "decontaminate",
    "exact",
    "near",
    "overlap",
    "semantic",
    "substring",
]
