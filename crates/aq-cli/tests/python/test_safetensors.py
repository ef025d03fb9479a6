"""Safetensors outputs: dequantized weights that any program loads, and signed bytes as ComfyUI reads them."""
import json

import numpy as np
import pytest
from safetensors import safe_open

from conftest import DIGITS, aq, aq_json, digest, zoo
from small_models import load_safetensors, save_safetensors

H4 = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], np.float64)


def header(path):
    with open(path, "rb") as f:
        return json.loads(f.read(int.from_bytes(f.read(8), "little")))


def regular_hadamard(size):
    """The rotation as stable-diffusion.cpp's docs/int8_convrot.md defines it."""
    h = H4
    while len(h) < size:
        h = np.kron(h, H4)
    return h / np.sqrt(size)


def comfy_weights(path):
    """Each layer's weights by ComfyUI's formula, with what its `comfy_quant` says; and the tensors that are plain."""
    weights, said = {}, {}
    with safe_open(path, framework="np") as f:
        names = set(f.keys())
        plain = {n: f.get_tensor(n) for n in names if not n.endswith((".comfy_quant", ".weight_scale"))}
        for name in sorted(n for n in names if n.endswith(".comfy_quant")):
            layer = name.removesuffix(".comfy_quant")
            said[layer] = json.loads(f.get_tensor(name).tobytes())
            codes, scale = plain.pop(f"{layer}.weight"), f.get_tensor(f"{layer}.weight_scale")
            assert codes.dtype == np.int8 and codes.min() >= -127
            assert scale.dtype == np.float32 and scale.shape == (len(codes), 1)
            w = codes.astype(np.float64) * scale
            if said[layer].get("convrot"):
                size = said[layer]["convrot_groupsize"]
                w = (w.reshape(len(w), -1, size) @ regular_hadamard(size)).reshape(w.shape)
            weights[layer] = w
    return weights, said, plain


@pytest.fixture
def model(tmp_path):
    """Layers with rows of whole and of other blocks, outliers, a convolution, and odd numbers of 2-byte elements."""
    random = np.random.default_rng(5)
    rotated = random.standard_normal((96, 512)).astype(np.float32) * 0.02
    rotated[:, 7] *= 60
    tensors = {
        "blocks.0.odd": random.standard_normal(7).astype(np.float16),
        "blocks.0.attn.qkv.weight": rotated,
        "blocks.0.attn.qkv.bias": random.standard_normal(96).astype(np.float32),
        "blocks.0.mlp.fc1.weight": random.standard_normal((130, 200)).astype(np.float32),
        "conv.weight": random.standard_normal((32, 16, 3, 3)).astype(np.float32),
        "blocks.1.mlp.fc1.weight": (random.standard_normal((64, 256)) * 1e-30).astype(np.float32),
    }
    (tmp_path / "in").mkdir()
    save_safetensors(tmp_path / "in" / "model.safetensors", tensors)
    return tmp_path / "in" / "model.safetensors", tensors


@pytest.mark.parametrize("source", zoo())
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_plain_output_is_the_dequantized_model_in_the_type_of_the_source(source, bits, tmp_path):
    report = aq_json("quantize", source, "-o", tmp_path / "plain.safetensors", "--bits", bits)
    packed = aq_json("quantize", source, "-o", tmp_path / "packed.parquet", "--bits", bits)
    types = {n: e["dtype"] for n, e in header(source).items() if n != "__metadata__"}
    assert {n: e["dtype"] for n, e in header(tmp_path / "plain.safetensors").items() if n != "__metadata__"} == types
    aq("convert", tmp_path / "packed.parquet", "-o", tmp_path / "converted.safetensors")
    plain, converted = (load_safetensors(tmp_path / f"{n}.safetensors") for n in ("plain", "converted"))
    assert all(np.array_equal(plain[name], converted[name]) for name in types)
    for ours, theirs in zip(report["tensors"], packed["tensors"], strict=True):
        assert ours["relative_mse"] == theirs["relative_mse"]
        if ours["kept_reason"] is None:
            assert ours["codec"] == "raw" and ours["dequantized_from"]["bytes"] == theirs["bytes"]
    assert report["output"]["bytes"] == (tmp_path / "plain.safetensors").stat().st_size
    plan = aq_json("quantize", source, "-o", tmp_path / "x.safetensors", "--bits", bits, "--dry-run")
    assert plan["bytes_estimate"] == sum(t["bytes"] for t in report["tensors"])


def test_dtype_and_settings_of_the_run_change_what_they_say(tmp_path):
    runs = {"a": [], "b": ["--threads", 1, "--block-size", 4096, "--streaming"], "half": ["--dtype", "bf16"]}
    for name, options in runs.items():
        aq("quantize", DIGITS, "-o", tmp_path / f"{name}.safetensors", "--bits", 4, *options)
    assert digest(tmp_path / "a.safetensors") == digest(tmp_path / "b.safetensors")
    f32, half = load_safetensors(tmp_path / "a.safetensors"), header(tmp_path / "half.safetensors")
    assert half["__metadata__"]["format"] == "pt" and half["__metadata__"]["aq.tool"].startswith("arrowquant")
    narrow = [n for n, e in half.items() if e.get("dtype") == "BF16"]
    bf16 = load_safetensors(tmp_path / "half.safetensors")
    assert narrow and all(np.abs(bf16[n] - f32[n]).max() <= np.abs(f32[n]).max() * 2**-8 for n in narrow)


@pytest.mark.parametrize("method", ["convrot", "int8"])
def test_comfy_layers_decode_by_its_formula(model, method, tmp_path):
    path, tensors = model
    out = tmp_path / "out.safetensors"
    report = aq_json("quantize", path, "-o", out, "--format", "comfy", "--method", method)
    weights, said, plain = comfy_weights(out)
    assert set(weights) == {"blocks.0.attn.qkv", "blocks.0.mlp.fc1", "blocks.1.mlp.fc1"}
    rotated = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 256}
    for layer, w in weights.items():
        original = tensors[f"{layer}.weight"].astype(np.float64)
        whole = method == "convrot" and original.shape[1] % 256 == 0
        assert said[layer] == (rotated if whole else {"format": "int8_tensorwise"})
        if whole:
            turned = (original.reshape(len(original), -1, 256) @ regular_hadamard(256)).reshape(original.shape)
        else:
            turned = original
        with safe_open(out, framework="np") as f:
            scale = f.get_tensor(f"{layer}.weight_scale")[:, 0]
        assert np.allclose(scale, np.abs(turned).max(1) / 127, rtol=2**-10, atol=0)
        relative = ((w - original) ** 2).sum() / (original ** 2).sum()
        row = next(t for t in report["tensors"] if t["name"] == f"{layer}.weight")
        assert relative < 4e-3 and abs(row["relative_mse"] - relative) <= 1e-4 * relative
    assert set(plain) == tensors.keys() - {f"{layer}.weight" for layer in weights}
    assert all(np.array_equal(plain[name], tensors[name]) for name in plain)
    kept = {t["name"]: t["kept_reason"] for t in report["tensors"]}
    assert "matrix" in kept["conv.weight"]
    assert report["output"]["bytes"] == out.stat().st_size
    compared = {t["name"]: t for t in aq_json("compare", path, out)["tensors"]}
    assert compared.keys() == tensors.keys()
    assert all(compared[t["name"]]["relative_mse"] == (t["relative_mse"] or 0) for t in report["tensors"])
    aq("convert", out, "-o", tmp_path / "again.safetensors", "--format", "comfy")
    with safe_open(out, "np") as a, safe_open(tmp_path / "again.safetensors", "np") as b:
        assert all(np.array_equal(a.get_tensor(n), b.get_tensor(n)) for n in a.keys())
    entries = {n: e for n, e in header(out).items() if n != "__metadata__"}
    size = {"F32": 4, "F16": 2, "I8": 1, "U8": 1}
    assert all(e["data_offsets"][0] % size[e["dtype"]] == 0 for e in entries.values())
    of_layer = [e for n, e in entries.items() if n.startswith("blocks.0.attn.qkv.") and not n.endswith("bias")]
    bytes_of_layer = sum(e["data_offsets"][1] - e["data_offsets"][0] for e in of_layer)
    assert next(t["bytes"] for t in report["tensors"] if t["name"] == "blocks.0.attn.qkv.weight") == bytes_of_layer


def test_files_of_others_are_read_where_their_scales_are_halves(model, tmp_path):
    from safetensors.numpy import save_file
    random = np.random.default_rng(3)
    codes = random.integers(-127, 128, (8, 64), dtype=np.int8)
    said = np.frombuffer(b'{"format": "int8_tensorwise"}', np.uint8)
    for scale, readable in ((np.float32(2.0**-7), True), (np.float32(0.1), False)):
        save_file({"a.weight": codes, "a.weight_scale": np.full((8, 1), scale), "a.comfy_quant": said}, tmp_path / "x.safetensors")
        listed = {t["name"]: t for t in aq_json("inspect", tmp_path / "x.safetensors")["tensors"]}
        assert ("a.comfy_quant" in listed) != readable
        if readable:
            aq("dequantize", tmp_path / "x.safetensors", "-o", tmp_path / "back.safetensors")
            assert np.array_equal(load_safetensors(tmp_path / "back.safetensors")["a.weight"], codes * scale)
            aq("quantize", tmp_path / "x.safetensors", "-o", tmp_path / "q.parquet", status=3)


def test_rotation_tames_outliers(model, tmp_path):
    errors = {}
    for method in ("int8", "convrot"):
        report = aq_json("quantize", model[0], "-o", tmp_path / method, "--format", "comfy", "--method", method)
        errors[method] = next(t["relative_mse"] for t in report["tensors"] if t["name"] == "blocks.0.attn.qkv.weight")
    assert errors["convrot"] < errors["int8"] / 4


def test_parquet_of_the_same_method_converts_to_the_same_layers(model, tmp_path):
    for format, name in (("comfy", "a.safetensors"), ("parquet", "b.parquet")):
        skip = ["--tensor-type", "conv=skip"]
        aq("quantize", model[0], "-o", tmp_path / name, "--format", format, "--method", "convrot", "--bits", 8, *skip)
    aq("convert", tmp_path / "b.parquet", "-o", tmp_path / "c.safetensors", "--format", "comfy")
    with safe_open(tmp_path / "a.safetensors", "np") as a, safe_open(tmp_path / "c.safetensors", "np") as c:
        assert set(a.keys()) == set(c.keys())
        assert all(np.array_equal(a.get_tensor(n), c.get_tensor(n)) for n in a.keys())
    aq("dequantize", tmp_path / "b.parquet", "-o", tmp_path / "back.safetensors")
    back = load_safetensors(tmp_path / "back.safetensors")
    for layer, w in comfy_weights(tmp_path / "a.safetensors")[0].items():
        assert np.allclose(back[f"{layer}.weight"], w, rtol=0, atol=1e-5 * np.abs(w).max())


def test_shards_have_an_index_and_are_replaced_by_force_only(tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole.safetensors"
    options = ["--bits", 4, "--format", "safetensors"]
    aq("quantize", DIGITS, "-o", out, *options, "--shard-size", "200KB")
    aq("quantize", DIGITS, "-o", whole, *options)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(p.name for p in out.glob("*.safetensors"))
    assert len(files) > 2 and set(index["weight_map"].values()) == set(files)
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    expected, total = load_safetensors(whole), 0
    for file in files:
        tensors = load_safetensors(out / file)
        assert {n for n, f in index["weight_map"].items() if f == file} == tensors.keys()
        assert all(np.array_equal(expected.pop(n), a) for n, a in tensors.items())
        total += sum(e["data_offsets"][1] - e["data_offsets"][0] for n, e in header(out / file).items() if n != "__metadata__")
    assert not expected and index["metadata"]["total_size"] == total
    assert len(aq_json("inspect", out)["tensors"]) == len(index["weight_map"])
    aq("quantize", DIGITS, "-o", out, *options, status=1)
    aq("quantize", DIGITS, "-o", out, *options, "--force")
    assert sorted(p.name for p in out.glob("*.safetensors")) == ["model.safetensors"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    aq("quantize", DIGITS, "-o", mine, *options, "--force", status=3)
    assert (mine / "thesis.txt").exists()


def test_pipelines_keep_their_names_and_configs(tmp_path):
    pipe = tmp_path / "pipe"
    (pipe / "transformer").mkdir(parents=True)
    (pipe / "scheduler").mkdir()
    (pipe / "model_index.json").write_text('{"_class_name": "P", "transformer": ["diffusers", "DiT"], "scheduler": ["diffusers", "S"]}')
    (pipe / "scheduler" / "scheduler_config.json").write_text("{}")
    (pipe / "transformer" / "config.json").write_text('{"_class_name": "DiT"}')
    name = "diffusion_pytorch_model.safetensors"
    (pipe / "transformer" / name).write_bytes((DIGITS / "model.safetensors").read_bytes())
    aq("quantize", pipe, "-o", tmp_path / "out", "--format", "safetensors", "--bits", 4)
    for file in ("model_index.json", "scheduler/scheduler_config.json", "transformer/config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (pipe / file).read_bytes()
    assert load_safetensors(tmp_path / "out" / "transformer" / name).keys() == load_safetensors(DIGITS / "model.safetensors").keys()
    aq("quantize", pipe / "transformer", "-o", tmp_path / "component", "--format", "safetensors", "--bits", 4)
    assert not list((tmp_path / "out" / "transformer").glob("*.md"))
    assert sorted(p.name for p in (tmp_path / "component").iterdir() if p.suffix != ".md") == ["config.json", name]


@pytest.mark.parametrize("options, status", [
    (["--format", "comfy", "--bits", 4], 2),
    (["--format", "comfy", "--method", "gptq"], 2),
    (["--format", "comfy", "--rotation", "on"], 2),
    (["--target-bpw", 4], 2),
    (["--format", "onnx"], 4),
    (["--dtype", "f8"], 4),
    (["--resume"], 2),
])
def test_what_a_format_cannot_hold_is_refused(options, status, tmp_path):
    aq("quantize", DIGITS, "-o", tmp_path / "out.safetensors", *options, status=status)
    assert not list(tmp_path.iterdir())


def test_other_codes_do_not_convert_to_comfy(tmp_path):
    aq("quantize", DIGITS, "-o", tmp_path / "a.parquet", "--bits", 4)
    aq("convert", tmp_path / "a.parquet", "-o", tmp_path / "out.safetensors", "--format", "comfy", status=4)
    aq("quantize", DIGITS, "-o", tmp_path / "b.parquet", "--bits", 8, "--method", "minmax", "--group-size", 0)
    aq("convert", tmp_path / "b.parquet", "-o", tmp_path / "out.safetensors", "--format", "comfy", status=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]
