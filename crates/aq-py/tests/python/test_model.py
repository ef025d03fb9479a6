"""Opened models: what is read, when, and where it lies."""
import subprocess

import numpy as np
import pytest
from conftest import DIGITS, write_safetensors

import arrow_quant as aq

QKV = "blocks.0.attn.qkv.weight"


def test_a_model_is_a_mapping_in_the_order_of_the_file(quantized):
    model = aq.open(quantized)
    assert len(model) == 62 and QKV in model and "none" not in model
    assert list(model) == [t["name"] for t in aq.inspect(quantized)["tensors"]]
    assert model.metadata["aq.format_version"] == "1"
    assert model.get("none") is None and model.get(QKV) is model[QKV]
    assert dict(model).keys() == model.keys() and [t.name for t in model.values()] == list(model)
    with pytest.raises(KeyError):
        model["none"]


def test_what_is_known_of_a_tensor(quantized):
    model = aq.open(quantized)
    tensor, kept = model[QKV], model["pos_embed"]
    assert (tensor.shape, tensor.bits, tensor.group_size) == ((384, 128), 4, 64)
    assert (tensor.codec, tensor.src_dtype, tensor.bits_per_weight) == ("affine", "BF16", 4.5)
    assert tensor.is_quantized and not kept.is_quantized and kept.codec == "raw"
    assert tensor.codes.size == 384 * 128 // 2 and tensor.scales.shape == (384 * 2,)
    assert tensor.nbytes == tensor.codes.nbytes + tensor.scales.nbytes + tensor.slabs[0].offsets.nbytes


def test_weights_are_those_of_the_command(command, quantized, tmp_path):
    argv = [command, "dequantize", str(quantized), "-o", str(tmp_path / "plain.safetensors")]
    subprocess.run(argv, check=True, capture_output=True)
    plain, model = aq.open(tmp_path / "plain.safetensors"), aq.open(quantized)
    for name, tensor in model.items():
        assert np.array_equal(tensor.dequantize(), plain[name].dequantize()), name


@pytest.mark.parametrize("method", ["ls", "entropy", "trellis"])
def test_slabs_of_a_large_tensor(tmp_path, random, method):
    weights = random.standard_normal((2100, 1024)).astype(np.float32)
    write_safetensors(tmp_path / "m.safetensors", {"layer.weight": weights})
    aq.quantize(tmp_path / "m.safetensors", tmp_path / "q.parquet", tensor_type=[f"layer={method}:4:64"])
    tensor = aq.open(tmp_path / "q.parquet")["layer.weight"]
    assert [(s.row_start, s.row_count) for s in tensor.slabs] == [(0, 1024), (1024, 1024), (2048, 52)]
    assert np.array_equal(tensor.codes, np.concatenate([s.codes for s in tensor.slabs]))
    assert aq.cosine_similarity(weights, tensor.dequantize()) > 0.995
    assert np.array_equal(np.asarray(tensor), tensor.dequantize())


@pytest.mark.skipif(not __import__("os").path.exists("/proc/self/maps"), reason="needs /proc")
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_codes_lie_in_the_mapped_file(tmp_path, ending):
    path = tmp_path / f"q.{ending}"
    aq.quantize(DIGITS, path, bits=4)
    codes = aq.open(path)[QKV].codes
    address = codes.__array_interface__["data"][0]
    maps = [line.split() for line in open("/proc/self/maps") if str(path) in line]
    ranges = [tuple(int(end, 16) for end in fields[0].split("-")) for fields in maps]
    assert any(low <= address and address + codes.nbytes <= high for low, high in ranges)
    assert codes.tobytes() in path.read_bytes()


def test_views_outlive_the_model_and_cannot_be_written(quantized):
    codes = aq.open(quantized)[QKV].codes
    before = codes.copy()
    assert np.array_equal(codes, before)
    with pytest.raises(ValueError):
        codes[0] = 1
    with pytest.raises(ValueError):
        codes.flags.writeable = True


def test_a_damaged_slab_is_refused(quantized, tmp_path):
    bad = tmp_path / "bad.parquet"
    content, codes = bytearray(quantized.read_bytes()), aq.open(quantized)[QKV].codes.tobytes()
    content[content.index(codes) + 100] ^= 1
    bad.write_bytes(content)
    model = aq.open(bad)
    for read in (lambda t: t.codes, lambda t: t.dequantize()):
        with pytest.raises(aq.InputError, match="blocks.0.attn.qkv"):
            read(model[QKV])
    assert model["blocks.1.attn.qkv.weight"].codes.size


def test_kept_integers_stay_integers(tmp_path):
    import json

    header = json.dumps({"ids": {"dtype": "I64", "shape": [3], "data_offsets": [0, 24]}}).encode()
    data = np.array([1, -2, 2**40]).astype("<i8").tobytes()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    values = aq.open(tmp_path / "m.safetensors")["ids"].dequantize("float16")
    assert values.dtype == np.int64 and values.tolist() == [1, -2, 2**40]


def test_state_dict(quantized):
    import ml_dtypes

    model = aq.open(quantized)
    plain, half = model.state_dict(), model.state_dict(dtype="bfloat16")
    assert plain.keys() == set(model) and plain[QKV].dtype == np.float32
    assert half[QKV].dtype == ml_dtypes.bfloat16
    assert np.array_equal(half[QKV], plain[QKV].astype(ml_dtypes.bfloat16))
    with pytest.raises(aq.ConfigError, match="framework"):
        model.state_dict("caffe")
    with pytest.raises(aq.ConfigError, match="dtype"):
        model.state_dict(dtype="int4")
