"""`--format diffusers`: a folder of packed layers, read here by what docs/format.md says of them."""
import json
import shutil

import numpy as np
import pytest

from conftest import DIGITS, aq, aq_json, digest
from small_models import load_safetensors, save_safetensors

PLANES = {2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 8: [8]}


def metadata(path):
    with open(path, "rb") as f:
        return json.loads(f.read(int.from_bytes(f.read(8), "little")))["__metadata__"]


def unpack(data, bits, count):
    """The codes of one group."""
    codes, at = np.zeros(count, np.uint8), 0
    for first in range(0, count, 128):
        n = min(128, count - first)
        whole, shift = n - n % 8, 0
        for p in PLANES[bits]:
            plane = data[at : at + whole * p // 8]
            parts = [(plane >> (i * p)) & ((1 << p) - 1) for i in range(8 // p)]
            codes[first : first + whole] |= np.concatenate(parts).astype(np.uint8) << shift
            at, shift = at + len(plane), shift + p
        rest = int.from_bytes(data[at : at + -(-(n - whole) * bits // 8)].tobytes(), "little")
        codes[first + whole : first + n] = [(rest >> (i * bits)) & ((1 << bits) - 1) for i in range(n - whole)]
        at += -(-(n - whole) * bits // 8)
    return codes


def rotated_back(w, signs, block):
    x, h = w.reshape(-1, block).copy(), 1
    while h < block:
        x = x.reshape(-1, block // (2 * h), 2, h)
        x = np.stack([x[:, :, 0] + x[:, :, 1], x[:, :, 0] - x[:, :, 1]], 2).reshape(-1, block)
        h *= 2
    return (x * np.float32(1 / np.sqrt(block))).reshape(w.shape) * signs


def decoded(layer, form, parts):
    """The weight of a layer, every operation rounded to float32 as the document has it."""
    part = {name.removeprefix(f"{layer}.packed."): value for name, value in parts.items() if name.startswith(f"{layer}.packed.")}
    bits, shape = form["bits"], form["shape"]
    rows, cols = shape[0], int(np.prod(shape[1:]))
    group = min(form["group_size"] or cols, cols)
    widths = [min(group, cols - first) for first in range(0, cols, group)]
    half = lambda name: part[name].view(np.float16).astype(np.float32)
    scale = np.repeat(half("scales"), widths, axis=1)
    w = np.empty((rows, cols), np.float32)
    for row in range(rows):
        at, codes = 0, []
        for width in widths:
            size = -(-width * bits // 8)
            codes.append(unpack(part["codes"][row, at : at + size], bits, width))
            at += size
        w[row] = np.concatenate(codes)
    if form.get("zero_points"):
        w = (w - np.repeat(part["zeros"].astype(np.float32), widths, axis=1)) * scale
    else:
        w = w * scale + np.repeat(half("offsets"), widths, axis=1)
    if form.get("exponents"):
        w = w * np.exp2(part["exponents"].astype(np.float32))[:, None]
    for k in range(form.get("low_rank", 0)):
        left = part["left"][:, k].astype(np.float32) * part["part"].view(np.float32)[k]
        w = w + left[:, None] * part["right"][k].astype(np.float32)
    if form.get("rotation"):
        w = rotated_back(w, part["signs"].astype(np.float32), form["rotation"])
    if form.get("smoothing"):
        w = w / half("smoothing")
    return w.reshape(shape)


def read_folder(folder):
    """Its plain tensors and the decoded weights of its layers, and what the configuration says."""
    parts = {}
    for file in folder.glob("*.safetensors"):
        parts |= load_safetensors(file)
    said = json.loads((folder / "config.json").read_text())["quantization_config"]
    forms = {name: {"bits": said["bits"], "group_size": said["group_size"], **form} for name, form in said["layers"].items()}
    weights = {name: value for name, value in parts.items() if ".packed." not in name}
    weights |= {f"{name}.weight": decoded(name, form, parts) for name, form in forms.items()}
    return weights, said


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Layers of odd widths, a convolution, rows that need exponents, a matrix that is no layer, and a configuration."""
    random = np.random.default_rng(5)
    normal = lambda *shape: random.standard_normal(shape).astype(np.float32)
    tensors = {
        "blocks.0.odd": normal(7).astype(np.float16),
        "blocks.0.attn.qkv.weight": normal(96, 256) * 0.02,
        "blocks.0.attn.qkv.bias": normal(96),
        "blocks.0.mlp.fc1.weight": normal(130, 203),
        "blocks.0.mlp.table": normal(64, 64),
        "conv.weight": normal(32, 16, 3, 3),
        "blocks.1.mlp.fc1.weight": normal(64, 256) * 1e-30,
    }
    folder = tmp_path_factory.mktemp("model") / "transformer"
    folder.mkdir()
    save_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text('{"_class_name": "DiTTransformer2DModel", "depth": 2}')
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "digits"
    folder.mkdir()
    shutil.copy(DIGITS / "model.safetensors", folder)
    (folder / "config.json").write_text('{"_class_name": "DiTTransformer2DModel"}')
    return folder


@pytest.mark.parametrize("options", [
    [], ["--bits", 3, "--group-size", 16], ["--method", "minmax", "--bits", 2, "--group-size", 32], ["--bits", 8, "--group-size", 0],
    ["--method", "hqq", "--bits", 5], ["--method", "int8", "--bits", 8], ["--method", "convrot", "--bits", 8],
    ["--rotation", "on", "--low-rank", 3], ["--tensor-type", r"fc1=6", "--tensor-type", "conv=minmax:4:0"],
], ids=lambda options: " ".join(map(str, options)) or "default")
def test_layers_are_what_the_document_says(model, options, tmp_path):
    report = aq_json("quantize", model, "-o", tmp_path / "out", "--format", "diffusers", *options)
    named = ["--method", "ls"] if "--method" not in options else []
    packed = aq_json("quantize", model, "-o", tmp_path / "q.parquet", *options, *named, "--tensor-type", r"\.table=skip")
    aq("dequantize", tmp_path / "q.parquet", "-o", tmp_path / "plain.safetensors", "--dtype", "f32")
    weights, said = read_folder(tmp_path / "out")
    plain = load_safetensors(tmp_path / "plain.safetensors")
    assert weights.keys() == plain.keys()
    assert all(np.array_equal(weights[name], plain[name]) for name in plain)
    quantized = {t["name"] for t in report["tensors"] if t["kept_reason"] is None}
    assert quantized == {f"{name}.weight" for name in said["layers"]} == {n for n in plain if n.endswith(".weight")}
    assert next(t["kept_reason"] for t in report["tensors"] if t["name"] == "blocks.0.mlp.table").startswith("only a tensor")
    assert said["layers"]["blocks.1.mlp.fc1"].get("exponents")
    assert [t["relative_mse"] for t in report["tensors"] if t["name"] in quantized] == [
        t["relative_mse"] for t in packed["tensors"] if t["name"] in quantized
    ]
    # Our own readers see the same, and every byte is counted.
    aq("verify", tmp_path / "out")
    aq("dequantize", tmp_path / "out", "-o", tmp_path / "again.safetensors", "--dtype", "f32")
    again = load_safetensors(tmp_path / "again.safetensors")
    assert again.keys() == plain.keys() and all(np.array_equal(again[name], plain[name]) for name in plain)
    listed = {t["name"]: t for t in aq_json("inspect", tmp_path / "out")["tensors"]}
    assert {t["name"]: t["bytes"] for t in report["tensors"]} == {name: t["bytes"] for name, t in listed.items()}
    parts = load_safetensors(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    assert sum(t["bytes"] for t in report["tensors"]) == sum(part.nbytes for part in parts.values())
    sizes = [path.stat().st_size for path in (tmp_path / "out").iterdir() if path.name != "README.md"]
    assert report["output"]["bytes"] == sum(sizes)
    compared = {t["name"]: t["relative_mse"] for t in aq_json("compare", model, tmp_path / "out")["tensors"]}
    assert all(compared[t["name"]] == (t["relative_mse"] or 0) for t in report["tensors"])


@pytest.mark.parametrize("options", [
    [], ["--method", "ls", "--smoothing", "0.5"], ["--act-bits", 8, "--act-mode", "groups", "--time-groups", 3], ["--target-bpw", 5],
], ids=str)
def test_a_calibration_is_used(digits, options, tmp_path):
    options = [*options, "--calibration", DIGITS / "calib.safetensors"]
    report = aq_json("quantize", digits, "-o", tmp_path / "out", "--format", "diffusers", *options)
    methods = {t["method"] for t in report["tensors"] if t["kept_reason"] is None}
    assert methods == {"ls" if "ls" in options else "gptq"}
    weights, said = read_folder(tmp_path / "out")
    assert all(form.get("smoothing", False) == ("--smoothing" in options) for form in said["layers"].values())
    aq("dequantize", tmp_path / "out", "-o", tmp_path / "plain.safetensors", "--dtype", "f32")
    plain = load_safetensors(tmp_path / "plain.safetensors")
    assert all(np.array_equal(weights[name], plain[name]) for name in plain)
    if "--act-bits" in options:
        aq("quantize", digits, "-o", tmp_path / "q.parquet", "--method", "gptq", *options)
        stored = aq_json("inspect", tmp_path / "q.parquet")["metadata"]["aq.activations"]
        single = lambda text: json.loads(text, parse_float=lambda number: float(np.float32(number)))
        read = aq_json("inspect", tmp_path / "out")["metadata"]["aq.activations"]
        assert single(json.dumps(said["activations"])) == single(read) == single(stored)
    if "--target-bpw" in options:
        assert 4 < report["output"]["bits_per_weight"] <= 5.5


def test_the_bytes_depend_on_model_and_settings_only(model, tmp_path):
    options = ["--format", "diffusers", "--rotation", "on", "--low-rank", 2, "--shard-size", "20KB", "--base-model", "x"]
    ways = [["--threads", 1], ["--threads", 3, "--block-size", 4096], ["--streaming", "--memory-limit", "64MiB"]]
    for i, way in enumerate(ways):
        aq("quantize", model, "-o", tmp_path / str(i), *options, *way)
    assert len({digest(tmp_path / str(i)) for i in range(len(ways))}) == 1
    shards = sorted(path.name for path in (tmp_path / "0").glob("*.safetensors"))
    index = json.loads((tmp_path / "0" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert len(shards) > 2 and sorted(set(index["weight_map"].values())) == shards
    for name, file in index["weight_map"].items():
        assert name in load_safetensors(tmp_path / "0" / file)
        # What makes up a layer is in one file.
        if ".packed." in name:
            assert file == index["weight_map"][name.split(".packed.")[0] + ".packed.codes"]
    assert metadata(tmp_path / "0" / shards[0])["aq.layout"] == "1"


def test_converting_there_and_back_changes_no_code(model, digits, tmp_path):
    aq("quantize", model, "-o", tmp_path / "q.parquet", "--method", "minmax", "--bits", 3, "--rotation", "on")
    aq("convert", tmp_path / "q.parquet", "-o", tmp_path / "out", "--format", "diffusers", status=3)
    aq("convert", tmp_path / "q.parquet", "-o", tmp_path / "out", "--format", "diffusers", "--model", model)
    aq("convert", tmp_path / "out", "-o", tmp_path / "back.parquet")
    before, after = (
        {t["name"]: t for t in aq_json("inspect", tmp_path / f"{name}.parquet")["tensors"]} for name in ("q", "back")
    )
    # The matrix that is no layer is plain on the other side.
    table = "blocks.0.mlp.table"
    assert before.pop(table)["codec"] == "affine+transform" and after.pop(table)["dtype"] == "F32"
    assert before == after
    compared = aq_json("compare", tmp_path / "q.parquet", tmp_path / "back.parquet")["tensors"]
    assert {t["name"] for t in compared if t["relative_mse"]} == set()
    direct = ["--format", "diffusers", "--method", "minmax", "--bits", 3, "--rotation", "on", "--tensor-type", r"\.table=skip"]
    aq("quantize", model, "-o", tmp_path / "direct", *direct)
    name = "diffusion_pytorch_model.safetensors"
    a, b = (load_safetensors(tmp_path / folder / name) for folder in ("out", "direct"))
    assert a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a if key != table)
    assert aq_json("inspect", tmp_path / "out")["settings"]["bits"] == aq_json("inspect", tmp_path / "direct")["settings"]["bits"] == 3


def test_plain_outputs_of_packed_models_say_nothing_of_packed_layers(model, tmp_path):
    aq("quantize", model, "-o", tmp_path / "out", "--format", "diffusers")
    aq("convert", tmp_path / "out", "-o", tmp_path / "plain", "--format", "safetensors")
    assert json.loads((tmp_path / "plain" / "config.json").read_text()) == json.loads((model / "config.json").read_text())
    aq("quantize", tmp_path / "out", "-o", tmp_path / "q.parquet", status=3)
    aq("quantize", tmp_path / "out", "-o", tmp_path / "q", "--format", "diffusers", "--allow-requantize", "--bits", 8)
    assert json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]["bits"] == 8


def test_a_pipeline(model, tmp_path):
    pipe = tmp_path / "pipe"
    shutil.copytree(model, pipe / "transformer")
    shutil.copytree(model, pipe / "vae")
    said = {"_class_name": "P", "transformer": ["diffusers", "DiT"], "vae": ["diffusers", "AutoencoderKL"]}
    (pipe / "model_index.json").write_text(json.dumps(said))
    aq("quantize", pipe, "-o", tmp_path / "out", "--format", "diffusers", "--component", "transformer")
    assert digest(tmp_path / "out" / "vae") == digest(pipe / "vae")
    names = {path.name for path in (tmp_path / "out" / "transformer").iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}
    aq("verify", tmp_path / "out" / "transformer")
    assert "import arrow_quant.diffusers" in (tmp_path / "out" / "README.md").read_text()
    aq("quantize", pipe, "-o", tmp_path / "out", "--format", "diffusers", "--force", "--bits", 8)
    assert read_folder(tmp_path / "out" / "transformer")[1]["bits"] == 8


def test_one_file_with_a_configuration_beside_it(model, tmp_path):
    aq("quantize", model / "model.safetensors", "-o", tmp_path / "a", "--format", "diffusers")
    aq("quantize", model, "-o", tmp_path / "b", "--format", "diffusers")
    name = "diffusion_pytorch_model.safetensors"
    assert digest(tmp_path / "a" / name) == digest(tmp_path / "b" / name)
    listed = aq_json("inspect", tmp_path / "a" / name)
    assert listed["format"] == "diffusers" and any(t.get("codec") == "affine" for t in listed["tensors"])


def test_damage_is_found(model, tmp_path):
    aq("quantize", model, "-o", tmp_path / "out", "--format", "diffusers")
    file = tmp_path / "out" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    aq("verify", tmp_path / "out", status=4)
    file.write_bytes(data[:-1])
    for command in ("verify", "inspect"):
        aq(command, tmp_path / "out", status=4)


def test_wrong_inputs(model, tmp_path):
    def refused(status, *options, source=model, out="out"):
        aq("quantize", source, "-o", tmp_path / out, "--format", "diffusers", *options, status=status)
        assert not (tmp_path / out).exists()

    for method in ("entropy", "trellis", "nf4", "codebook", "q4_k"):
        refused(2, "--method", method)
    refused(2, "--tensor-type", "fc1=trellis:3:0")
    refused(2, "--rate", "2.5")
    refused(2, "--resume")
    refused(2, out="out.safetensors")
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(model / "model.safetensors", bare)
    refused(3, source=bare)
    for text in ("[]", "{", '{"a": 1, '):
        (bare / "config.json").write_text(text)
        refused(4, source=bare)
    aq("quantize", model, "-o", tmp_path / "out", "--format", "diffusers")
    before = digest(tmp_path / "out")
    aq("quantize", model, "-o", tmp_path / "out", "--format", "diffusers", status=1)
    assert digest(tmp_path / "out") == before
    aq("quantize", model, "-o", tmp_path / "e.parquet", "--method", "entropy")
    aq("convert", tmp_path / "e.parquet", "-o", tmp_path / "e", "--format", "diffusers", "--model", model, status=3)
    assert not (tmp_path / "e").exists()
    config = tmp_path / "out" / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"version": 1', '"version": 2'))
    aq("inspect", tmp_path / "out", status=3)
    config.write_text(text.replace('"conv"', '"nobody"'))
    aq("inspect", tmp_path / "out", status=4)
