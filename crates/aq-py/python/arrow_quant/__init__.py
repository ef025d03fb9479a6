"""Quantized weights of diffusion models, without a GPU and without torch.

    import arrow_quant as aq
    report = aq.quantize("model/", "out.parquet", bits=4)
    model = aq.open("out.parquet")

`arrow_quant.torch` runs quantized models in torch, `arrow_quant.evaluate` measures what quantizing did to one.
"""
from ._arrays import cosine_similarity
from ._errors import AqError, AqWarning, ConfigError, InputError, QualityError, ResourceError
from ._jobs import compare, inspect, quantize
from ._model import Model, Slab, Tensor, open, quantize_array
from ._native import __version__
from ._search import search

__all__ = [
    "AqError", "AqWarning", "ConfigError", "InputError", "Model", "QualityError", "ResourceError", "Slab", "Tensor",
    "compare", "cosine_similarity", "inspect", "open", "quantize", "quantize_array", "search",
]
