"""Loaders: ops inside the data pipelines that people already have.

`Transform` is one batch callable for `datasets.map`, `with_transform`, `ray.data.map_batches` and plain dicts of lists.
`variegate.loaders.torch` holds what feeds a training loop: `Collator`, `AugmentedDataset`, `AugmentedMapDataset`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from variegate.loaders import torch
    from variegate.loaders.transform import Transform

__all__ = ["Transform", "torch"]


def __getattr__(name: str) -> object:
    if name == "Transform":
        value: object = importlib.import_module("variegate.loaders.transform").Transform
    elif name == "torch":
        value = importlib.import_module("variegate.loaders.torch")
    else:
        raise AttributeError(f"module 'variegate.loaders' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
