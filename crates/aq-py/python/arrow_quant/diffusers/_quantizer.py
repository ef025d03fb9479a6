"""The backend: what diffusers calls while it loads and saves a model."""
from __future__ import annotations

import copy
import math
from typing import Any

import torch
from diffusers.quantizers.base import DiffusersQuantizer
from torch import Tensor, nn

from .._errors import ConfigError, InputError
from .._model import quantize_array
from ..torch import Form, PackedWeight
from ..torch._layers import _Quantized, has_quantized_form, plain_like, quantized_like
from ..torch._time import TimeHooks
from ._config import ArrowQuantConfig
from ._targets import Target, find_targets


class ArrowQuantizer(DiffusersQuantizer):
    """Loads checkpoints whose layers are packed as docs/format.md says, and packs layers while others load.

    A checkpoint that is packed: its layers are replaced before anything is loaded, by empty ones whose buffers have the right shapes;
    diffusers fills these. One that is not: each layer is quantized and replaced when its weight arrives, so that besides the result only the
    shard in work is held.
    """

    use_keep_in_fp32_modules = True
    required_packages: Any = ["arrowquant-diffusion", "accelerate"]
    quantization_config: ArrowQuantConfig

    def __init__(self, quantization_config: ArrowQuantConfig, **kwargs: Any) -> None:
        # A user may load several models with one configuration; what is packed differs.
        super().__init__(quantization_config, **kwargs)
        self.quantization_config = copy.deepcopy(quantization_config)
        # `from_single_file` calls every checkpoint quantized.
        self.pre_quantized = bool(self.quantization_config.layers)
        self.modules_to_not_convert = self.quantization_config.modules_to_not_convert
        self.targets: dict[str, Target] = {}
        #: Packed weights of modules that have no quantized form: they are decoded when they come.
        self.decoded: dict[str, tuple[tuple[int, ...], Form]] = {}
        self.loaded_keys: list[str] = []

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to ask for: a CPU is enough."""

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        if self.pre_quantized:
            inputs = self.quantization_config.inputs()
            for name, form in self.quantization_config.forms().items():
                old = _layer(model, name)
                shape = tuple(old.weight.shape)
                said = self.quantization_config.layers[name].get("shape")
                if said is not None and tuple(said) != shape:
                    raise InputError(f"quantization_config: layer {name!r} has shape {list(shape)} in the model, not {said}")
                if has_quantized_form(old):
                    new = quantized_like(old, PackedWeight.empty(shape, form), inputs.get(name))
                    new.compute_dtype = old.weight.dtype
                    _put(model, name, new)
                else:
                    self.decoded[name] = shape, form
            self._rename_loaded_keys()
        else:
            self.targets = find_targets(model, self.quantization_config)
        # In the entry: an attribute alone is lost when diffusers registers more.
        model.register_to_config(quantization_config=self.quantization_config)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        layers = quantized_layers(model)
        packed = {name: layer.packed for name, layer in layers.items()}
        self.quantization_config.set_forms({n: (weight.form, weight.shape) for n, weight in packed.items() if weight.form})
        if not self.pre_quantized:
            self.quantization_config.set_inputs(list(layers))
        for layer in layers.values():
            layer.compute_dtype = layer.compute_dtype if layer.bias is None else layer.bias.dtype
        if any(layer.activations is not None and layer.activations.boundaries for layer in layers.values()):
            TimeHooks(model, None)
        return model

    def maybe_update_loaded_keys(self, loaded_keys: list[str], checkpoint_files: list[str]) -> list[str]:
        """Keeps the names of the checkpoint, which are compared with those of the model once that is prepared."""
        self.loaded_keys = loaded_keys
        return loaded_keys

    def _rename_loaded_keys(self) -> None:
        """Puts the names of decoded weights in the place of those of their parts."""
        parts = {f"{name}.packed.{part}" for name, (shape, form) in self.decoded.items() for part in _parts(shape, form)}
        kept = [key for key in self.loaded_keys if key not in parts]
        self.loaded_keys[:] = kept + [f"{name}.weight" for name in self.decoded]

    def maybe_update_state_dict(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Decodes packed weights of modules that have no quantized form, all of whose parts are in one shard."""
        for name, (shape, form) in self.decoded.items():
            parts = {part: state_dict.pop(f"{name}.packed.{part}", None) for part in _parts(shape, form)}
            if parts["codes"] is None:
                continue
            if missing := [part for part, value in parts.items() if value is None]:
                raise InputError(f"tensor '{name}.packed.{missing[0]}' is not in the file that has the codes")
            packed = PackedWeight.empty(shape, form, "cpu")
            packed.load_state_dict(parts)
            state_dict[f"{name}.weight"] = packed.dense().reshape(shape)
        return state_dict

    def check_if_quantized_param(
        self, model: nn.Module, param_value: Tensor, param_name: str, state_dict: dict[str, Any], **kwargs: Any
    ) -> bool:
        """Whether this is the weight of a layer that is yet to be quantized."""
        return param_name.removesuffix(".weight") in self.targets and param_name.endswith(".weight")

    def create_quantized_param(  # type: ignore[override]
        self,
        model: nn.Module,
        param_value: Tensor,
        param_name: str,
        target_device: Any,
        state_dict: dict[str, Any],
        unexpected_keys: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Quantizes a weight and puts the quantized layer in the place of the plain one.

        The weight is the one of the file: `param_value` has been rounded to the model's type.
        """
        name = param_name.removesuffix(".weight")
        target, weight = self.targets.pop(name), state_dict.get(param_name, param_value).detach().cpu()
        if weight.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            weight = weight.float()
        try:
            stored = quantize_array(weight, **target.options)
        except (ConfigError, InputError) as error:
            reason = str(error).removeprefix('array: tensor "array": ')
            raise type(error)(f"tensor {param_name!r}: {reason}") from None
        if not stored.codec.startswith("affine"):
            raise ConfigError(f"layer {name}: {target.options['method']} has no packed layout; use ls, minmax or hqq")
        new = quantized_like(target.module, stored, target.activations)
        new.packed.to(target_device)
        new.compute_dtype = param_value.dtype
        _put(model, name, new)

    def adjust_target_dtype(self, target_dtype: torch.dtype) -> Any:
        """The type that weights will have, for `device_map="auto"`; packed ones have it already."""
        if self.pre_quantized:
            return target_dtype
        from accelerate.utils import CustomDtype

        return CustomDtype.INT4 if self.quantization_config.bits <= 4 else torch.int8

    def adjust_max_memory(self, max_memory: dict[Any, Any]) -> dict[Any, Any]:
        """Leaves room for scales and the like."""
        return {device: bytes * 0.9 if isinstance(bytes, int) else bytes for device, bytes in max_memory.items()}

    def get_state_dict_and_metadata(
        self, state_dict: dict[str, Any], safe_serialization: bool = False
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state dict as it is: buffers are the packed layout."""
        return state_dict, {"aq.layout": str(self.quantization_config.version)}

    def _dequantize(self, model: Any) -> Any:
        for name, layer in quantized_layers(model).items():
            _put(model, name, plain_like(layer, layer.compute_dtype))
        # What is saved from now on is plain.
        model._internal_dict = type(model.config)({k: v for k, v in model.config.items() if k != "quantization_config"})
        return model

    @property
    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


def quantized_layers(model: nn.Module) -> dict[str, _Quantized]:
    """The quantized layers of a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _Quantized)}


def _parts(shape: tuple[int, ...], form: Form) -> list[str]:
    """Names of the buffers of a packed weight."""
    return list(form.buffers(shape[0], math.prod(shape[1:])))


def _put(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _layer(model: nn.Module, name: str) -> Any:
    """The module of that name, which has a weight."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise InputError(f"quantization_config: the model has no layer {name!r}") from None
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim < 2:
        raise InputError(f"quantization_config: layer {name!r}, a {type(module).__name__}, has no weight that can be packed")
    return module
