"""Whole models: the example model, and those of diffusers with random weights."""
import json

import pytest
import torch
from conftest import error
from safetensors.torch import save_file
from small_dit import DiT, sample
from torch import nn

import arrow_quant as aq
import arrow_quant.torch as aqt
from arrow_quant.torch._weight import hadamard


def noise(count=20):
    return torch.arange(count) % 10, torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", [{"bits": 4}, {"bits": 4, "rotation": True}, {"rate": 3.0}], ids=str)
def test_a_quantized_dit_samples_like_its_dequantized_weights(digits, tmp_path, options):
    aq.quantize(digits, tmp_path / "q.parquet", group_size=64, **options)
    plain, quantized = DiT(digits), DiT(digits)
    state = aq.open(tmp_path / "q.parquet").state_dict("torch", "float32")
    plain.load_state_dict(state)
    report = aqt.load_into(quantized, tmp_path / "q.parquet")
    assert not report.missing and not report.unexpected and len(report.quantized) == 25
    labels, start = noise()
    x, t = torch.randn(20, 1, 12, 12), torch.full((20,), 300)
    with torch.no_grad():
        assert error(quantized(x, t, labels), plain(x, t, labels)) < 1e-3
    assert error(sample(quantized, labels, start, 20), sample(plain, labels, start, 20)) < 1e-3


def test_a_4_bit_model_takes_less_than_three_tenths_of_its_bf16_memory(digits, tmp_path):
    aq.quantize(digits, tmp_path / "q.parquet", bits=4, group_size=64)
    model = DiT(digits).bfloat16()
    before = {name: aqt.memory_bytes(m) for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    aqt.load_into(model, tmp_path / "q.parquet")
    quantized = {name: m for name, m in model.named_modules() if isinstance(m, aqt.QuantLinear)}
    after = sum(aqt.memory_bytes(m) for m in quantized.values())
    assert len(quantized) == 25
    assert after <= 0.30 * sum(before[name] for name in quantized)


def test_calibration_of_the_example_model_is_taken_by_quantize(digits, tmp_path):
    model = DiT(digits)
    model.load_state_dict(aq.open(digits / "model.safetensors").state_dict("torch", "float32"))
    labels, start = noise()
    run = lambda m: sample(m, labels, start, 20)
    made = aqt.calibrate(model, run, out=tmp_path / "calib.safetensors", layers=r"^blocks\.", rows=48)
    assert len(made.timesteps) == 10 and len(made.rows) + len(made.aliases) == 25
    assert made.aliases == {f"blocks.{i}.adaLN_modulation.1": "blocks.0.adaLN_modulation.1" for i in range(1, 5)}
    report = aq.quantize(digits, tmp_path / "q.parquet", bits=4, calibration=tmp_path / "calib.safetensors")
    errors = [t["output_error"] for t in report["tensors"] if t["method"]]
    assert len(errors) == 25 and all(0 < e < 0.05 for e in errors)


def reference(digits, path):
    """The dequantized model, whose layers round their inputs in floating point as the file says."""
    stored, model = aq.open(path), DiT(digits)
    model.load_state_dict(stored.state_dict("torch", "float32"))

    def hook(name, plan):
        side = stored[f"{name}.weight"].side
        s = torch.from_numpy(side["smoothing"].astype("f4")) if "smoothing" in side else torch.ones(1)

        def change(module, args):
            x = args[0] / s
            if "rotation" not in side:
                return (plan.fake(x.reshape(-1, x.shape[-1])).reshape(x.shape) * s,)
            block, signs = side["rotation"][0], torch.from_numpy(side["rotation"][1])
            rotated = hadamard(x * signs, block)
            rounded = plan.fake(rotated.reshape(-1, x.shape[-1])).reshape(x.shape)
            return (hadamard(rounded, block) * signs * s,)

        return change

    for name, plan in aqt.read_activations(stored.metadata).items():
        model.get_submodule(name).register_forward_pre_hook(hook(name, plan))
    return model


@pytest.mark.parametrize("options", [
    {"act_mode": "token"},
    {"act_mode": "static", "group_size": 128},
    {"act_mode": "groups", "time_groups": 5, "method": "entropy"},
    {"act_mode": "token", "act_group_size": 32, "act_bits": 4, "bits": 8},
    {"act_mode": "groups", "smoothing": "0.5"},
    {"act_mode": "token", "rotation": True, "method": "trellis"},
], ids=str)
def test_quantized_inputs_of_the_example_model(digits, tmp_path, options):
    given = {"bits": 4, "group_size": 64, "act_bits": 8, "method": "ls", "calibration": digits / "calib.safetensors", **options}
    aq.quantize(digits, tmp_path / "q.parquet", **given)
    model, truth = DiT(digits), reference(digits, tmp_path / "q.parquet")
    report = aqt.load_into(model, tmp_path / "q.parquet")
    assert len(report.activations) == 25 and not report.missing
    x, labels = torch.randn(20, 1, 12, 12), torch.arange(20) % 10
    for time in (30, 480, 970):
        # The module finds the time itself, the reference is told.
        t = torch.full((20,), time)
        with torch.no_grad(), aqt.timestep(time):
            want = truth(x, t, labels)
        with torch.no_grad():
            got = model(x, t, labels)
        # Where products differ in the last bits, an input may fall on the other side of a tie. Weights of other codecs than `affine` are held
        # in bfloat16, which rounds them.
        affine = given["method"] == "ls"
        assert error(got, want) < (2e-2 if given["act_bits"] == 4 else 2e-3 if affine else 1e-2)


def quantize_and_load(model, make, run, folder):
    """Calibrates and quantizes `model`, and loads the result into a fresh one."""
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    made = aqt.calibrate(model, run, out=folder / "calib.safetensors", rows=16, timesteps=(0, 1000, 5))
    report = aq.quantize(
        folder / "model.safetensors", folder / "q.parquet", bits=8, method="ls", calibration=folder / "calib.safetensors"
    )
    fresh = make()
    loaded = aqt.load_into(fresh, folder / "q.parquet")
    assert not loaded.missing and not loaded.unexpected and loaded.quantized
    assert sum(t["method"] is not None for t in report["tensors"]) == len(loaded.quantized)
    return fresh, loaded, made


def test_a_diffusers_transformer(tmp_path):
    from diffusers import DiTTransformer2DModel

    config = dict(num_attention_heads=4, attention_head_dim=16, in_channels=4, num_layers=2, sample_size=8, num_embeds_ada_norm=11)
    make = lambda: DiTTransformer2DModel(**config).eval()
    model, x, labels = make(), torch.randn(2, 4, 8, 8), torch.tensor([1, 2])

    def run(m):
        for t in (999, 700, 400, 100):
            m(x, timestep=torch.tensor([t, t]), class_labels=labels)

    quantized, loaded, made = quantize_and_load(model, make, run, tmp_path)
    assert made.aliases["transformer_blocks.0.attn1.to_k"] == "transformer_blocks.0.attn1.to_q"
    assert len(made.timesteps) == 4
    plain = make()
    plain.load_state_dict(aq.open(tmp_path / "q.parquet").state_dict("torch", "float32"))
    given = dict(timestep=torch.tensor([500, 500]), class_labels=labels)
    with torch.no_grad():
        y, want, truth = (m(x, **given).sample for m in (quantized, plain, model))
    assert error(y, want) < 1e-3
    assert error(y, truth) < 0.02


def test_a_diffusers_unet(tmp_path):
    from diffusers import UNet2DModel

    config = dict(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    make = lambda: UNet2DModel(**config).eval()
    model, x = make(), torch.randn(2, 3, 16, 16)

    def run(m):
        for t in (999, 500, 10):
            m(x, t)

    quantized, loaded, made = quantize_and_load(model, make, run, tmp_path)
    kinds = {type(m).__name__ for m in quantized.modules()}
    assert {"QuantLinear", "QuantConv2d"} <= kinds
    plain = make()
    plain.load_state_dict(aq.open(tmp_path / "q.parquet").state_dict("torch", "float32"))
    with torch.no_grad():
        y, want, truth = (m(x, 300).sample for m in (quantized, plain, model))
    assert error(y, want) < 1e-3
    assert error(y, truth) < 0.02


class Timed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.inner = nn.Conv2d(4, 32, 3, padding=1), nn.Linear(32, 64)

    def forward(self, x, timestep):
        return self.inner(self.conv(x).movedim(1, -1))


@pytest.mark.parametrize("plan", [
    {"mode": "token"},
    {"mode": "groups", "boundaries": [500.0], "low": [-0.5, -4.0], "high": [0.5, 4.0]},
], ids=["token", "groups"])
def test_inputs_are_quantized_as_the_file_says(tmp_path, plan):
    """The key-value is put into a file with pyarrow; the module's own forward says the time."""
    import pyarrow.parquet as pq

    model = Timed()
    save_file(dict(model.state_dict()), tmp_path / "m.safetensors")
    rules = ["conv.weight=ls:8:0", "inner.weight=ls:8:32"]
    aq.quantize(tmp_path / "m.safetensors", tmp_path / "q.parquet", tensor_type=rules)
    layers = {name: {"bits": 8, **plan} for name in ("conv", "inner")}
    table = pq.read_table(tmp_path / "q.parquet")
    text = json.dumps({"schema": "aq.activations/1", "time": "t", "layers": layers})
    metadata = pq.read_metadata(tmp_path / "q.parquet").metadata
    table = table.replace_schema_metadata({**metadata, b"aq.activations": text.encode()})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="zstd")
    report = aqt.load_into(model, tmp_path / "a.parquet")
    assert report.activations == ["conv", "inner"]
    state, activations = aq.open(tmp_path / "q.parquet").state_dict("torch", "float32"), aqt.Activations(8, **plan)
    x = torch.randn(2, 4, 6, 6)
    for t in (100, 900):
        with aqt.timestep(t), torch.no_grad():
            patches = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 36)
            inner = activations.fake(patches) @ state["conv.weight"].flatten(1).T + state["conv.bias"]
            want = activations.fake(inner) @ state["inner.weight"].T + state["inner.bias"]
        y = model(x, torch.tensor([t, t]))
        assert error(y, want.reshape(y.shape)) < 1e-3
