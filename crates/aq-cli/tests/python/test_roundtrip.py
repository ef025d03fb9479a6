"""Every model, width and format comes back with its names and shapes, and the error that is reported is the true one."""
import json
import math

import numpy as np
import pytest

from conftest import DIGITS, aq, aq_json, zoo
from small_models import load_safetensors

SUFFIXES = [".parquet", ".arrow", ""]


def errors(w, q):
    """(cosine, relative MSE) over all elements, in f64."""
    w, q = w.astype(np.float64).ravel(), q.astype(np.float64).ravel()
    return float(w @ q / math.sqrt((w @ w) * (q @ q))), float(((w - q) ** 2).sum() / (w @ w))


def close(reported, expected):
    return abs(reported - expected) <= 1e-9


@pytest.mark.parametrize("suffix", SUFFIXES, ids=["parquet", "arrow", "folder"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("model", zoo())
def test_names_shapes_and_errors(model, bits, suffix, tmp_path):
    out, back = tmp_path / f"out{suffix}", tmp_path / "back.safetensors"
    report = aq_json("quantize", model, "-o", out, "--bits", bits)
    aq("verify", out)
    aq("dequantize", out, "-o", back)
    source, restored = load_safetensors(model), load_safetensors(back)
    assert {k: v.shape for k, v in restored.items()} == {k: v.shape for k, v in source.items()}

    listed = {f"{name}.weight" for name in json.loads((model.parent / "config.json").read_text())["quantize"]}
    quantized = [t["name"] for t in report["tensors"] if t["kept_reason"] is None]
    assert set(quantized) == listed
    for name in source.keys() - listed:
        assert np.array_equal(source[name], restored[name]), f"{name} was to be kept"

    compared = aq_json("compare", model, out)
    reported = {t["name"]: t for t in report["tensors"]}
    for tensor in compared["tensors"]:
        name = tensor["name"]
        cosine, relative_mse = errors(source[name], restored[name])
        assert close(tensor["cosine"], cosine) and close(tensor["relative_mse"], relative_mse), name
        if name in listed:
            assert close(reported[name]["cosine"], cosine) and close(reported[name]["relative_mse"], relative_mse), name
    joined = [np.concatenate([t[name].ravel() for name in quantized]) for t in (source, restored)]
    cosine, relative_mse = errors(*joined)
    for total in (compared["global"], {k.removesuffix("_global"): v for k, v in report["weight"].items()}):
        assert close(total["cosine"], cosine) and close(total["relative_mse"], relative_mse)


def test_bits_per_weight_count_every_byte(tmp_path):
    out = tmp_path / "out.parquet"
    report = aq_json("quantize", DIGITS, "-o", out, "--bits", 4, "--group-size", 64)
    params = sum(a.size for a in load_safetensors(DIGITS / "model.safetensors").values())
    assert report["output"]["bytes"] == out.stat().st_size
    assert close(report["output"]["bits_per_weight"], out.stat().st_size * 8 / params)
    quantized = [t for t in report["tensors"] if t["kept_reason"] is None]
    for tensor in quantized:
        assert close(tensor["bits_per_weight"], tensor["bytes"] * 8 / tensor["params"])
    total = sum(t["bytes"] for t in quantized) * 8 / sum(t["params"] for t in quantized)
    assert close(report["quantized"]["bits_per_weight"], total)
    assert close(aq_json("compare", DIGITS, out)["global"]["bits_per_weight"], out.stat().st_size * 8 / params)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_dequantize_types(dtype, tmp_path):
    out, back = tmp_path / "out.parquet", tmp_path / "back.safetensors"
    aq("quantize", DIGITS, "-o", out, "--bits", 8, "--quiet")
    aq("dequantize", out, "-o", back, "--dtype", dtype)
    source, restored = load_safetensors(DIGITS / "model.safetensors"), load_safetensors(back)
    for name, array in source.items():
        assert np.allclose(array, restored[name].astype(np.float32), atol=0.05), name


def test_an_existing_output_needs_force(tmp_path):
    out = tmp_path / "out.parquet"
    aq("quantize", DIGITS, "-o", out, "--quiet")
    before = out.read_bytes()
    aq("quantize", DIGITS, "-o", out, "--bits", 2, "--quiet", status=1)
    assert out.read_bytes() == before
    aq("quantize", DIGITS, "-o", out, "--bits", 2, "--quiet", "--force")
    assert out.stat().st_size < len(before)
