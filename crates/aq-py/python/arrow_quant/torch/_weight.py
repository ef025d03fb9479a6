"""The weight of a quantized layer, held as it is stored, and its products with inputs."""
from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import _native
from .._model import Tensor as Stored, quantize_array
from ._activations import Activations
from ._packing import decode, unpack

#: Weights that are decoded at a time.
BLOCK = 1 << 22
#: Columns that the kernels take at a time: in groups of multiples of it their products are fastest.
CHUNK = 128
#: Up to so many tokens an f32 product of the kernels is faster than decoding the weight for one of torch; one in other groups.
FEW_TOKENS = 8


class PackedWeight(nn.Module):
    """A matrix `[rows, cols]` as a file stores it.

    Codec `affine` stays as it is: packed `codes`, `scales` (float16), `offsets` (float16) or `zeros` (one byte a group), and
    `exponents` of rows. Other codecs are decoded when they are loaded, into `values` of type `decoded`: 16 bits a weight
    by default. With `torch.int8` they become `affine` codes of 8 bits, which adds a relative error of about half a percent. Smoothing, rotation and a low-rank part are applied to the inputs, so codes never change.
    """

    smoothing: Tensor | None
    signs: Tensor | None
    part: Tensor | None

    def __init__(self, stored: Stored, decoded: torch.dtype = torch.float16, keep_transform: bool = False) -> None:
        """`keep_transform` keeps smoothing and rotation for decoded weights too, as quantized inputs need them."""
        super().__init__()
        self.shape = stored.shape
        self.rows, self.cols = stored.shape[0], stored.size // max(stored.shape[0], 1)
        self.is_packed, self.block = stored.codec.startswith("affine"), 0
        for name in ("smoothing", "signs", "left", "right", "part"):
            self.register_buffer(name, None)
        if self.is_packed or keep_transform:
            self._take_side(stored)
        if self.is_packed:
            self._take_codes(stored)
        elif decoded == torch.int8:
            self.is_packed = True
            self._take_codes(quantize_array(self._values(stored), bits=8, group_size=CHUNK))
        else:
            values = self._values(stored)
            is_wide = decoded == torch.float16 and values.numel() and float(values.abs().max()) > 6e4
            self.register_buffer("values", values.to(torch.bfloat16 if is_wide else decoded))

    def _take_codes(self, stored: Stored) -> None:
        self.bits, self.group = stored.bits or 0, min(stored.group_size or self.cols, self.cols)
        self.is_chunked = self.group % CHUNK == 0 and self.cols % self.group == 0
        groups = -(-self.cols // self.group)
        codes = np.array(stored.codes).reshape(self.rows, -1)
        offsets = np.concatenate([slab.offsets for slab in stored.slabs]).reshape(self.rows, -1)
        # Both kinds of offsets are told apart by their length, as docs/format.md says.
        is_zero = offsets.shape[1] != 2 * groups
        empty = torch.empty(self.rows, 0)
        zeros = unpack(torch.from_numpy(offsets), self.bits, groups) if is_zero else empty.to(torch.uint8)
        values = empty.half() if is_zero else torch.from_numpy(offsets.view(np.float16))
        extra = [slab.extra if slab.extra.size else np.zeros(slab.row_count, np.uint8) for slab in stored.slabs]
        self.register_buffer("codes", torch.from_numpy(codes))
        self.register_buffer("scales", torch.from_numpy(np.array(stored.scales).reshape(self.rows, groups)))
        self.register_buffer("offsets", values)
        self.register_buffer("zeros", zeros)
        self.register_buffer("exponents", torch.from_numpy(np.concatenate(extra).view(np.int8)))

    def _take_side(self, stored: Stored) -> None:
        side = stored.side
        if "smoothing" in side:
            self.smoothing = torch.from_numpy(np.array(side["smoothing"]))
        if "rotation" in side:
            self.block, signs = side["rotation"]
            self.signs = torch.from_numpy(signs.astype(np.int8))
        if "low_rank" in side and self.is_packed:
            part, left, right = (torch.from_numpy(np.array(array)) for array in side["low_rank"])
            self.part, self.left, self.right = part, left, right

    def _values(self, stored: Stored) -> Tensor:
        """Decoded weights as the kept transforms of inputs need them."""
        values = torch.from_numpy(np.array(stored.dequantize())).reshape(self.rows, self.cols)
        if self.smoothing is not None:
            values = values * self.smoothing.float()
        return values if self.signs is None else hadamard(values * self.signs, self.block)

    def transform(self, x: Tensor) -> Tensor:
        """Inputs `[tokens, cols]` as the stored matrix takes them: divided by the smoothing, then rotated."""
        if self.smoothing is not None:
            x = x / self.smoothing.to(x.dtype)
        if self.signs is not None:
            x = hadamard(x * self.signs.to(x.dtype), self.block)
        return x

    def product(self, x: Tensor) -> Tensor:
        """Outputs `[tokens, rows]` for transformed inputs."""
        if self._has_kernel(x, 16) and x.shape[0] <= (FEW_TOKENS if self.is_chunked else 1):
            y = torch.from_numpy(_native.matmul_f32(self._given(), _flat(x.float())))
            y = (y.view(self.rows, -1).T * self._factors()).to(x.dtype)
        else:
            y = torch.cat([functional.linear(x, block.to(x.dtype)) for block in self.blocks()], dim=-1)
        return y if self.part is None else y + self._low_rank(x)

    def quantized_product(self, x: Tensor, activations: Activations) -> Tensor:
        """The same for inputs that are quantized first: with integers where that is faster, else with what codes stand for."""
        if not (activations.is_shared() and self._has_kernel(x, 4) and self._is_fast(x)):
            return self.product(activations.fake(x))
        shift = activations.shift_now()
        grid = activations.quantize(x.float() if shift is None else x.float() - shift[1])
        # Codes less the middle of their range are signed bytes; what that takes away is the same for all columns.
        middle = float(1 << (activations.bits - 1))
        codes = (grid.codes - middle).to(torch.int8)
        scale = grid.scale.expand(x.shape[0], 1).contiguous()
        y = torch.from_numpy(_native.matmul_i8(self._given(), _flat(codes), _flat(scale)))
        y = y.view(self.rows, -1).T * self._factors() + scale * (middle - grid.zero) * self._row_sums()
        y = y.to(x.dtype)
        y = y if self.part is None else y + self._low_rank(grid.values().to(x.dtype))
        return y if shift is None else y + self._of_shift(*shift).to(y.dtype)

    def blocks(self) -> Iterator[Tensor]:
        """The stored matrix as f32, some rows at a time, without smoothing, rotation and low-rank part."""
        step = max(1, BLOCK // max(self.cols, 1))
        for first in range(0, self.rows, step):
            yield self._decoded(slice(first, min(first + step, self.rows)))

    def dense(self) -> Tensor:
        """The weights as f32 `[rows, cols]`, everything undone: what `Tensor.dequantize` gives, to rounding."""
        w = torch.cat(list(self.blocks()))
        if self.part is not None:
            w = w + (self.left.float() * self.part) @ self.right.float()
        if self.signs is not None:
            w = hadamard(w, self.block) * self.signs
        return w if self.smoothing is None else w / self.smoothing.float()

    def _decoded(self, rows: slice) -> Tensor:
        if not self.is_packed:
            return self.values[rows].float()
        if self.codes.device.type == "cpu":
            block = torch.from_numpy(_native.decode_rows(self._given(rows))).view(-1, self.cols)
        else:
            grids = (self.scales[rows], self.offsets[rows], self.zeros[rows])
            block = decode(self.codes[rows], *grids, self.bits, self.group, self.cols)
        return block.mul_(self._factors()[rows, None]) if bool(self.exponents[rows].any()) else block

    def _low_rank(self, x: Tensor) -> Tensor:
        assert self.part is not None
        inner = functional.linear(x, self.right.to(x.dtype)) * self.part.to(x.dtype)
        return functional.linear(inner, self.left.to(x.dtype))

    def _factors(self) -> Tensor:
        return torch.exp2(self.exponents.float())

    def _of_shift(self, number: int, shift: Tensor) -> Tensor:
        """The product with what was taken off the inputs, the same for every token."""
        found: dict[int, Tensor] = self.__dict__.setdefault("of_shift", {})
        if number not in found:
            found[number] = self.product(shift[None])
        return found[number]

    def _row_sums(self) -> Tensor:
        sums = self.__dict__.get("sums")
        if sums is None:
            sums = torch.cat([block.sum(-1, dtype=torch.float64).float() for block in self.blocks()])
            self.__dict__["sums"] = sums
        return sums

    def _has_kernel(self, x: Tensor, align: int) -> bool:
        """Whether the kernels have a product for this weight, its groups multiples of `align`, with these inputs."""
        if not self.is_packed:
            return False
        fits = self.bits in (2, 4, 8) and (self.group % align == 0 or self.group == self.cols)
        on_cpu = x.device.type == "cpu" and self.codes.device.type == "cpu"
        return fits and on_cpu and x.shape[0] > 0 and not (x.requires_grad and torch.is_grad_enabled())

    def _is_fast(self, x: Tensor) -> bool:
        """Whether the integer product is faster than decoding: with instructions for it, and always for one token."""
        return x.shape[0] == 1 or (self.is_chunked and _native.simd_level() == "avx512")

    def _given(self, rows: slice = slice(None)) -> "_native._Packed":
        codes, scales, offsets, zeros = (_flat(part[rows]) for part in (self.codes, self.scales, self.offsets, self.zeros))
        return self.bits, self.group, self.cols, codes, scales, offsets, zeros


def hadamard(x: Tensor, block: int) -> Tensor:
    """The orthonormal Hadamard transform of each `block` of columns, as a Kronecker product of two small ones."""
    inner = 1 << (block.bit_length() // 2)
    left, right = _matrix(block // inner, x.dtype, x.device), _matrix(inner, x.dtype, x.device)
    return (left @ (x.reshape(-1, block // inner, inner) @ right)).reshape(x.shape)


@lru_cache(maxsize=32)
def _matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The symmetric orthonormal Hadamard matrix of a power of two."""
    h = torch.ones(1, 1, dtype=torch.float64)
    while h.shape[0] < size:
        h = torch.cat((torch.cat((h, h), 1), torch.cat((h, -h), 1)))
    return (h / size**0.5).to(device, dtype)


def _flat(x: Tensor) -> np.ndarray:
    """The elements of a tensor as a numpy array, without a copy where they lie in order."""
    array: np.ndarray = x.detach().contiguous().view(-1).numpy()
    return array
