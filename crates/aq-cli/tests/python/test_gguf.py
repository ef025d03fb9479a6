"""GGUF in and out, against the package `gguf` and ggml's own code."""
import subprocess
import sys

import numpy as np
import pytest

from conftest import DIGITS, aq, aq_json, command, digest, environment, zoo
from ggml_peer import TYPES, least_error
from small_models import load_safetensors, save_safetensors

gguf = pytest.importorskip("gguf")


def failure(*arguments, status):
    """What `aq` says when it fails with this status."""
    done = subprocess.run([command(), *map(str, arguments)], capture_output=True, text=True, env=environment())
    assert done.returncode == status and "panicked" not in done.stderr, done.stderr
    return done.stderr


def bits(array):
    return np.ascontiguousarray(array, np.float32).view(np.uint32)


def dequantized(tensor):
    """What the package makes of a tensor of a file, with its shape."""
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return values.reshape(tuple(int(d) for d in reversed(tensor.shape)))


def fields(reader):
    return {name: field.contents() for name, field in reader.fields.items()}


def weights(kind, shape, seed=5):
    random = np.random.default_rng(seed)
    make = {"gauss": random.standard_normal, "laplace": lambda s: random.laplace(size=s),
            "student-t": lambda s: random.standard_t(5, size=s)}
    return (make[kind](shape) * 0.02).astype(np.float32)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """256 rows of 1024 weights."""
    path = tmp_path_factory.mktemp("student") / "model.safetensors"
    save_safetensors(path, {"blocks.0.mlp.weight": weights("student-t", (256, 1024))})
    return path


@pytest.mark.parametrize("kind", TYPES)
def test_blocks_of_any_bits_decode_as_the_package_decodes_them(kind, tmp_path):
    kind = gguf.GGMLQuantizationType[kind]
    weights_, size = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(int(kind))
    blocks = random.integers(0, 256, (8, 512 // weights_, size), dtype=np.uint8)
    for at in {"Q2_K": [80, 82], "Q3_K": [108], "Q6_K": [208], "Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2],
               "Q5_K": [0, 2]}.get(kind.name, [0]):
        blocks[..., at:at + 2] = random.standard_normal(blocks.shape[:2] + (1,)).astype(np.float16).view(np.uint8)
    file, back = tmp_path / "blocks.gguf", tmp_path / "back.safetensors"
    writer = gguf.GGUFWriter(file, "dit")
    writer.add_tensor("w", blocks.reshape(8, -1), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    aq("dequantize", file, "-o", back)
    expected = gguf.quants.dequantize(blocks.reshape(8, -1), kind)
    assert np.array_equal(bits(load_safetensors(back)["w"]), bits(expected))
    listed, = aq_json("inspect", file)["tensors"]
    assert listed["codec"] == f"ggml_{kind.name.lower()}" and listed["shape"] == [8, 512]


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_read_by_the_package_bit_for_bit(kind, student, tmp_path):
    out, back = tmp_path / "out.gguf", tmp_path / "back.safetensors"
    report = aq_json("quantize", student, "-o", out, "--method", kind.lower())
    aq("verify", out)
    aq("dequantize", out, "-o", back)
    reader = gguf.GGUFReader(out)
    tensor, = reader.tensors
    assert tensor.tensor_type.name == kind
    expected = load_safetensors(back)["blocks.0.mlp.weight"]
    assert np.array_equal(bits(dequantized(tensor)), bits(expected))
    of_weights, = report["tensors"]
    w = load_safetensors(student)["blocks.0.mlp.weight"].astype(np.float64)
    assert of_weights["relative_mse"] == pytest.approx(np.square(expected - w).sum() / np.square(w).sum(), rel=1e-6)
    size = np.divide(*gguf.GGML_QUANT_SIZES[tensor.tensor_type][::-1]) * 8
    assert of_weights["bits_per_weight"] == size
    assert fields(reader)["general.quantization_version"] == 2


@pytest.mark.parametrize("kind", TYPES)
def test_errors_are_below_those_of_ggml(kind, student, tmp_path):
    pytest.importorskip("ggml")
    report = aq_json("quantize", student, "-o", tmp_path / "out.gguf", "--method", kind.lower())
    theirs = least_error(kind, load_safetensors(student)["blocks.0.mlp.weight"])
    assert report["tensors"][0]["relative_mse"] < theirs


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q4_K", "Q3_K", "IQ4_XS"])
def test_importances_lower_the_error_of_outputs(kind, student, tmp_path):
    random = np.random.default_rng(6)
    scale = np.exp(random.normal(size=1024))
    samples = tmp_path / "samples.safetensors"
    inputs = (random.normal(size=(1, 400, 1024)) * scale).astype(np.float16)
    save_safetensors(samples, {"blocks.0.mlp": inputs})
    of = [aq_json("quantize", student, "-o", tmp_path / f"{i}.gguf", "--method", kind.lower(), *more)
          for i, more in enumerate([[], ["--calibration", samples]])]
    errors = [aq_json("compare", student, tmp_path / f"{i}.gguf", "--calibration", samples)["tensors"][0]["output_error"]
              for i in range(2)]
    assert errors[1] < errors[0] * 0.97
    assert of[1]["tensors"][0]["relative_mse"] > of[0]["tensors"][0]["relative_mse"]


@pytest.mark.parametrize("model", zoo())
@pytest.mark.parametrize("width, kinds", [(2, "Q2_K Q4_0"), (3, "Q3_K Q4_0"), (4, "Q4_K Q4_1"), (5, "Q5_K Q5_1"),
                                          (6, "Q6_K Q8_0"), (8, "Q8_0")])
def test_models_of_every_width(model, width, kinds, tmp_path):
    out, back = tmp_path / "out.gguf", tmp_path / "back.safetensors"
    report = aq_json("quantize", model, "-o", out, "--bits", width)
    aq("dequantize", out, "-o", back)
    source, restored = load_safetensors(model), load_safetensors(back)
    assert {k: v.shape for k, v in restored.items()} == {k: v.shape for k, v in source.items()}
    used = {t["codec"].removeprefix("ggml_").upper() for t in report["tensors"] if t["kept_reason"] is None}
    assert used <= set(kinds.split()), "nothing but the type and what short rows get"
    stepped = {f["tensor"] for f in report["fallbacks"]}
    for tensor in report["tensors"]:
        name, cols = tensor["name"], int(np.prod(tensor["shape"][1:]))
        if tensor["kept_reason"] is not None:
            assert np.array_equal(source[name], restored[name]) or name in stepped, name
        elif cols % 256 and width != 8:
            assert name in stepped, name
    for tensor in gguf.GGUFReader(out).tensors:
        assert np.array_equal(bits(dequantized(tensor)).ravel(), bits(restored[tensor.name]).ravel()), tensor.name
    compared = {t["name"]: t for t in aq_json("compare", model, out)["tensors"]}
    for tensor in report["tensors"]:
        if tensor["kept_reason"] is None:
            assert compared[tensor["name"]]["relative_mse"] == pytest.approx(tensor["relative_mse"], rel=1e-9)


def model_with(path, tensors):
    save_safetensors(path, {name: weights("gauss", shape) for name, shape in tensors.items()})
    return path


def test_kernels_of_convolutions_lie_in_rows_of_whole_blocks(tmp_path):
    model = model_with(tmp_path / "m.safetensors", {"conv.weight": (64, 64, 3, 3), "a.weight": (8, 64, 4, 32)})
    out = tmp_path / "out.gguf"
    report = aq_json("quantize", model, "-o", out, "--method", "q8_0")
    assert [t["codec"] for t in report["tensors"]] == ["ggml_q8_0"] * 2
    reader = gguf.GGUFReader(out)
    shapes = {t.name: [int(d) for d in reversed(t.shape)] for t in reader.tensors}
    assert shapes == {"conv.weight": [64, 576], "a.weight": [8, 64, 4, 32]}
    assert fields(reader)["comfy.gguf.orig_shape.conv.weight"] == [64, 64, 3, 3]
    listed = {t["name"]: t["shape"] for t in aq_json("inspect", out)["tensors"]}
    assert listed["conv.weight"] == [64, 64, 3, 3]


WAN = {"blocks.0.self_attn.norm_q.weight": (256,), "text_embedding.2.weight": (256, 256), "head.modulation": (1, 2, 256),
       "patch_embedding.weight": (256, 16, 1, 2, 2), "blocks.0.ffn.2.weight": (256, 512), "blocks.0.modulation": (1, 6, 256)}


def test_the_layout_that_programs_for_video_models_read(tmp_path):
    model = model_with(tmp_path / "m.safetensors", WAN)
    out, back = tmp_path / "out.gguf", tmp_path / "back.safetensors"
    report = aq_json("quantize", model, "-o", out, "--method", "q4_k_m")
    reader = gguf.GGUFReader(out)
    found = {t.name: (t.tensor_type.name, [int(d) for d in reversed(t.shape)]) for t in reader.tensors}
    assert found["patch_embedding.weight"] == ("F32", [256, 16, 1, 2, 2])
    assert found["blocks.0.ffn.2.weight"] == ("Q6_K", [256, 512])
    assert found["blocks.0.modulation"][0] == found["head.modulation"][0] == "F32"
    assert fields(reader)["general.architecture"] == "wan" and fields(reader)["general.file_type"] == 15
    assert sum(t["kept_reason"] is None for t in report["tensors"]) == 1
    aq("dequantize", out, "-o", back)
    assert load_safetensors(back)["patch_embedding.weight"].shape == (256, 16, 1, 2, 2)


def test_five_dimensions_elsewhere_are_folded(tmp_path):
    model = model_with(tmp_path / "m.safetensors", {"conv3d.weight": (2, 16, 3, 2, 2)})
    out = tmp_path / "out.gguf"
    aq("quantize", model, "-o", out, "--quiet")
    tensor, = gguf.GGUFReader(out).tensors
    assert [int(d) for d in reversed(tensor.shape)] == [32, 3, 2, 2]
    assert aq_json("inspect", out)["tensors"][0]["shape"] == [2, 16, 3, 2, 2]


def test_rows_that_are_no_multiple_of_32_become_f16(tmp_path):
    model = model_with(tmp_path / "m.safetensors", {"a.weight": (256, 100), "b.weight": (64, 96)})
    report = aq_json("quantize", model, "-o", tmp_path / "out.gguf", "--bits", 4)
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert kinds == {"a.weight": "F16", "b.weight": "Q4_1"}
    rows = {f["tensor"]: (f["from"], f["to"], f["reason"]) for f in report["fallbacks"]}
    assert rows["a.weight"] == ("Q4_K", "F16", "rows of 100 weights are no multiple of 32")
    assert rows["b.weight"] == ("Q4_K", "Q4_1", "rows of 96 weights are no multiple of 256")


def test_rules_name_types_and_widths(tmp_path):
    model = model_with(tmp_path / "m.safetensors", {f"{n}.weight": (64, 256) for n in "abcd"})
    aq("quantize", model, "-o", tmp_path / "out.gguf", "--quiet", "--tensor-type", "^a=q6_k", "--tensor-type", "^b=8",
       "--tensor-type", "^c=skip")
    kinds = [t.tensor_type.name for t in sorted(gguf.GGUFReader(tmp_path / "out.gguf").tensors, key=lambda t: t.name)]
    assert kinds == ["Q6_K", "Q8_0", "F32", "Q4_K"]


@pytest.mark.parametrize("options, word", [
    (["--method", "ls"], "ggml"), (["--rotation", "on"], "--rotation"), (["--tensor-type", "a=gptq:4:64"], "ggml"),
    (["--act-bits", "8"], "--act-bits"), (["--low-rank", "auto"], "--low-rank"), (["--target-bpw", "4"], "--target-bpw"),
    (["--smoothing", "auto"], "--smoothing")])
def test_what_has_no_place_is_a_usage_error(options, word, tmp_path):
    error = failure("quantize", DIGITS, "-o", tmp_path / "out.gguf", *options, status=2)
    assert word in error and not list(tmp_path.iterdir())


def test_smoothing_is_folded_or_left_out(tmp_path):
    report = aq_json("quantize", DIGITS, "-o", tmp_path / "out.gguf", "--calibration", DIGITS / "calib.safetensors",
                     "--smoothing", "smoothquant", "--fold-smoothing", "on")
    dropped = [f["tensor"] for f in report["fallbacks"] if (f["from"], f["to"]) == ("smoothing", "off")]
    assert dropped and "blocks.0.attn.qkv.weight" not in dropped


def test_a_long_name_is_refused_and_a_longer_than_usual_one_noted(tmp_path):
    model = model_with(tmp_path / "m.safetensors", {"n" * 100: (64, 256)})
    report = aq_json("quantize", model, "-o", tmp_path / "out.gguf")
    assert "1 longer names" in [f["to"] for f in report["fallbacks"]]
    model = model_with(tmp_path / "m.safetensors", {"n" * 128: (64, 256)})
    assert "127 bytes" in failure("quantize", model, "-o", tmp_path / "long.gguf", status=4)
    assert not (tmp_path / "long.gguf").exists()


def test_a_file_is_quantized_again_only_when_asked(tmp_path):
    first = tmp_path / "first.gguf"
    aq("quantize", DIGITS, "-o", first, "--bits", 8, "--quiet")
    assert "--allow-requantize" in failure("quantize", first, "-o", tmp_path / "again.gguf", status=3)
    report = aq_json("quantize", first, "-o", tmp_path / "again.parquet", "--bits", 4, "--allow-requantize")
    assert report["quantized"]["tensors"] > 0
    aq("quantize", first, "-o", tmp_path / "again.gguf", "--bits", 4, "--allow-requantize", "--quiet")
    direct = aq_json("quantize", DIGITS, "-o", tmp_path / "direct.gguf", "--bits", 4)
    error = aq_json("compare", DIGITS / "model.safetensors", tmp_path / "again.gguf")["global"]["relative_mse"]
    assert error < direct["weight"]["relative_mse_global"] * 1.05


def test_formats_hold_the_same_blocks(tmp_path):
    """Parquet holds blocks of ggml too, and both ways of converting give the same bytes."""
    files = {name: tmp_path / name for name in ("a.gguf", "b.parquet", "c.gguf", "d.arrow", "e.gguf")}
    aq("quantize", DIGITS, "-o", files["b.parquet"], "--method", "q5_1", "--quiet")
    aq("quantize", DIGITS, "-o", files["a.gguf"], "--method", "q5_1", "--quiet")
    aq("convert", files["b.parquet"], "-o", files["c.gguf"])
    aq("convert", files["a.gguf"], "-o", files["d.arrow"])
    aq("convert", files["d.arrow"], "-o", files["e.gguf"])
    of = {name: load_safetensors(tmp_path / f"{name}.safetensors") for name, file in files.items()
          if aq("dequantize", file, "-o", tmp_path / f"{name}.safetensors") is not None}
    for name in files:
        assert all(np.array_equal(of[name][k], v) for k, v in of["a.gguf"].items()), name
    tensors = [{t.name: bytes(t.data) for t in gguf.GGUFReader(files[f]).tensors} for f in ("a.gguf", "c.gguf", "e.gguf")]
    assert tensors[0] == tensors[1] == tensors[2]


@pytest.mark.parametrize("method", ["q4_0", "q5_1", "q2_k", "q4_k_m", "q6_k", "iq4_xs"])
def test_the_bytes_depend_on_nothing_else(method, student, tmp_path):
    out, digests = tmp_path / "out.gguf", set()
    for more, env in [(["--threads", "1"], {}), (["--threads", "3", "--streaming"], {"AQ_BLOCK_BYTES": "65536"}),
                      ([], {"AQ_SIMD": "scalar"}), ([], {"AQ_SIMD": "avx2"}), (["--memory-limit", "160MiB"], {})]:
        aq("quantize", student, "-o", out, "--method", method, "--force", "--quiet", *more, env=env)
        digests.add(digest(out))
    assert len(digests) == 1


STABLE_DIFFUSION_CPP = """
import sys, cyllama.sd as sd
done = sd.convert_model(sys.argv[1], sys.argv[2], sd.SDType.F32, vae_path=sys.argv[3], tensor_type_rules="^none$=f32",
                        convert_name=False)
sys.exit(not done)
"""


def flux(width):
    """Names and shapes of a FLUX of one block of each kind, as its authors publish it."""
    def linear(name, rows, cols):
        return {f"{name}.weight": (rows, cols), f"{name}.bias": (rows,)}
    shapes = {**linear("img_in", width, 64), **linear("txt_in", width, 512), **linear("final_layer.linear", 64, width)}
    for name, cols in {"time_in": 256, "vector_in": 64, "guidance_in": 256}.items():
        shapes |= linear(f"{name}.in_layer", width, cols) | linear(f"{name}.out_layer", width, width)
    for kind in ("img", "txt"):
        block = f"double_blocks.0.{kind}_"
        shapes |= linear(block + "mod.lin", 6 * width, width) | linear(block + "attn.qkv", 3 * width, width)
        shapes |= linear(block + "attn.proj", width, width) | linear(block + "mlp.0", 4 * width, width)
        shapes |= linear(block + "mlp.2", width, 4 * width) | {block + "attn.norm.query_norm.scale": (64,)}
    shapes |= linear("single_blocks.0.linear1", 7 * width, width) | linear("single_blocks.0.linear2", width, 5 * width)
    return shapes | linear("single_blocks.0.modulation.lin", 3 * width, width)


@pytest.mark.parametrize("method", ["q4_k_m", "q2_k", "q8_0", "iq4_xs"])
def test_stable_diffusion_cpp_loads_what_we_write(method, tmp_path):
    """With the package cyllama, which carries stable-diffusion.cpp and has wheels for Linux alone."""
    pytest.importorskip("cyllama")
    model, vae = model_with(tmp_path / "m.safetensors", flux(256)), model_with(tmp_path / "vae.safetensors", {"v": (4, 4)})
    out, theirs, back = (tmp_path / name for name in ("out.gguf", "theirs.gguf", "back.safetensors"))
    aq("quantize", model, "-o", out, "--method", method, "--quiet")
    aq("dequantize", out, "-o", back)
    argv = [sys.executable, "-c", STABLE_DIFFUSION_CPP, out, theirs, vae]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = load_safetensors(back)
    found = {t.name: np.asarray(t.data) for t in gguf.GGUFReader(theirs).tensors}
    for name, values in expected.items():
        assert np.array_equal(bits(found[name]).ravel(), bits(values).ravel()), name
