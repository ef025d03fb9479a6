"""Quantized weights of diffusion models, without a GPU and without torch.

    import arrow_quant as aq
    report = aq.quantize("model/", "out.parquet", bits=4)
    model = aq.open("out.parquet")

`arrow_quant.torch` runs quantized models in torch, `arrow_quant.diffusers` loads and saves them in diffusers, `arrow_quant.evaluate` measures what
quantizing did to one. Importing the package loads nothing; what is used first loads numpy.
"""
from ._errors import AqError, AqWarning, ConfigError, InputError, QualityError, ResourceError

# As `typing.TYPE_CHECKING`, which would load typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._arrays import cosine_similarity
    from ._jobs import compare, inspect, quantize
    from ._model import Model, Slab, Tensor, open, quantize_array
    from ._native import __version__
    from ._options import Options
    from ._search import search

__all__ = [
    "AqError", "AqWarning", "ConfigError", "InputError", "Model", "Options", "QualityError", "ResourceError", "Slab", "Tensor",
    "__version__", "compare", "cosine_similarity", "inspect", "open", "quantize", "quantize_array", "search",
]

#: The module that each of these names is in.
_PLACES = {
    "cosine_similarity": "_arrays", "compare": "_jobs", "inspect": "_jobs", "quantize": "_jobs", "Model": "_model", "Slab": "_model",
    "Tensor": "_model", "open": "_model", "quantize_array": "_model", "__version__": "_native", "Options": "_options",
    "search": "_search",
}


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{place}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
