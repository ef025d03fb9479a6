"""Arrays in and out: numpy, the buffer protocol, DLPack, bfloat16."""
from __future__ import annotations

from typing import Any

import numpy as np

from . import _native
from ._errors import ConfigError

Array = np.ndarray[Any, np.dtype[Any]]

#: Element types of source tensors as numpy has them; bfloat16 and 8-bit floats are bits.
STORED = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1",
    "C64": "<c8", "I64": "<i8", "U64": "<u8", "I32": "<i4", "U32": "<u4", "I16": "<i2", "U16": "<u2", "I8": "i1",
    "U8": "u1", "BOOL": "?",
}


def as_f32(value: Any) -> Array:
    """Any floating-point array as contiguous f32: numpy, `ml_dtypes.bfloat16`, the buffer protocol, or `__dlpack__`.

    A tensor of bfloat16, which numpy does not have, is widened by its own `float` method.
    """
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        if "bfloat16" in str(getattr(value, "dtype", "")):
            value = value.float()
        value = np.from_dlpack(value.detach() if hasattr(value, "detach") else value)
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise ConfigError(f"an array of {array.dtype} has no weights")
    return np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)


def bfloat16_bits(values: Array) -> Array:
    """The bits of f32 values rounded to bfloat16, half to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)


def as_dtype(values: Array, dtype: str) -> Array:
    """f32 values as `float32`, `float16` or `bfloat16`; the last needs the package ml_dtypes."""
    if dtype == "float32":
        return values
    if dtype == "float16":
        return values.astype(np.float16)
    if dtype != "bfloat16":
        raise ConfigError(f"dtype {dtype!r} is not float32, float16 or bfloat16")
    try:
        import ml_dtypes
    except ImportError:
        raise ConfigError("numpy has no bfloat16: install ml_dtypes, or ask for float16 or float32") from None
    return bfloat16_bits(values).view(ml_dtypes.bfloat16)


def cosine_similarity(a: Any, b: Any) -> float:
    """The cosine of the angle between two arrays of equal size, over all elements in f64; 1 when both are all zero."""
    return _native.cosine_similarity(as_f32(a).reshape(-1), as_f32(b).reshape(-1))
