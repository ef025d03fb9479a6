"""Layers whose weights stay quantized."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .._errors import InputError
from .._model import Tensor as Stored
from ._activations import Activations
from ._weight import PackedWeight


class _Quantized(nn.Module):
    """What all of them have: the packed weight, the bias of the layer they replace, and how inputs are quantized."""

    bias: Tensor | None

    def __init__(
        self,
        stored: Stored,
        bias: nn.Parameter | None,
        activations: Activations | None,
        decoded: torch.dtype,
    ) -> None:
        super().__init__()
        self.packed = PackedWeight(stored, decoded, keep_transform=activations is not None)
        if activations is not None and activations.shift and activations.shift[0].numel() != self.packed.cols:
            raise InputError(f"aq.activations: {activations.shift[0].numel()} shifts for {self.packed.cols} channels of {stored.name}")
        self.activations = activations
        self.compute_dtype = torch.float32 if bias is None else bias.dtype
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:
        """The weight, decoded anew at every access, in the type of the bias, for code that looks at it."""
        return self.packed.dense().reshape(self.packed.shape).to(self.compute_dtype)

    def _multiply(self, x: Tensor) -> Tensor:
        """Outputs `[tokens, rows]` of inputs `[tokens, cols]`, without the bias."""
        x = self.packed.transform(x)
        if self.activations is None:
            return self.packed.product(x)
        return self.packed.quantized_product(x, self.activations)

    def extra_repr(self) -> str:
        packed, inputs = self.packed, self.activations
        held = f"{packed.bits} bits in groups of {packed.group}" if packed.is_packed else str(packed.values.dtype)
        return f"{list(packed.shape)}, {held}" + ("" if inputs is None else f", inputs {inputs.bits} bits {inputs.mode}")


class QuantLinear(_Quantized):
    """`nn.Linear` with a quantized weight.

    On a CPU the products come from the kernels: 8-bit ones where inputs are quantized too, f32 ones for a few tokens; for many
    tokens, and on other devices, some rows at a time are decoded for the product of torch. Widths of 3, 5 and 6 bits are always
    decoded. Outputs have the type of the inputs. Nothing here is trained.
    """

    def __init__(
        self,
        stored: Stored,
        bias: nn.Parameter | None = None,
        *,
        activations: Activations | None = None,
        decoded: torch.dtype = torch.float16,
    ) -> None:
        super().__init__(stored, bias, activations, decoded)
        self.in_features, self.out_features = self.packed.cols, self.packed.rows

    def forward(self, input: Tensor) -> Tensor:
        y = self._multiply(input.reshape(-1, self.in_features))
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.reshape(*input.shape[:-1], self.out_features)


class _QuantConv(_Quantized):
    """A convolution whose weight is decoded when it runs. Where its inputs are quantized, it is a product of unfolded inputs."""

    def __init__(
        self,
        stored: Stored,
        like: nn.Conv1d | nn.Conv2d,
        *,
        activations: Activations | None = None,
        decoded: torch.dtype = torch.float16,
    ) -> None:
        """`like` is the layer that is replaced: its bias, strides and the rest are taken over."""
        super().__init__(stored, like.bias, activations if like.groups == 1 else None, decoded)
        names = ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups", "padding", "padding_mode")
        for name in names:
            setattr(self, name, getattr(like, name))
        self.pads = list(like._reversed_padding_repeated_twice)

    def forward(self, input: Tensor) -> Tensor:
        mode: Any = "constant" if self.padding_mode == "zeros" else self.padding_mode
        x = functional.pad(input, self.pads, mode=mode)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.activations is not None:
            return self._unfolded(x, bias)
        weight = self.packed.dense().reshape(self.packed.shape).to(x.dtype)
        convolve: Any = functional.conv1d if x.ndim == 3 else functional.conv2d
        return convolve(x, weight, bias, self.stride, 0, self.dilation, self.groups)

    def _unfolded(self, x: Tensor, bias: Tensor | None) -> Tensor:
        patches = windows(x, self.kernel_size, self.stride, self.dilation)
        places = patches.shape[: x.ndim - 1]
        y = self._multiply(patches.reshape(-1, self.packed.cols))
        y = y if bias is None else y + bias
        return y.reshape(*places, self.out_channels).movedim(-1, 1)


class QuantConv1d(_QuantConv):
    """`nn.Conv1d` with a quantized weight."""


class QuantConv2d(_QuantConv):
    """`nn.Conv2d` with a quantized weight."""


def windows(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """What a convolution sees of padded inputs `[batch, channels, *size]`: a view `[batch, *places, channels, *kernel]`."""
    steps = x.stride()
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    places = [(n - r - 1) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    jumps = [step * s for step, s in zip(steps[2:], stride, strict=True)]
    inner = [step * d for step, d in zip(steps[2:], dilation, strict=True)]
    shape = (x.shape[0], *places, x.shape[1], *kernel)
    return x.as_strided(shape, (steps[0], *jumps, steps[1], *inner), x.storage_offset())
