"""Single arrays in memory."""
import ml_dtypes
import numpy as np
import pytest

import arrow_quant as aq


@pytest.mark.parametrize("method,bits,limit", [
    ("ls", 4, 0.008), ("minmax", 8, 1e-4), ("entropy", 4, 0.007), ("trellis", 2, 0.09), ("codebook", 4, 0.009), ("nf4", 4, 0.012),
    ("binary", 1, 0.6),
])
def test_every_codec(random, method, bits, limit):
    weights = random.standard_normal((256, 512))
    q = aq.quantize_array(weights, bits=bits, group_size=64, method=method)
    back = q.dequantize()
    assert back.shape == weights.shape
    assert ((weights - back) ** 2).mean() < limit
    assert q.bits_per_weight == 8 * q.nbytes / weights.size
    assert bits <= q.bits_per_weight < bits + 1 or method == "entropy"


def test_ternary_codes_take_less_than_two_bits(random):
    weights = random.standard_normal((64, 1280))
    q = aq.quantize_array(weights, method="ternary", group_size=0, gain=False)
    assert (q.codec, q.bits, q.bits_per_weight) == ("sign", 2, 1.6125)
    assert ((weights - q.dequantize()) ** 2).mean() < 0.195
    with pytest.raises(aq.ConfigError, match="no codes of 4 bits; use 2"):
        aq.quantize_array(weights, method="ternary", bits=4)


def test_more_dimensions_and_several_slabs(random):
    weights = random.standard_normal((1300, 16, 8, 8)).astype(np.float32)
    q = aq.quantize_array(weights, bits=8, group_size=0)
    assert q.shape == weights.shape and len(q.slabs) == 2
    assert aq.cosine_similarity(weights, q.dequantize()) > 0.9999


def test_the_result_is_that_of_a_file(random, tmp_path):
    from conftest import write_safetensors

    weights = random.standard_normal((128, 256)).astype(np.float32)
    write_safetensors(tmp_path / "m.safetensors", {"layer.weight": weights})
    aq.quantize(tmp_path / "m.safetensors", tmp_path / "q.parquet", tensor_type=["layer=ls:3:32"])
    stored, q = aq.open(tmp_path / "q.parquet")["layer.weight"], aq.quantize_array(weights, bits=3, group_size=32, method="ls")
    for part in ("codes", "scales"):
        assert np.array_equal(getattr(stored, part), getattr(q, part))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16, np.int8])
def test_types_that_come_in(random, dtype):
    weights = (random.standard_normal((32, 64)) * 20).astype(dtype)
    a = aq.quantize_array(weights, bits=4).dequantize()
    assert np.array_equal(a, aq.quantize_array(weights.astype(np.float32), bits=4).dequantize())


def test_strides_buffers_and_dlpack(random):
    weights = random.standard_normal((64, 64)).astype(np.float32)
    want = aq.quantize_array(weights.T.copy()).dequantize()
    assert np.array_equal(aq.quantize_array(weights.T).dequantize(), want)
    assert np.array_equal(aq.quantize_array(memoryview(weights.T.copy())).dequantize(), want)

    class Foreign:
        def __dlpack__(self, **options):
            return weights.T.copy().__dlpack__(**options)

        def __dlpack_device__(self):
            return weights.__dlpack_device__()

    assert np.array_equal(aq.quantize_array(Foreign()).dequantize(), want)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_arrays_in_order_are_read_where_they_are(random, dtype):
    from arrow_quant._arrays import as_weights

    weights = random.standard_normal((16, 64)).astype(dtype)
    taken, name = as_weights(weights)
    assert np.shares_memory(taken, weights)
    assert name == aq.quantize_array(weights).src_dtype == {"b": "BF"}.get(weights.dtype.name[0], "F") + str(8 * weights.itemsize)
    view = as_weights(memoryview(weights) if dtype != ml_dtypes.bfloat16 else weights)[0]
    assert np.shares_memory(view, weights)


def test_other_byte_orders(random):
    weights = random.standard_normal((16, 64)).astype(">f4")
    assert np.array_equal(aq.quantize_array(weights).codes, aq.quantize_array(weights.astype("<f4")).codes)


def test_an_array_elsewhere_is_refused():
    class Elsewhere:
        device = "cuda:0"

        def __dlpack__(self, **options):
            raise BufferError("not on the CPU")

        def __dlpack_device__(self):
            return (2, 0)

    with pytest.raises(aq.ConfigError, match="cuda:0"):
        aq.quantize_array(Elsewhere())


def test_what_is_refused(random):
    weights = random.standard_normal((8, 64))
    weights[2, 3] = np.inf
    with pytest.raises(aq.InputError, match="row 2, column 3"):
        aq.quantize_array(weights)
    for bad in (np.array(["a"]), np.ones(4, complex)):
        with pytest.raises(aq.ConfigError):
            aq.quantize_array(bad)
    with pytest.raises(aq.ConfigError, match="9"):
        aq.quantize_array(np.ones((4, 64)), bits=9)
    with pytest.raises(aq.ConfigError, match="dtype"):
        aq.quantize_array(np.ones((4, 64))).dequantize("float8")


def test_cosine_similarity(random):
    a, b = random.standard_normal((2, 30, 70)).astype(np.float32)
    want = (a.astype(float) * b).sum() / np.linalg.norm(a.astype(float)) / np.linalg.norm(b.astype(float))
    assert abs(aq.cosine_similarity(a, b) - want) < 1e-12
    assert aq.cosine_similarity(a, a) == 1
    with pytest.raises(aq.ConfigError, match="elements"):
        aq.cosine_similarity(a, b[1:])


def test_products_check_their_lengths():
    from arrow_quant import _native

    none, half = np.empty(0, np.uint8), np.ones(2, np.float16)
    good = (4, 64, 64, np.zeros(64, np.uint8), half, half, none)
    assert _native.matmul_f32(good, np.ones(64, np.float32)).tolist() == [64, 64]
    assert _native.decode_rows(good).shape == (128,)
    for i, bad in [(0, 7), (1, 32), (2, 32), (3, np.zeros(63, np.uint8)), (4, half[:1]), (5, half[:1])]:
        given = (*good[:i], bad, *good[i + 1 :])
        with pytest.raises(aq.ConfigError):
            _native.matmul_f32(given, np.ones(64, np.float32))
    with pytest.raises(aq.ConfigError):
        _native.matmul_f32(good, np.ones(65, np.float32))
    with pytest.raises(aq.ConfigError):
        _native.matmul_i8(good, np.ones(64, np.int8), np.ones(2, np.float32))
