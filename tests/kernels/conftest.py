"""Triton decides between compiling and interpreting when a kernel is decorated, so this comes before any import."""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

if sys.platform != "linux":  # where there is no Triton
    collect_ignore_glob = ["test_*.py"]
