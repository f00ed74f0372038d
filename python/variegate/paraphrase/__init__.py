"""Paraphrases of records: rewriting by rules, synonyms and back-translation, as distinct variants.

What is described here changes how a text says something and leaves alone what it says, as far as rules, word lists and
a translator's filter can tell.
"""

from __future__ import annotations

__all__: list[str] = []
