"""The backend in diffusers: loading, saving, and what its loader does to tensors on the way."""
import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import error
from diffusers import DiTPipeline, DiTTransformer2DModel, DiffusionPipeline, PipelineQuantizationConfig
from diffusers.quantizers import auto
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_diffusers import INPUTS, dit, output, pipeline, unet, vae
from torch import nn

import arrow_quant as aq
import arrow_quant.diffusers as aqd
import arrow_quant.torch as aqt


def layers(model):
    """The quantized layers by name."""
    kinds = (aqt.QuantLinear, aqt.QuantConv1d, aqt.QuantConv2d, aqt.QuantConv3d)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def packed(model):
    """The buffers of quantized layers."""
    return {name: value for name, value in model.state_dict().items() if ".packed." in name}


def same(a, b):
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of each plain model."""
    path = tmp_path_factory.mktemp("plain")
    torch.manual_seed(0)
    for make in (dit, unet, vae):
        make().save_pretrained(path / make.__name__)
    return path


def load(folder, make, dtype=torch.float32, **options):
    config = aqd.ArrowQuantConfig(**{"bits": 4, "group_size": 32, **options})
    return type(make()).from_pretrained(folder / make.__name__, quantization_config=config, torch_dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("make", [dit, unet, vae])
def test_models_round_trip(folder, tmp_path, make, dtype):
    model = load(folder, make, dtype)
    assert len(layers(model)) > 10
    model.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved", torch_dtype=dtype)
    assert same(packed(model), packed(again)) and layers(model).keys() == layers(again).keys()
    assert same(model.state_dict(), again.state_dict())
    assert torch.equal(output(model, make), output(again, make))
    # The same products in another order: the difference is that of rounding.
    limit = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]
    want = output(again.dequantize(), make)
    assert error(output(model, make), want) < limit
    assert not layers(again) and 0.001 < error(want.float(), output(type(model).from_pretrained(folder / make.__name__), make)) < 0.5


def test_the_dequantized_model_is_the_same_to_the_bit_where_weights_are_decoded(folder):
    """From 9 tokens on weights are decoded for a product of torch: that of the dequantized model."""
    model = load(folder, dit)
    name, layer = next(iter(layers(model).items()))
    x = torch.randn(40, layer.in_features)
    got = layer(x)
    model.dequantize()
    assert torch.equal(got, model.get_submodule(name)(x))


def test_codes_are_those_of_the_command(folder, tmp_path):
    aq.quantize(folder / "dit", tmp_path / "q.parquet", bits=3, group_size=32, method="ls")
    file, model = aq.open(tmp_path / "q.parquet"), load(folder, dit, bits=3)
    names = {name for name, tensor in file.items() if tensor.is_quantized}
    assert names == {f"{name}.weight" for name in layers(model)}
    for name, layer in layers(model).items():
        tensor = file[f"{name}.weight"]
        assert layer.packed.codes.numpy().tobytes() == tensor.codes.tobytes()
        assert layer.packed.scales.numpy().tobytes() == tensor.scales.tobytes()


def test_weights_are_quantized_before_they_are_rounded(folder):
    """The loader rounds every tensor to the type of the model before the backend sees it."""
    assert same(packed(load(folder, dit, torch.float32)), packed(load(folder, dit, torch.bfloat16)))


def test_scales_are_not_rounded_to_the_type_of_the_model(folder, tmp_path):
    model = load(folder, dit, torch.float32)
    model.save_pretrained(tmp_path / "saved")
    stored = load_file(tmp_path / "saved" / "diffusion_pytorch_model.safetensors")
    for dtype in (torch.bfloat16, torch.float16, None):
        again = DiTTransformer2DModel.from_pretrained(tmp_path / "saved", torch_dtype=dtype)
        assert same({k: v for k, v in stored.items() if ".packed." in k}, packed(again))
        assert {p.dtype for p in again.parameters()} == {dtype or torch.float32}
    scales = [value for name, value in stored.items() if name.endswith(".scales")]
    assert all(value.dtype == torch.int16 for value in scales)
    assert any(not torch.equal(half, half.bfloat16().half()) for half in (value.view(torch.float16) for value in scales))
    # Nor by a cast of all floating-point tensors.
    nn.Module.to(again, torch.bfloat16)
    assert same(packed(model), packed(again))


def test_what_is_kept(folder):
    kept = set(dict(dit().named_modules())) - set(layers(load(folder, dit)))
    assert {"proj_out_1", "proj_out_2", "pos_embed.proj"} <= kept
    assert "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1" in kept
    names = layers(load(folder, dit, modules_to_not_convert=["attn1", "transformer_blocks.1.ff"]))
    assert not any("attn1" in name or name.startswith("transformer_blocks.1.ff") for name in names)
    assert "transformer_blocks.0.ff.net.0.proj" in names
    rules = [r"to_q=8", r"\.ff\.=skip"]
    model = load(folder, dit, tensor_type=rules)
    found = {name: layer.packed.bits for name, layer in layers(model).items()}
    assert found["transformer_blocks.0.attn1.to_q"] == 8 and found["transformer_blocks.0.attn1.to_k"] == 4
    assert not any(".ff." in name for name in found)


@pytest.mark.parametrize("options", [
    {"method": "minmax"}, {"method": "hqq", "bits": 2}, {"bits": 8, "group_size": 0}, {"rotation": True, "low_rank": 4},
    {"tensor_type": ["to_q=8", r"attn1\.to_out=minmax:2:16"]}, {"act_bits": 8, "bits": 8}, {"bits": 5}, {"bits": 6},
], ids=str)
def test_every_form_survives(folder, tmp_path, options):
    model = load(folder, dit, **options)
    model.save_pretrained(tmp_path / "saved", max_shard_size="50KB")
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 2
    again = DiTTransformer2DModel.from_pretrained(tmp_path / "saved")
    assert same(packed(model), packed(again))
    assert torch.equal(output(model, dit), output(again, dit))
    assert [layer.activations for layer in layers(model).values()] == [layer.activations for layer in layers(again).values()]
    if "act_bits" not in options:
        assert error(output(again, dit), output(model.dequantize(), dit)) < 1e-5


def test_what_the_files_say(folder, tmp_path):
    model = load(folder, dit, bits=3, tensor_type=["to_q=8"])
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["version"], config["bits"]) == ("arrow_quant", 1, 3)
    assert config["layers"]["transformer_blocks.0.attn1.to_q"] == {"bits": 8, "shape": [64, 64]}
    assert config["layers"]["transformer_blocks.0.attn1.to_k"] == {"shape": [64, 64]}
    with safe_open(tmp_path / "diffusion_pytorch_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "aq.layout": "1"}
        names = set(file.keys())
    layer = "transformer_blocks.0.attn1.to_q"
    assert {n for n in names if n.startswith(layer + ".")} == {f"{layer}.{n}" for n in ("bias", "packed.codes", "packed.scales", "packed.offsets")}


def test_a_dequantized_model_is_saved_as_a_plain_one(folder, tmp_path):
    model = load(folder, dit)
    model.dequantize()
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    plain = DiTTransformer2DModel.from_pretrained(tmp_path)
    assert same(model.state_dict(), plain.state_dict())
    model.to(torch.bfloat16)


def test_one_configuration_serves_several_models(folder):
    config = aqd.ArrowQuantConfig(bits=4, group_size=32)
    first = DiTTransformer2DModel.from_pretrained(folder / "dit", quantization_config=config)
    second = type(vae()).from_pretrained(folder / "vae", quantization_config=config)
    assert not config.layers
    assert first.config.quantization_config.layers.keys() == layers(first).keys()
    assert second.config.quantization_config.layers.keys() == layers(second).keys()


def test_the_checkpoint_goes_before_the_argument(folder, tmp_path):
    load(folder, dit, bits=3).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="already has a `quantization_config`"):
        again = DiTTransformer2DModel.from_pretrained(tmp_path, quantization_config=aqd.ArrowQuantConfig(bits=8))
    assert {layer.packed.bits for layer in layers(again).values()} == {3}


def test_a_device_map(folder):
    for device_map in ("auto", {"": "cpu"}):
        config = aqd.ArrowQuantConfig(bits=4, group_size=32)
        model = type(unet()).from_pretrained(folder / "unet", quantization_config=config, device_map=device_map)
        assert same(packed(model), packed(load(folder, unet)))


def test_low_cpu_mem_usage_cannot_be_off(folder):
    with pytest.raises(ValueError, match="low_cpu_mem_usage"):
        config = aqd.ArrowQuantConfig()
        DiTTransformer2DModel.from_pretrained(folder / "dit", quantization_config=config, low_cpu_mem_usage=False)


def test_pipelines(tmp_path):
    pipe = pipeline()
    pipe.save_pretrained(tmp_path / "plain")
    config = PipelineQuantizationConfig(quant_mapping={
        "transformer": aqd.ArrowQuantConfig(bits=4, group_size=32), "vae": aqd.ArrowQuantConfig(bits=8, group_size=32),
    })
    small = DiTPipeline.from_pretrained(tmp_path / "plain", quantization_config=config)
    assert len(layers(small.transformer)) > 10 and {m.packed.bits for m in layers(small.vae).values()} == {8}
    small.save_pretrained(tmp_path / "small")
    again = DiffusionPipeline.from_pretrained(tmp_path / "small")
    assert isinstance(again, DiTPipeline)
    assert same(packed(small.transformer), packed(again.transformer)) and same(packed(small.vae), packed(again.vae))

    def sample(pipe):
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        return torch.from_numpy(pipe([1], generator=generator, num_inference_steps=3, output_type="np").images)

    images = sample(again)
    assert torch.equal(images, sample(small))
    again.transformer.dequantize()
    again.vae.dequantize()
    assert error(images, sample(again)) < 1e-4


def test_a_broken_checkpoint_is_refused(folder, tmp_path):
    model = load(folder, dit)
    model.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()

    def change(what, **values):
        config = json.loads(text)
        config["quantization_config"] |= values
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises((aq.AqError, ValueError), match=what):
            DiTTransformer2DModel.from_pretrained(tmp_path)

    change("version", version=2)
    change("no layer 'nobody'", layers={"nobody": {}})
    change("cannot be packed", layers={"transformer_blocks.0.attn1.to_q": {"bits": 7}})
    change("cannot be packed", layers={"transformer_blocks.0.attn1.to_q": {"colour": 7}})
    change("expected shape", layers={"transformer_blocks.0.attn1.to_q": {"bits": 8}})
    change("has shape", layers={"transformer_blocks.0.attn1.to_q": {"shape": [32, 128]}})
    change("has no weight", layers={"transformer_blocks.0.norm1.norm": {}})


def test_packed_weights_of_other_modules_are_decoded(folder, tmp_path):
    name = "transformer_blocks.0.norm1.emb.class_embedder.embedding_table"
    model = load(folder, dit)
    model.save_pretrained(tmp_path)
    file, config = tmp_path / "diffusion_pytorch_model.safetensors", json.loads((tmp_path / "config.json").read_text())
    tensors = load_file(file)
    stored = aq.quantize_array(tensors.pop(f"{name}.weight"), bits=4, group_size=32, method="ls")
    weight = aqt.PackedWeight(stored)
    tensors |= {f"{name}.packed.{part}": value for part, value in weight.state_dict().items()}
    save_file(tensors, file, {"format": "pt"})
    config["quantization_config"]["layers"][name] = weight.form.to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config))
    again, info = DiTTransformer2DModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.equal(again.get_submodule(name).weight, torch.from_numpy(stored.dequantize()))
    assert same(packed(model), packed(again)) and name not in again.config.quantization_config.layers


def test_what_a_configuration_refuses(folder):
    for match, options in [
        ("unknown option 'bit'", {"bit": 4}), ("act_bits", {"act_bits": 5}), ("7", {"bits": 7}),
        ("gptq", {"method": "gptq"}), ("entropy", {"method": "entropy"}), ("unknown method", {"method": "best"}),
    ]:
        with pytest.raises(aq.ConfigError, match=match):
            load(folder, dit, **options)
    weights = load_file(folder / "dit" / "diffusion_pytorch_model.safetensors")
    weights["transformer_blocks.0.attn1.to_q.weight"][2, 3] = float("nan")
    bad = folder / "bad"
    bad.mkdir(exist_ok=True)
    save_file(weights, bad / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    (bad / "config.json").write_text((folder / "dit" / "config.json").read_text())
    with pytest.raises(aq.InputError, match="to_q.weight.*row 2, column 3"):
        DiTTransformer2DModel.from_pretrained(bad, quantization_config=aqd.ArrowQuantConfig())


@pytest.mark.parametrize("options", [
    {"method": "ls"}, {"method": "minmax", "rotation": True, "low_rank": 4},
    {"method": "gptq", "calibration": True, "act_bits": 8, "act_mode": "groups", "time_groups": 2},
    {"method": "ls", "calibration": True, "smoothing": "0.5"},
], ids=str)
def test_a_quantized_file_as_a_folder(folder, tmp_path, options):
    model, inputs = DiTTransformer2DModel.from_pretrained(folder / "dit"), INPUTS[dit]
    if options.get("calibration"):
        options = {**options, "calibration": tmp_path / "calib.safetensors"}
        run = lambda m: [m(**{**inputs, "timestep": torch.tensor([t, t])}) for t in (900, 500, 100)]
        aqt.calibrate(model, run, out=options["calibration"], rows=64, timesteps=(0, 1000, 5))
    aq.quantize(folder / "dit", tmp_path / "q.parquet", bits=4, group_size=32, **options)
    aqd.pack(tmp_path / "q.parquet", folder / "dit", tmp_path / "out", max_shard_size="40KB")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 5
    small, info = DiTTransformer2DModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    file, other = aq.open(tmp_path / "q.parquet"), dit()
    aqt.load_into(other, tmp_path / "q.parquet")
    assert torch.equal(output(small, dit), output(other, dit))
    assert error(output(small, dit), output(model, dit)) < 0.05
    for name, layer in layers(small).items():
        assert layer.packed.codes.numpy().tobytes() == file[f"{name}.weight"].codes.tobytes()


def test_what_cannot_be_packed(folder, tmp_path):
    aq.quantize(folder / "dit", tmp_path / "q.parquet", bits=3, method="trellis")
    aq.quantize(folder / "dit", tmp_path / "ls.parquet", bits=3, method="ls")
    for kind, match, file, model, out in [
        (aq.InputError, "trellis has no packed layout", "q.parquet", folder / "dit", "out"),
        (aq.InputError, "config.json", "ls.parquet", tmp_path, "out"),
        (aq.AqError, "exists", "ls.parquet", folder / "dit", "q.parquet"),
    ]:
        with pytest.raises(kind, match=match):
            aqd.pack(tmp_path / file, model, tmp_path / out)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["ls.parquet", "q.parquet"]


@pytest.mark.parametrize("options", [
    {}, {"bits": 8, "group_size": 0, "method": "minmax"}, {"bits": 2, "method": "hqq"}, {"rotation": True, "low_rank": 4}, {"act_bits": 8},
    {"method": "int8", "bits": 8},
], ids=str)
@pytest.mark.parametrize("make", [dit, unet, vae])
def test_a_folder_of_the_command(folder, tmp_path, make, options):
    """`aq quantize --format diffusers` is this call: its folder loads with no argument, as what `pack` writes of the same codes."""
    model = type(make()).from_pretrained(folder / make.__name__)
    report = aq.quantize(folder / make.__name__, tmp_path / "out", format="diffusers", shard_size="60KB", **options)
    small, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["error_msgs"]
    quantized = {t["name"] for t in report["tensors"] if t["kept_reason"] is None}
    assert quantized == {f"{name}.weight" for name in layers(small)}
    assert any(layer.packed.shape[2:] == (3, 3) for layer in layers(small).values()) == (make is not dit)
    got = output(small, make)
    assert options.get("bits") == 2 or error(got, output(model, make)) < 0.5
    aq.quantize(folder / make.__name__, tmp_path / "q.parquet", **{"method": "ls", **options})
    aqd.pack(tmp_path / "q.parquet", folder / make.__name__, tmp_path / "packed")
    again = type(model).from_pretrained(tmp_path / "packed")
    assert same(small.state_dict(), again.state_dict()) and torch.equal(output(small, make), output(again, make))
    assert small.config.quantization_config.to_dict()["layers"] == again.config.quantization_config.to_dict()["layers"]
    # What diffusers saves of it our own readers take, shapes of convolutions included.
    small.save_pretrained(tmp_path / "saved")
    stored, saved = aq.open(tmp_path / "q.parquet"), aq.open(tmp_path / "saved")
    assert saved.keys() == stored.keys() == aq.open(tmp_path / "out").keys()
    for name in quantized:
        assert saved[name].shape == stored[name].shape and saved[name].codec == stored[name].codec
        assert (saved[name].dequantize() == stored[name].dequantize()).all()
    plain = small.dequantize()
    assert "act_bits" in options or error(got, output(plain, make)) < 1e-4
    assert all(torch.allclose(plain.get_submodule(name.removesuffix(".weight")).weight, torch.from_numpy(stored[name].dequantize()), atol=1e-6)
               for name in quantized)


def test_a_pipeline_of_the_command(tmp_path):
    pipeline().save_pretrained(tmp_path / "plain")
    aq.quantize(tmp_path / "plain", tmp_path / "small", format="diffusers", component=["transformer", "vae"], group_size=32)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "small")
    assert len(layers(pipe.transformer)) > 10 and len(layers(pipe.vae)) > 5
    pipe.set_progress_bar_config(disable=True)
    images = pipe([1], generator=torch.Generator().manual_seed(0), num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 16, 16, 3) and (images == images).all()


def test_registration():
    assert auto.AUTO_QUANTIZER_MAPPING["arrow_quant"] is aqd.ArrowQuantizer
    code = "import arrow_quant.diffusers; from diffusers.quantizers import auto; print('arrow_quant' in auto.AUTO_QUANTIZER_MAPPING)"
    environment = {**os.environ, "ARROW_QUANT_REGISTER_DIFFUSERS": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_the_import_diffusers_says_what_is_missing(folder, tmp_path):
    load(folder, dit).save_pretrained(tmp_path)
    code = "import sys; from diffusers import DiTTransformer2DModel as M; M.from_pretrained(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode and "Unknown quantization type, got arrow_quant" in done.stderr


MEASURED = """
import re, sys, torch
import arrow_quant.diffusers as aqd
from diffusers import DiTTransformer2DModel
path, how = sys.argv[1:]
def memory(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
given = {"quantization_config": aqd.ArrowQuantConfig(bits=4)} if how == "quantize" else {}
model = DiTTransformer2DModel.from_pretrained(path, torch_dtype=torch.bfloat16, **given)
print(memory("VmHWM") - before, model.get_memory_footprint())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it")
def test_a_packed_model_takes_little_memory_to_load(tmp_path):
    """Shards are 25 MB, of 166 MB in f32: less is needed than for the plain model in bfloat16."""
    config = dict(num_attention_heads=8, attention_head_dim=64, in_channels=4, num_layers=8, sample_size=8, num_embeds_ada_norm=11)
    model = DiTTransformer2DModel(**config)
    size = model.get_memory_footprint()
    model.save_pretrained(tmp_path / "plain", max_shard_size="25MB")
    used = {}
    for how in ("plain", "quantize"):
        argv = [sys.executable, "-c", MEASURED, str(tmp_path / "plain"), how]
        used[how], held = map(int, subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())
    print(f"f32 {size / 1e6:.0f} MB; held {held / 1e6:.0f} MB; peak over imports: {used}")
    assert held < 0.25 * size
    assert used["quantize"] < used["plain"] < size
