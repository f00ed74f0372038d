"""Philox4x32-10 on the GPU: four random words from a 128-bit counter and a 64-bit key.

With M0 = 0xD2511F53, M1 = 0xCD9E8D57, W0 = 0x9E3779B9, W1 = 0xBB67AE85 and hi, lo the halves of a 64-bit product, ten
rounds of

    c0, c1, c2, c3 = hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)
    k0, k1         = k0 + W0, k1 + W1        (mod 2^32)

turn the counter into the words (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Integers
alone: the words are those of `variegate_core::rng::philox`, bit for bit, on every device.

The trap: `tl.philox` picks its width from the type of the first counter. One 64-bit counter, as any index computed
for int64 addressing is, and it silently becomes Philox4x64 with other words. `philox_words` casts all four.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["philox", "philox_reference", "philox_words"]

_LOW = 0xFFFF_FFFF
_INTEGERS = (torch.uint8, torch.int32, torch.uint32, torch.int64, torch.uint64)


def philox_reference(counters: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Draws the words of each counter in plain torch, to test the kernel against.

    Args:
        counters: Integers [n, 4]; the low 32 bits of each count.
        keys: Integers [n]; the 64 bits of each count, whatever the sign.

    Returns:
        uint32 [n, 4].

    Raises:
        ValueError: Shapes, types or devices do not fit.
    """
    _check(counters, keys)
    # int64 products wrap modulo 2^64, which leaves both halves right once they are masked.
    c0, c1, c2, c3 = (counters.view(torch.int64) if counters.dtype == torch.uint64 else counters.long()).unbind(1)
    c0, c1, c2, c3 = c0 & _LOW, c1 & _LOW, c2 & _LOW, c3 & _LOW
    bits = keys.view(torch.int64) if keys.dtype == torch.uint64 else keys.long()
    k0, k1 = bits & _LOW, bits >> 32 & _LOW
    for _ in range(10):
        p0, p1 = c0 * 0xD251_1F53, c2 * 0xCD9E_8D57
        c0, c1, c2, c3 = (p1 >> 32 & _LOW) ^ c1 ^ k0, p1 & _LOW, (p0 >> 32 & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = k0 + 0x9E37_79B9 & _LOW, k1 + 0xBB67_AE85 & _LOW
    return torch.stack([c0, c1, c2, c3], dim=1).to(torch.uint32)


@triton.jit
def philox_words(key, c0, c1, c2, c3):
    """Four uint32 words for a 64-bit key and four counters of any integer type: what other kernels call."""
    c0 = tl.to_tensor(c0).to(tl.uint32)
    c1 = tl.to_tensor(c1).to(tl.uint32)
    c2 = tl.to_tensor(c2).to(tl.uint32)
    c3 = tl.to_tensor(c3).to(tl.uint32)
    return tl.philox(key, c0, c1, c2, c3, 10)


@triton.jit
def _philox_kernel(counters, keys, out, n, row_stride, column_stride, key_stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = row < n
    at = counters + row * row_stride
    c0 = tl.load(at, mask=inside, other=0)
    c1 = tl.load(at + column_stride, mask=inside, other=0)
    c2 = tl.load(at + 2 * column_stride, mask=inside, other=0)
    c3 = tl.load(at + 3 * column_stride, mask=inside, other=0)
    key = tl.load(keys + row * key_stride, mask=inside, other=0)
    w0, w1, w2, w3 = philox_words(key, c0, c1, c2, c3)
    tl.store(out + row * 4, w0, mask=inside)
    tl.store(out + row * 4 + 1, w1, mask=inside)
    tl.store(out + row * 4 + 2, w2, mask=inside)
    tl.store(out + row * 4 + 3, w3, mask=inside)


def philox(counters: torch.Tensor, keys: torch.Tensor, *, block: int = 256) -> torch.Tensor:
    """Draws the words of each counter on the device that holds it.

    Args:
        counters: Integers [n, 4], strides free; the low 32 bits of each count.
        keys: Integers [n]; the 64 bits of each count, whatever the sign.
        block: Counters a program, a power of two. Never changes a word.

    Returns:
        uint32 [n, 4].

    Raises:
        ValueError: Shapes, types or devices do not fit, or the tensors are where Triton cannot run.
    """
    _check(counters, keys)
    if counters.device.type == "cpu" and not triton.knobs.runtime.interpret:
        raise ValueError("counters are on the CPU: move them to a GPU, or set TRITON_INTERPRET=1 before the import")
    n = counters.shape[0]
    out = torch.empty((n, 4), dtype=torch.uint32, device=counters.device)
    if n:
        strides = (*counters.stride(), keys.stride(0))
        _philox_kernel[(triton.cdiv(n, block),)](counters, keys, out, n, *strides, BLOCK=block)
    return out


def _check(counters: torch.Tensor, keys: torch.Tensor) -> None:
    if counters.ndim != 2 or counters.shape[1] != 4:
        raise ValueError(f"counters must have shape [n, 4], not {list(counters.shape)}")
    if keys.shape != counters.shape[:1]:
        raise ValueError(f"keys must have shape [{counters.shape[0]}], not {list(keys.shape)}")
    for name, tensor in (("counters", counters), ("keys", keys)):
        if tensor.dtype not in _INTEGERS:
            raise ValueError(f"{name} must hold integers, not {tensor.dtype}")
    if keys.device != counters.device:
        raise ValueError(f"counters are on {counters.device}, keys on {keys.device}")
