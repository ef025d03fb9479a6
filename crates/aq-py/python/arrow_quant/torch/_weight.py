"""The weight of a quantized layer, held as it is stored, and its products with inputs."""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import _native
from .._model import Tensor as Stored, quantize_array
from ._activations import Activations
from ._form import Form
from ._packing import decode, unpack

#: Weights that are decoded at a time.
BLOCK = 1 << 22
#: Columns that the kernels take at a time: in groups of multiples of it their products are fastest.
CHUNK = 128
#: Up to so many tokens an f32 product of the kernels is faster than decoding the weight for one of torch; one in other groups.
FEW_TOKENS = 8
#: Names of all buffers that a weight may have, and whether their integers are the bits of floats.
BUFFERS: dict[str, torch.dtype | None] = {
    "codes": None, "scales": torch.float16, "offsets": torch.float16, "zeros": None, "exponents": None,
    "smoothing": torch.float16, "signs": None, "left": None, "right": None, "part": torch.float32,
}


class PackedWeight(nn.Module):
    """A matrix `[rows, cols]` as a file stores it.

    Codec `affine` stays as it is, in the buffers that its `form` has. Other codecs are decoded when they are loaded, into `values` of
    type `decoded`: 16 bits a weight by default. With `torch.int8` they become `affine` codes of 8 bits, which adds a relative error of about
    half a percent. Smoothing, rotation and a low-rank part are applied to the inputs, so codes never change.
    """

    form: Form | None
    codes: Tensor
    scales: Tensor
    offsets: Tensor | None
    zeros: Tensor | None
    exponents: Tensor | None
    smoothing: Tensor | None
    signs: Tensor | None
    left: Tensor
    right: Tensor
    part: Tensor | None
    values: Tensor

    def __init__(self, stored: Stored, decoded: torch.dtype = torch.float16, keep_transform: bool = False) -> None:
        """`keep_transform` keeps smoothing and rotation for decoded weights too, as quantized inputs need them."""
        self._start(stored.shape)
        if stored.codec.startswith("affine"):
            self._take(Form.of(stored), stored)
            return
        if keep_transform:
            self._take_transform(stored.side)
        if decoded == torch.int8:
            again = quantize_array(self._values(stored), bits=8, group_size=CHUNK)
            self._take(Form.of(again), again)
            return
        values = self._values(stored)
        is_wide = decoded == torch.float16 and values.numel() and float(values.abs().max()) > 6e4
        self.register_buffer("values", values.to(torch.bfloat16 if is_wide else decoded))

    @classmethod
    def empty(cls, shape: tuple[int, ...], form: Form, device: torch.device | str = "meta") -> PackedWeight:
        """A weight of that shape whose buffers are yet to be filled."""
        packed = cls.__new__(cls)
        packed._start(shape)
        packed._set_form(form)
        for name, (size, dtype) in form.buffers(packed.rows, packed.cols).items():
            packed.register_buffer(name, torch.empty(size, dtype=dtype, device=device))
        return packed

    def _start(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.rows = tuple(shape), shape[0]
        self.cols = math.prod(shape) // max(shape[0], 1)
        self.form, self.bits, self.group, self.block = None, 0, 0, 0
        for name in BUFFERS:
            self.register_buffer(name, None)

    def _set_form(self, form: Form) -> None:
        self.form, self.bits, self.group = form, form.bits, form.group(self.cols)
        self.block = form.rotation or self.block
        self.is_chunked = self.group % CHUNK == 0 and self.cols % self.group == 0

    @property
    def is_packed(self) -> bool:
        """Whether it is held in codes."""
        return self.form is not None

    def _take(self, form: Form, stored: Stored) -> None:
        """Fills the buffers of `form`."""
        self._set_form(form)
        groups = -(-self.cols // self.group)
        offsets = np.concatenate([slab.offsets for slab in stored.slabs]).reshape(self.rows, -1)
        self.codes = torch.from_numpy(np.array(stored.codes).reshape(self.rows, -1))
        self.scales = torch.from_numpy(np.array(stored.scales).view(np.int16).reshape(self.rows, groups))
        if form.zero_points:
            self.zeros = unpack(torch.from_numpy(offsets), self.bits, groups)
        else:
            self.offsets = torch.from_numpy(offsets.view(np.int16))
        if form.exponents:
            extra = [slab.extra if slab.extra.size else np.zeros(slab.row_count, np.uint8) for slab in stored.slabs]
            self.exponents = torch.from_numpy(np.concatenate(extra).view(np.int8))
        self._take_transform(stored.side)
        if form.low_rank:
            part, left, right = (np.array(array) for array in stored.side["low_rank"])
            self.part, self.left, self.right = (torch.from_numpy(array) for array in (part.view(np.int32), left, right))

    def _take_transform(self, side: Mapping[str, Any]) -> None:
        if "smoothing" in side:
            self.smoothing = torch.from_numpy(np.array(side["smoothing"]).view(np.int16))
        if "rotation" in side:
            self.block, signs = side["rotation"]
            self.signs = torch.from_numpy(signs.astype(np.int8))

    def floats(self, name: str, rows: slice = slice(None)) -> Tensor:
        """A buffer as what its bits are; nothing where there is none."""
        buffer, dtype = getattr(self, name), BUFFERS[name]
        if buffer is None:
            return torch.empty(0, dtype=dtype or torch.uint8, device=self.codes.device)
        part: Tensor = buffer[rows]
        return part if dtype is None else part.view(dtype)

    def _values(self, stored: Stored) -> Tensor:
        """Decoded weights as the kept transforms of inputs need them."""
        values = torch.from_numpy(np.array(stored.dequantize())).reshape(self.rows, self.cols)
        if self.smoothing is not None:
            values = values * self.floats("smoothing").float()
        return values if self.signs is None else hadamard(values * self.signs, self.block)

    def transform(self, x: Tensor) -> Tensor:
        """Inputs `[tokens, cols]` as the stored matrix takes them: divided by the smoothing, then rotated."""
        if self.smoothing is not None:
            x = x / self.floats("smoothing").to(x.dtype)
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
            w = w + (self.left.float() * self.floats("part")) @ self.right.float()
        if self.signs is not None:
            w = hadamard(w, self.block) * self.signs
        return w if self.smoothing is None else w / self.floats("smoothing").float()

    def _decoded(self, rows: slice) -> Tensor:
        if not self.is_packed:
            return self.values[rows].float()
        if self.codes.device.type == "cpu":
            block = torch.from_numpy(_native.decode_rows(self._given(rows))).view(-1, self.cols)
        else:
            scales, offsets, zeros = (self.floats(name, rows) for name in ("scales", "offsets", "zeros"))
            block = decode(self.codes[rows], scales, offsets, zeros, self.bits, self.group, self.cols)
        return block if self.exponents is None else block.mul_(self._factors()[rows, None])

    def _low_rank(self, x: Tensor) -> Tensor:
        inner = functional.linear(x, self.right.to(x.dtype)) * self.floats("part").to(x.dtype)
        return functional.linear(inner, self.left.to(x.dtype))

    def _factors(self) -> Tensor:
        """What the outputs of each row are multiplied by."""
        return torch.exp2(self.floats("exponents").float()) if self.exponents is not None else torch.ones(self.rows)

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
        codes, scales, offsets, zeros = (_flat(self.floats(name, rows)) for name in ("codes", "scales", "offsets", "zeros"))
        return self.bits, self.group, self.cols, codes, scales, offsets, zeros


def hadamard(x: Tensor, block: int) -> Tensor:
    """The orthonormal Hadamard transform of each `block` of columns, as a Kronecker product of two small ones."""
    inner = 1 << (block.bit_length() // 2)
    left, right = _matrix(block // inner, x.dtype, x.device), _matrix(inner, x.dtype, x.device)
    y: Tensor = left @ (x.reshape(-1, block // inner, inner) @ right)
    return y.reshape(x.shape)


@lru_cache(maxsize=32)
def _matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The symmetric orthonormal Hadamard matrix of a power of two."""
    h = torch.ones(1, 1, dtype=torch.float64)
    while h.shape[0] < size:
        h = torch.cat((torch.cat((h, h), 1), torch.cat((h, -h), 1)))
    h /= math.sqrt(size)
    return h.to(device, dtype)


def _flat(x: Tensor) -> np.ndarray:
    """The elements of a tensor as a numpy array, without a copy where they lie in order."""
    array: np.ndarray = x.detach().contiguous().view(-1).numpy()
    return array
