"""Makes the backend known to diffusers, which has tables for that but no function."""
from __future__ import annotations

from diffusers.quantizers import auto

from ._config import METHOD, ArrowQuantConfig
from ._quantizer import ArrowQuantizer


def register() -> None:
    """Lets diffusers find the backend by the name that checkpoints have it under, `arrow_quant`. Doing it again changes nothing."""
    auto.AUTO_QUANTIZER_MAPPING[METHOD] = ArrowQuantizer
    auto.AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = ArrowQuantConfig
