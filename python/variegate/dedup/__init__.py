"""Deduplication: exact copies, and near-duplicates confirmed by exact Jaccard similarity.

`near` finds candidates by MinHash and bands, and compares every candidate exactly: chance decides only which pairs
are compared, and a document is never removed unless it is as similar as `threshold` says. Results depend on the rows,
the parameters and the seed; not on threads or instruction sets.
"""

from variegate.dedup._near import Deduper, DedupResult, exact, near
from variegate.dedup._semantic import semantic
from variegate.dedup._units import Normalize

__all__ = ["DedupResult", "Deduper", "Normalize", "exact", "near", "semantic"]
