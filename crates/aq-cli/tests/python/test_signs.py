"""Codes of one bit and of three levels: how they are asked for, what they hold, and what they say of themselves."""
import json
import re
import subprocess

import numpy as np
import pytest

from conftest import aq, aq_json, command, environment
from small_models import load_safetensors, save_safetensors

ROWS, COLS = 48, 640


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    random = np.random.default_rng(5)
    tensors = {f"blocks.{i}.fc.weight": random.standard_normal((ROWS, COLS)).astype(np.float32) for i in range(3)}
    path = tmp_path_factory.mktemp("signs") / "model.safetensors"
    save_safetensors(path, tensors)
    return path


def quantize(model, out, *options, status=0):
    """The report, and what was said on stderr."""
    argv = [command(), "quantize", model, "-o", out, "--force", "--json", *options]
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, env=environment())
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout) if status == 0 else None, done.stderr


def dequantized(out):
    back = out.with_suffix(".safetensors")
    aq("dequantize", out, "-o", back, "--dtype", "f32", "--force")
    return load_safetensors(back)


def test_one_bit_is_binary_and_says_that_it_is_experimental(model, tmp_path):
    report, said = quantize(model, tmp_path / "q.parquet", "--bits", 1, "--gain", "off")
    assert len(re.findall("binary is experimental", said)) == 1
    assert [c["method"] for c in report["caveats"]] == ["binary"] and "entropy" in report["caveats"][0]["text"]
    for tensor in report["tensors"]:
        assert (tensor["method"], tensor["codec"], tensor["bits"], tensor["group_size"]) == ("binary", "sign", 1, 0)
        assert tensor["bits_per_weight"] == (COLS / 8 + 2) * 8 / COLS
    source, back = load_safetensors(model), dequantized(tmp_path / "q.parquet")
    for name, w in source.items():
        scale = np.abs(w).mean(1, dtype=np.float64, keepdims=True).astype(np.float16).astype(np.float32)
        assert np.array_equal(back[name], np.where(w < 0, -scale, scale)), name
    aq("verify", tmp_path / "q.parquet")
    compared = aq_json("compare", model, tmp_path / "q.parquet")
    assert abs(compared["global"]["relative_mse"] - report["weight"]["relative_mse_global"]) < 1e-12


def test_ternary_is_no_worse_than_the_usual_threshold(model, tmp_path):
    report, _ = quantize(model, tmp_path / "q.parquet", "--method", "ternary", "--gain", "off")
    assert {t["bits"] for t in report["tensors"]} == {2}
    assert report["quantized"]["bits_per_weight"] == (COLS / 5 + 2) * 8 / COLS
    back = dequantized(tmp_path / "q.parquet")
    for name, w in load_safetensors(model).items():
        assert all(len(np.unique(np.abs(row[row != 0]))) == 1 for row in back[name])
        kept = np.abs(w) > 0.7 * np.abs(w).mean(1, keepdims=True)
        scale = (np.abs(w) * kept).sum(1, keepdims=True) / kept.sum(1, keepdims=True)
        usual = ((w - np.sign(w) * kept * scale) ** 2).sum()
        assert ((w - back[name]) ** 2).sum() < usual


def test_importances_lower_the_error_of_the_outputs(model, tmp_path):
    random = np.random.default_rng(6)
    sizes = np.where(np.arange(COLS) % 8 == 0, 8.0, 0.5)
    inputs = {f"blocks.{i}.fc": (random.standard_normal((1, 120, COLS)) * sizes).astype(np.float16) for i in range(3)}
    uneven = {k: v * np.where(np.arange(COLS) % 8 == 0, 2.0, 1.0).astype(np.float32) for k, v in load_safetensors(model).items()}
    source, calibration = tmp_path / "uneven.safetensors", tmp_path / "samples.safetensors"
    save_safetensors(source, uneven)
    save_safetensors(calibration, inputs)
    for method in ("binary", "ternary"):
        errors = []
        for more in ([], ["--calibration", calibration]):
            quantize(source, tmp_path / "q.parquet", "--method", method, "--gain", "off", *more)
            compared = aq_json("compare", source, tmp_path / "q.parquet", "--calibration", calibration)
            errors.append(np.mean([t["output_error"] for t in compared["tensors"]]))
        assert errors[1] < 0.9 * errors[0], method


@pytest.mark.parametrize("spec,bits,group", [("binary", 1, 0), ("binary::64", 1, 64), ("binary:1:128", 1, 128), ("ternary", 2, 0), ("ternary:2:64", 2, 64)])
def test_a_rule_chooses_them(model, tmp_path, spec, bits, group):
    report, said = quantize(model, tmp_path / "q.arrow", "--method", "ls", "--tensor-type", f"blocks.1.*={spec}")
    rows = {t["name"]: (t["codec"], t["bits"], t["group_size"]) for t in report["tensors"]}
    assert rows == {"blocks.0.fc.weight": ("affine", 4, 128), "blocks.1.fc.weight": ("sign", bits, group),
                    "blocks.2.fc.weight": ("affine", 4, 128)}
    assert "experimental" in said
    inspected = aq_json("inspect", tmp_path / "q.arrow")
    assert {t["codec"] for t in inspected["tensors"]} == {"affine", "sign"}


@pytest.mark.parametrize("method", ["ls", "gptq", "trellis", "codebook", "minmax", "hqq", "ternary"])
def test_methods_without_codes_of_one_bit_say_what_has(model, tmp_path, method):
    _, said = quantize(model, tmp_path / "q.parquet", "--bits", 1, "--method", method, status=4)
    assert "use binary (experimental), or entropy" in said
    assert not (tmp_path / "q.parquet").exists()


def test_what_cannot_hold_them_says_so(model, tmp_path):
    for options in (["--bits", 1], ["--method", "binary"], ["--method", "ternary"], ["--tensor-type", "fc=:1"]):
        _, said = quantize(model, tmp_path / "q.gguf", *options, status=2)
        assert "GGUF" in said, said
    _, said = quantize(model, tmp_path / "c.safetensors", "--format", "comfy", "--bits", 1, status=2)
    assert "8 bits" in said


def test_a_plan_says_it_and_is_followed(model, tmp_path):
    plan = aq_json("plan", model, "--method", "ternary")
    assert plan["caveats"][0]["method"] == "ternary" and {layer["bits"] for layer in plan["layers"]} == {2}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    report, _ = quantize(model, tmp_path / "q.parquet", "--plan", path)
    assert report["quantized"]["bytes"] == plan["bytes_estimate"]


def test_the_gate_widens_them(model, tmp_path):
    report, _ = quantize(model, tmp_path / "q.parquet", "--bits", 1, "--min-cosine", 0.99)
    assert all(t["cosine"] >= 0.99 and t["method"] != "binary" for t in report["tensors"])
    assert any(f["from"] == "binary, 1 bits" for f in report["fallbacks"])


def test_one_true_bit_of_entropy_loses_less(model, tmp_path):
    binary, _ = quantize(model, tmp_path / "a.parquet", "--bits", 1, "--gain", "off")
    bits = binary["quantized"]["bits_per_weight"]
    entropy, _ = quantize(model, tmp_path / "b.parquet", "--method", "entropy", "--rate", bits, "--gain", "off")
    assert entropy["quantized"]["bits_per_weight"] <= bits
    assert entropy["weight"]["relative_mse_global"] < binary["weight"]["relative_mse_global"]
