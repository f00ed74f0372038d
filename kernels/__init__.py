"""Triton kernels, and beside each one its plain reference: the GPU twins of `variegate.sampling`.

The folder stands on torch and triton alone and imports nothing else of Variegate, so that it can be read, tested and
reused by itself. Importing it imports neither; each name loads its module when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from variegate.kernels._philox import philox, philox_reference

__all__ = ["philox", "philox_reference"]

_HOMES = {"philox": "_philox", "philox_reference": "_philox"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
