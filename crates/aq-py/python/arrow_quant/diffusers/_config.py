"""What a checkpoint says of its quantization, and what a user asks for."""
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from diffusers.quantizers.quantization_config import QuantizationConfigMixin

from .._errors import ConfigError, InputError
from ..torch import Activations, Form
from ..torch._activations import SCHEMA, parse_activations

#: The name of the backend in checkpoints.
METHOD = "arrow_quant"

#: The version of the packed layout that is written and read; docs/format.md has it.
LAYOUT = 1


class _Method(str, Enum):
    """diffusers asks for `quant_method.value`."""

    ARROW_QUANT = METHOD


class ArrowQuantConfig(QuantizationConfigMixin):
    """How `from_pretrained(quantization_config=...)` quantizes a model while it loads.

    Args:
        bits: Bits of a code: 2, 3, 4, 5, 6 or 8.
        group_size: Weights that share a scale, along the input axis; 0 for a whole row.
        method: `ls` (least-squares clip search), `minmax` (round to nearest) or `hqq`. Methods with other codecs, and those that need a
            calibration, run in `arrow_quant.quantize`; `pack` makes a folder of the result.
        modules_to_not_convert: Names of modules that are kept, or parts of names between dots. The lists for known architectures
            keep embedders, final layers and the like besides.
        tensor_type: Rules `REGEX=SPEC` as those of the command: `skip`, bits, or `method:bits:group`. The first match wins.
        gain: One factor per output row that removes the shrinkage of the grid.
        rotation: Rotate the inputs of each layer by random signs and a Hadamard transform.
        low_rank: `auto`, `off` or the rank of a low-rank part in 8 bits.
        act_bits: Quantize the inputs of the layers too, to so many bits, with ranges of each token.
        seed: Seed of the rotation.
        layers: Set by the backend: the form of each packed layer.
        activations: Set by the backend: how inputs are quantized.

        config = ArrowQuantConfig(bits=4, group_size=64, modules_to_not_convert=["proj_out"])
    """

    _OPTIONS = ("bits", "group_size", "method", "tensor_type", "gain", "rotation", "low_rank", "seed")

    def __init__(
        self,
        bits: int = 4,
        group_size: int = 64,
        method: str = "ls",
        modules_to_not_convert: Sequence[str] | None = None,
        tensor_type: str | Sequence[str] | None = None,
        gain: bool = True,
        rotation: bool = False,
        low_rank: str | int = "off",
        act_bits: int | None = None,
        seed: int = 0,
        layers: Mapping[str, Mapping[str, Any]] | None = None,
        activations: Mapping[str, Any] | None = None,
        version: int = LAYOUT,
        **unknown: Any,
    ) -> None:
        self.quant_method: Any = _Method.ARROW_QUANT
        self.version = version
        self.bits, self.group_size, self.method = bits, group_size, method
        self.modules_to_not_convert = _list(modules_to_not_convert)
        self.tensor_type = _list(tensor_type)
        self.gain, self.rotation, self.low_rank, self.act_bits, self.seed = gain, rotation, low_rank, act_bits, seed
        self.layers = {name: dict(form) for name, form in (layers or {}).items()}
        self.activations = None if activations is None else dict(activations)
        unknown.pop("quant_method", None)
        if version != LAYOUT:
            raise InputError(f"the checkpoint has version {version!r} of the packed layout; this package reads version {LAYOUT}")
        if unknown:
            raise ConfigError(f"unknown option {sorted(unknown)[0]!r} of ArrowQuantConfig")
        if act_bits is not None and act_bits not in (4, 6, 8):
            raise ConfigError(f"act_bits {act_bits!r} is not 4, 6 or 8")

    def options(self) -> dict[str, object]:
        """What decides the codes, as options of `arrow_quant.quantize`."""
        return {name: getattr(self, name) for name in self._OPTIONS}

    def forms(self) -> dict[str, Form]:
        """The packed layers of a checkpoint, by the name of their module; none where it is yet to be quantized."""
        usual = {"bits": self.bits, "group_size": self.group_size}
        return {name: Form.from_dict({**usual, **form}) for name, form in self.layers.items()}

    def set_forms(self, forms: Mapping[str, tuple[Form, tuple[int, ...]]]) -> None:
        """Notes which layers are packed, and the shapes of their weights; what is as for the whole model is left out. The type that a weight
        had before, where it was known, stays.
        """
        usual, before, self.layers = {"bits": self.bits, "group_size": self.group_size}, self.layers, {}
        for name, (form, shape) in forms.items():
            entry = {key: value for key, value in form.to_dict().items() if usual.get(key) != value}
            dtype = before.get(name, {}).get("dtype")
            self.layers[name] = {**entry, "shape": list(shape), **({} if dtype is None else {"dtype": dtype})}

    def inputs(self) -> dict[str, Activations]:
        """How the inputs of layers are quantized, by the name of their module."""
        return {} if self.activations is None else parse_activations(self.activations)

    def set_inputs(self, layers: Sequence[str]) -> None:
        """Notes that inputs of these layers are quantized to `act_bits`."""
        if self.act_bits is not None:
            plans = {name: {"bits": self.act_bits, "mode": "token", "group_size": 0} for name in layers}
            self.activations = {"schema": SCHEMA, "time": "t", "layers": plans}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for `config.json`; what is not set is left out."""
        values = {name: copy.deepcopy(value) for name, value in self.__dict__.items() if value not in (None, [], {})}
        return {**values, "quant_method": METHOD}

    def to_diff_dict(self) -> dict[str, Any]:
        """The same: `repr` and `to_json_string` ask for it."""
        return self.to_dict()


def _list(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or [])
