"""Variegate: synthetic training data for language models, fast and safe.

A Rust core augments, expands templates and removes duplicates over ragged token arrays; results depend only on data,
parameters, seed, record id and epoch. Submodules load when they are first used: importing the package costs little
more than importing numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from variegate._core import __version__, get_num_threads, set_num_threads
from variegate.batch import Spans, TextBatch, TokenBatch
from variegate.errors import VariegateError

if TYPE_CHECKING:
    from variegate import collapse, dedup, loaders, ops, paraphrase, recipe, run, templates
    from variegate.ops import Compose, OneOf, Repeat, SomeOf, Sometimes
    from variegate.tokenizer import Tokenizer

__all__ = [
    "Compose",
    "OneOf",
    "Repeat",
    "SomeOf",
    "Sometimes",
    "Spans",
    "TextBatch",
    "TokenBatch",
    "Tokenizer",
    "VariegateError",
    "__version__",
    "collapse",
    "dedup",
    "get_num_threads",
    "loaders",
    "ops",
    "paraphrase",
    "recipe",
    "run",
    "set_num_threads",
    "templates",
]

_HOMES = {
    "Compose": "variegate.ops",
    "OneOf": "variegate.ops",
    "Repeat": "variegate.ops",
    "SomeOf": "variegate.ops",
    "Sometimes": "variegate.ops",
    "Tokenizer": "variegate.tokenizer",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in __all__:
        value = importlib.import_module(f"variegate.{name}")
    else:
        raise AttributeError(f"module 'variegate' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
