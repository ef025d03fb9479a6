"""Quantized models in diffusers: `from_pretrained`, `save_pretrained`, `dequantize`.

    import arrow_quant.diffusers as aqd
    from diffusers import DiTTransformer2DModel
    model = DiTTransformer2DModel.from_pretrained(path, quantization_config=aqd.ArrowQuantConfig(bits=4))
    model.save_pretrained("small")                                # loads again with no argument, once this module is imported

Importing this module registers the backend with diffusers; `ARROW_QUANT_REGISTER_DIFFUSERS=0` in the environment leaves that to `register()`.
"""
import os

from ._config import ArrowQuantConfig
from ._pack import pack
from ._quantizer import ArrowQuantizer
from ._register import register

__all__ = ["ArrowQuantConfig", "ArrowQuantizer", "pack", "register"]

if os.environ.get("ARROW_QUANT_REGISTER_DIFFUSERS", "1") != "0":
    register()
