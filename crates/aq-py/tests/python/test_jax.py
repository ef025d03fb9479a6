"""State dicts of jax arrays."""
import json

import ml_dtypes
import numpy as np
import pytest
from conftest import DIGITS

import arrow_quant as aq

jax = pytest.importorskip("jax", reason="jax is not installed")

TYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64, "I64": np.int64, "U8": np.uint8, "BOOL": np.bool_}


@pytest.fixture
def mixed(tmp_path, random):
    """A file with a tensor of each type."""
    def write(most=2**31 - 1):
        tensors = {name: (random.standard_normal((3, 5)) * 100).astype(kind) for name, kind in TYPES.items()}
        tensors["I64"] = np.array([[-(2**31), most]], np.int64)
        tensors["scalar"] = np.array(7, np.int64)
        header, blobs, at = {}, [], 0
        for name, values in tensors.items():
            header[name] = {"dtype": "I64" if name == "scalar" else name, "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
            blobs.append(values.tobytes())
            at += values.nbytes
        text = json.dumps(header).encode()
        (tmp_path / "mixed.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))
        return aq.open(tmp_path / "mixed.safetensors"), tensors
    return write


@pytest.mark.parametrize("dtype", [None, "float32", "float16", "bfloat16"])
def test_weights_are_those_of_numpy(quantized, dtype):
    model = aq.open(quantized)
    arrays = model.state_dict("jax", **({} if dtype is None else {"dtype": dtype}))
    plain = model.state_dict()
    assert arrays.keys() == plain.keys() and len(plain) > 20
    for name, array in arrays.items():
        assert isinstance(array, jax.Array) and array.shape == plain[name].shape
        assert array.dtype == jax.numpy.dtype(dtype or "bfloat16")
        assert np.array_equal(np.asarray(array), plain[name].astype(array.dtype))


def test_a_layer_computes_with_them(quantized, random):
    weight = aq.open(quantized).state_dict("jax", "float32")["blocks.0.attn.qkv.weight"]
    x = random.standard_normal((4, weight.shape[1])).astype(np.float32)
    product = jax.jit(lambda x, w: x @ w.T)(x, weight)
    assert np.allclose(product, x @ aq.open(quantized)["blocks.0.attn.qkv.weight"].dequantize().T, atol=1e-4)


def test_tensors_of_other_types(mixed):
    model, tensors = mixed()
    arrays = model.state_dict("jax", "float32")
    for name, values in tensors.items():
        is_float = name in ("F32", "F16", "BF16", "F64")
        assert np.array_equal(np.asarray(arrays[name]), values.astype(np.float32) if is_float else values), name
        assert arrays[name].shape == values.shape
    assert arrays["U8"].dtype == np.uint8 and arrays["I64"].dtype == np.int32 and arrays["BOOL"].dtype == np.bool_


def test_integers_are_never_cut(mixed):
    model, tensors = mixed(2**40)
    with pytest.raises(aq.InputError, match="'I64' has integers beyond 32 bits"):
        model.state_dict("jax")
    with jax.experimental.enable_x64() if hasattr(jax.experimental, "enable_x64") else jax.enable_x64(True):
        assert np.array_equal(np.asarray(model.state_dict("jax")["I64"]), tensors["I64"])


def test_other_types_are_refused():
    with pytest.raises(aq.ConfigError, match="dtype"):
        aq.open(DIGITS).state_dict("jax", "int4")
