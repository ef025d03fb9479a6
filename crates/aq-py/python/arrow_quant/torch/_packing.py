"""Codes of the `affine` codec in torch: what the kernels do, for every device."""
from __future__ import annotations

import torch
from torch import Tensor

#: Widths of the planes of a code, from its low bits up.
PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
CHUNK = 128


def packed_len(bits: int, count: int) -> int:
    """Bytes of a run of codes."""
    return count // 8 * bits + -(-(count % 8) * bits // 8)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The codes (uint8) of runs of `count` codes each, which lie along the last axis of `packed`. docs/format.md has the order."""
    pieces, at = [], 0
    for first in range(0, count, CHUNK):
        n = min(CHUNK, count - first)
        size = packed_len(bits, n)
        pieces.append(_unpack_chunk(packed[..., at : at + size], bits, n))
        at += size
    return torch.cat(pieces, dim=-1) if len(pieces) != 1 else pieces[0]


def _unpack_chunk(packed: Tensor, bits: int, n: int) -> Tensor:
    m, at, shift = n - n % 8, 0, 0
    codes = packed.new_zeros((*packed.shape[:-1], n))
    for width in PLANES[bits]:
        size = m * width // 8
        plane, mask = packed[..., at : at + size], (1 << width) - 1
        parts = [(plane >> (i * width)) & mask for i in range(8 // width)]
        codes[..., :m] |= torch.cat(parts, dim=-1) << shift
        at, shift = at + size, shift + width
    if n > m:
        codes[..., m:] = _unpack_rest(packed[..., at:], bits, n - m)
    return codes


def _unpack_rest(packed: Tensor, bits: int, n: int) -> Tensor:
    word = torch.zeros(packed.shape[:-1], dtype=torch.int64, device=packed.device)
    for i in range(packed.shape[-1]):
        word |= packed[..., i].to(torch.int64) << (8 * i)
    codes = [(word >> (i * bits)) & ((1 << bits) - 1) for i in range(n)]
    return torch.stack(codes, dim=-1).to(torch.uint8)


def decode(codes: Tensor, scales: Tensor, offsets: Tensor, zeros: Tensor, bits: int, group: int, cols: int) -> Tensor:
    """f32 weights of rows of packed codes, before row exponents: `code * scale + offset`, or `(code - zero) * scale`."""
    rows, whole = codes.shape[0], cols // group
    size = packed_len(bits, group)
    parts = [unpack(codes[:, : whole * size].reshape(rows, whole, size), bits, group)] if whole else []
    if cols % group:
        parts.append(unpack(codes[:, None, whole * size :], bits, cols % group))
    starts = ([slice(0, whole)] if whole else []) + ([slice(whole, None)] if cols % group else [])
    grids = [scales.float(), zeros.float() if zeros.numel() else offsets.float()]
    out = []
    for part, groups in zip(parts, starts, strict=True):
        scale, base = (grid[:, groups, None] for grid in grids)
        values = part.float()
        values = (values - base) * scale if zeros.numel() else values * scale + base
        out.append(values.reshape(rows, -1))
    return torch.cat(out, dim=-1) if len(out) > 1 else out[0]
