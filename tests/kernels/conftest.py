"""Triton decides between compiling and interpreting when a kernel is decorated, so this comes before any import."""

import os

os.environ["TRITON_INTERPRET"] = "1"
