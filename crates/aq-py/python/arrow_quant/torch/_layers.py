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
    packed: PackedWeight

    def __init__(
        self,
        weight: Stored | PackedWeight,
        bias: nn.Parameter | None,
        activations: Activations | None,
        decoded: torch.dtype,
    ) -> None:
        super().__init__()
        if not isinstance(weight, PackedWeight):
            weight = PackedWeight(weight, decoded, keep_transform=activations is not None)
        if activations is not None and activations.shift and activations.shift[0].numel() != weight.cols:
            raise InputError(f"aq.activations: {activations.shift[0].numel()} shifts for {weight.cols} channels of a layer")
        self.packed = weight
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
        weight: Stored | PackedWeight,
        bias: nn.Parameter | None = None,
        *,
        activations: Activations | None = None,
        decoded: torch.dtype = torch.float16,
    ) -> None:
        """`weight` is a tensor of a file, or one that is packed already."""
        super().__init__(weight, bias, activations, decoded)
        self.in_features, self.out_features = self.packed.cols, self.packed.rows

    def forward(self, input: Tensor) -> Tensor:
        y = self._multiply(input.reshape(-1, self.in_features))
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.reshape(*input.shape[:-1], self.out_features)


class _QuantConv(_Quantized):
    """A convolution whose weight is decoded when it runs. Where its inputs are quantized, it is a product of unfolded inputs."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    out_channels: int

    def __init__(
        self,
        weight: Stored | PackedWeight,
        like: nn.Conv1d | nn.Conv2d | nn.Conv3d,
        *,
        activations: Activations | None = None,
        decoded: torch.dtype = torch.float16,
    ) -> None:
        """`like` is the layer that is replaced: its bias, strides and the rest are taken over."""
        bias: Any = like.bias
        super().__init__(weight, bias, activations if like.groups == 1 else None, decoded)
        names = ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups", "padding", "padding_mode")
        for name in names:
            setattr(self, name, getattr(like, name))
        self.pads = list(like._reversed_padding_repeated_twice)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim == len(self.kernel_size) + 1:
            return self.forward(input[None])[0]
        mode: Any = "constant" if self.padding_mode == "zeros" else self.padding_mode
        x = functional.pad(input, self.pads, mode=mode)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.activations is not None:
            return self._unfolded(x, bias)
        weight = self.packed.dense().reshape(self.packed.shape).to(x.dtype)
        convolve: Any = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(self.kernel_size)]
        y: Tensor = convolve(x, weight, bias, self.stride, 0, self.dilation, self.groups)
        return y

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


class QuantConv3d(_QuantConv):
    """`nn.Conv3d` with a quantized weight."""


#: The layers that have a quantized form.
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLUTIONS: dict[type[nn.Module], type[_QuantConv]] = {
    nn.Conv1d: QuantConv1d, nn.Conv2d: QuantConv2d, nn.Conv3d: QuantConv3d
}


def has_quantized_form(module: nn.Module) -> bool:
    """Whether a layer can be replaced; subclasses may do more than their class and cannot."""
    return type(module) is nn.Linear or type(module) in _CONVOLUTIONS


def quantized_like(
    old: Layer,
    weight: Stored | PackedWeight,
    activations: Activations | None = None,
    decoded: torch.dtype = torch.float16,
) -> _Quantized:
    """The quantized form of a layer, with its bias, for a weight of its shape."""
    if isinstance(old, nn.Linear):
        new: _Quantized = QuantLinear(weight, old.bias, activations=activations, decoded=decoded)
    else:
        new = _CONVOLUTIONS[type(old)](weight, old, activations=activations, decoded=decoded)
    return new.train(old.training)


def plain_like(old: _Quantized, dtype: torch.dtype) -> Layer:
    """The plain form of a quantized layer, its weight decoded."""
    if isinstance(old, QuantLinear):
        new: Any = nn.Linear(old.in_features, old.out_features, bias=False, device="meta")
    else:
        plain = next(kind for kind, form in _CONVOLUTIONS.items() if type(old) is form)
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        given = {name: getattr(old, name) for name in names}
        new = plain(**given, padding_mode=old.padding_mode, bias=False, device="meta")
    new.weight = nn.Parameter(old.weight.to(dtype), requires_grad=False)
    new.bias = old.bias
    new.train(old.training)
    layer: Layer = new
    return layer


def windows(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """What a convolution sees of padded inputs `[batch, channels, *size]`: a view `[batch, *places, channels, *kernel]`."""
    steps = x.stride()
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    places = [(n - r - 1) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    jumps = [step * s for step, s in zip(steps[2:], stride, strict=True)]
    inner = [step * d for step, d in zip(steps[2:], dilation, strict=True)]
    shape = (x.shape[0], *places, x.shape[1], *kernel)
    return x.as_strided(shape, (steps[0], *jumps, steps[1], *inner), x.storage_offset())
