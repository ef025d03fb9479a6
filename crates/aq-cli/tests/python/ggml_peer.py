"""ggml's own code, as the package ggml-python has it."""
import ctypes

import numpy as np

TYPES = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()


def _floats(array):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def quantize(name, w, importance=None, decode=True):
    """The rows of the matrix `w` as ggml quantizes and dequantizes them; `importance` of each column, or none."""
    import ggml
    kind = getattr(ggml, "GGML_TYPE_" + name)
    ggml.ggml_quantize_init(kind)
    data = ctypes.create_string_buffer(ggml.ggml_row_size(kind, w.shape[1]) * len(w))
    start, out = ctypes.cast(data, ctypes.c_void_p), np.empty_like(w)
    given = None if importance is None else _floats(np.ascontiguousarray(importance, np.float32))
    ggml.ggml_quantize_chunk(kind, _floats(w), start, 0, *w.shape, given)
    if decode:
        ggml.ggml_get_type_traits(kind).contents.to_float(start, _floats(out), w.size)
    return out


def relative_mse(decoded, w):
    def squares(x):
        return float(np.square(x, dtype=np.float64).sum())
    return squares(decoded - w) / squares(w)


def least_error(name, w):
    """Relative MSE of ggml's quantizer for a type: without importances, or with ones for all, whichever is less."""
    ways = (None, np.ones(w.shape[1], np.float32))
    return min(relative_mse(quantize(name, w, importance), w) for importance in ways)
