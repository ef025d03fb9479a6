"""Arrays in and out: numpy, the buffer protocol, DLPack, bfloat16."""
from __future__ import annotations

import sys
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


#: Element types of weights that are taken as they lie in memory.
_TAKEN = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def as_weights(value: Any) -> tuple[Array, str]:
    """Any array of numbers in C order, with the name of its element type: as it lies in memory where it is a float of 16 to 64 bits in that
    order, else as f32. Elements of bfloat16 may come as their bits.

    Takes numpy arrays, the buffer protocol, and `__dlpack__` on the CPU.
    """
    array, taken = _as_array(value)
    taken = taken or _TAKEN.get(array.dtype.name)
    if taken is None and array.dtype.kind not in "fiu":
        raise ConfigError(f"an array of {array.dtype} has no weights")
    kept = array.dtype if taken == "BF16" else array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, kept if taken else np.float32).reshape(array.shape), taken or "F32"


def _as_array(value: Any) -> tuple[Array, str | None]:
    """An array that shares the memory of `value` where that is possible; with the type of its elements where it holds their bits."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__"):
        return np.asarray(value), None
    try:
        value = value.detach() if hasattr(value, "detach") else value
        if "torch.bfloat16" not in str(getattr(value, "dtype", "")):
            return np.from_dlpack(value), None
        # numpy knows no bfloat16: it takes the bits.
        return np.from_dlpack(value.view(sys.modules["torch"].int16)), "BF16"
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"an array on {getattr(value, 'device', 'another device')} cannot be read: {error}") from None


def as_f32(value: Any) -> Array:
    """The same as contiguous f32."""
    values, dtype = as_weights(value)
    if dtype == "BF16":
        bits: Array = values.view(np.uint16).astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32)
    return values.astype(np.float32, copy=False)


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
