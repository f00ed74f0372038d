"""Philox in Triton's interpreter against the golden vectors and the plain reference, and compiled for GPUs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

from variegate.kernels import _philox, philox, philox_reference

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "philox.json").read_text("utf-8"))
BLOCKS = VECTORS["blocks"]
COUNTERS = torch.tensor([block["counter"] for block in BLOCKS], dtype=torch.int64)
WORDS = np.array([block["words"] for block in BLOCKS], dtype=np.uint32)
KEYS = torch.from_numpy(np.array([lo + (hi << 32) for lo, hi in (block["key"] for block in BLOCKS)], dtype=np.uint64))


def test_kernels_are_interpreted_here():
    assert isinstance(_philox._philox_kernel, InterpretedFunction)


@pytest.mark.parametrize("draw", [philox, philox_reference])
@pytest.mark.parametrize("counter_type", [torch.int32, torch.uint32, torch.int64, torch.uint64])
@pytest.mark.parametrize("key_type", [torch.int64, torch.uint64])
def test_golden_words_whatever_the_integer_type(draw, counter_type, key_type):
    counters = COUNTERS.to(torch.uint32).view(torch.int32) if counter_type == torch.int32 else COUNTERS.to(counter_type)
    words = draw(counters, KEYS.view(key_type))
    assert words.dtype == torch.uint32
    np.testing.assert_array_equal(words.numpy(), WORDS)


@pytest.mark.parametrize("draw", [philox, philox_reference])
def test_only_the_low_half_of_a_64_bit_counter_counts(draw):
    counters = COUNTERS + (torch.arange(4) + 5 << 32)
    np.testing.assert_array_equal(draw(counters, KEYS.view(torch.int64)).numpy(), WORDS)


@triton.jit
def _bare_philox(counters, out):
    lane = tl.arange(0, 1)
    c0 = tl.load(counters + lane)
    w0, _, _, _ = tl.philox(0, c0, c0, c0, c0, 10)
    tl.store(out + lane, w0.to(tl.int64, bitcast=True))


def test_the_trap_is_real():
    """Without the cast a 64-bit counter gives the words of another generator; if this fails, the cast can go."""
    out = torch.zeros(1, dtype=torch.int64)
    _bare_philox[(1,)](torch.zeros(1, dtype=torch.int64), out)
    assert int(out) != BLOCKS[0]["words"][0]


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 100])
@pytest.mark.parametrize("block", [1, 16, 128])
def test_blocks_and_strides_never_change_a_word(n, block):
    rng = np.random.default_rng(n)
    wide = torch.from_numpy(rng.integers(0, 2**32, (n, 9), dtype=np.int64))
    counters, keys = wide[:, 1:8:2], torch.from_numpy(rng.integers(-(2**63), 2**63, (n, 2), dtype=np.int64))[:, 1]
    assert not n or not counters.is_contiguous()
    assert torch.equal(philox(counters, keys, block=block), philox_reference(counters, keys))


@pytest.mark.parametrize("draw", [philox, philox_reference])
@pytest.mark.parametrize(
    ("counters", "keys", "message"),
    [
        (
            torch.zeros(4, dtype=torch.int64),
            torch.zeros(1, dtype=torch.int64),
            "counters must have shape [n, 4], not [4]",
        ),
        (
            torch.zeros(2, 3, dtype=torch.int64),
            torch.zeros(2, dtype=torch.int64),
            "counters must have shape [n, 4], not [2, 3]",
        ),
        (torch.zeros(2, 4, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), "keys must have shape [2], not [3]"),
        (torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), "counters must hold integers, not torch.float32"),
        (torch.zeros(2, 4, dtype=torch.int32), torch.zeros(2), "keys must hold integers, not torch.float32"),
        (
            torch.zeros(2, 4, dtype=torch.int32),
            torch.zeros(2, dtype=torch.int64, device="meta"),
            "counters are on cpu, keys on meta",
        ),
    ],
)
def test_bad_arguments_are_named(draw, counters, keys, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        draw(counters, keys)


def test_without_a_gpu_or_the_interpreter_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    with pytest.raises(ValueError, match="move them to a GPU, or set TRITON_INTERPRET=1 before the import"):
        philox(COUNTERS, KEYS)


COMPILE = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from variegate.kernels._philox import _philox_kernel
types = {"counters": "*i64", "keys": "*i64", "out": "*u32", "n": "i32"}
types |= {"row_stride": "i32", "column_stride": "i32", "key_stride": "i32", "BLOCK": "constexpr"}
source = ASTSource(fn=_philox_kernel, signature=types, constexprs={"BLOCK": 256})
target = GPUTarget("cuda", int(sys.argv[1]), 32)
print(triton.compile(source, target=target, options={"enable_fp_fusion": False}).asm["ptx"])
"""


@pytest.mark.parametrize("arch", ["80", "90", "100"])
def test_it_compiles_for_gpus_to_32_bit_rounds(arch, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, arch],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mul.hi.u32" in done.stdout
    assert "mul.hi.u64" not in done.stdout
