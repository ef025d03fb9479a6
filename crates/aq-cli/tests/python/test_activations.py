"""`aq.activations` against a numpy quantizer written from docs/format.md: what is stored, and the errors that the report claims."""
import base64
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import DIGITS, aq, aq_json
from small_models import load_safetensors, save_safetensors

MODEL, SAMPLES = DIGITS / "model.safetensors", DIGITS / "calib.safetensors"


def quantize_values(x, low, high, bits):
    """Every operation in f32; `low` and `high` broadcast over `x`."""
    levels = np.float32(2 ** bits - 1)
    low, high = np.minimum(np.float32(low), 0), np.maximum(np.float32(high), 0)
    scale = (high - low) / levels
    safe = np.where(scale > 0, scale, np.float32(1))
    zero = np.clip(np.rint(-low / safe), 0, levels)
    code = np.clip(np.rint(x / safe) + zero, 0, levels)
    return np.where(scale > 0, (code - zero) * scale, np.float32(0))


def apply_plan(plan, x, times):
    """`x` is [T, N, in] f32: what its values become."""
    group = np.searchsorted(plan.get("boundaries", []), times, side="right")
    if "shift" in plan:
        shift = np.array([shifted(s) for s in plan["shift"]])[group if len(plan["shift"]) > 1 else group * 0][:, None]
        return apply_plan({key: value for key, value in plan.items() if key != "shift"}, x - shift, times) + shift
    if plan["mode"] != "token":
        ends = [np.array(plan[end], np.float32)[group][:, None, None] for end in ("low", "high")]
        return quantize_values(x, *ends, plan["bits"])
    clip = np.array(plan.get("clip", [1.0] * (len(plan.get("boundaries", [])) + 1)), np.float32)[group][:, None, None]
    size = plan["group_size"] or x.shape[-1]
    parts = [x[..., i:i + size] for i in range(0, x.shape[-1], size)]
    ends = lambda part: (np.minimum(part.min(-1, keepdims=True), 0) * clip, np.maximum(part.max(-1, keepdims=True), 0) * clip)
    return np.concatenate([quantize_values(part, *ends(part), plan["bits"]) for part in parts], -1)


def shifted(shift):
    """What is taken off each channel."""
    return np.frombuffer(base64.b64decode(shift["codes"]), np.int8).astype(np.float32) * np.float32(shift["scale"])


def relative_error(x, q, weight):
    norms = (weight.astype(np.float64).reshape(len(weight), -1) ** 2).sum(0)
    x, q = x.astype(np.float64), q.astype(np.float64)
    return (norms * (x - q) ** 2).sum() / (norms * x ** 2).sum()


def stored(path):
    return json.loads(pq.read_metadata(path).metadata[b"aq.activations"])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("mode", ["static", "groups", "token"])
@pytest.mark.parametrize("shift", [True, False], ids=["shifted", "not shifted"])
def test_reported_errors_are_those_of_the_stored_plan(tmp_path, mode, bits, shift):
    out = tmp_path / "out.parquet"
    options = ["--method", "minmax", "--act-bits", bits, "--act-mode", mode, "--time-groups", 5, "--smoothing", "off"]
    options += [] if shift else ["--act-shift", "off"]
    report = aq_json("quantize", MODEL, "-o", out, "--calibration", SAMPLES, *options)
    settings = {"bits": bits, "mode": mode, "group_size": 0, "time_groups": 5, "shift": shift}
    assert report["settings"]["activations"] == settings
    whole, weights, samples = stored(out), load_safetensors(MODEL), load_safetensors(SAMPLES)
    assert (whole["schema"], whole["time"]) == ("aq.activations/1", "t")
    measured, is_shifted, times = 0, 0, samples["timesteps"].astype(np.float64)
    for tensor in report["tensors"]:
        told = tensor.get("activations")
        assert (told is not None) == (tensor["kept_reason"] is None)
        if told is None or told["error"] is None:
            continue
        layer = tensor["name"].removesuffix(".weight")
        plan, x = whole["layers"][layer], samples[layer].astype(np.float32)
        assert (plan["bits"], plan["mode"]) == (told["bits"], told["mode"])
        assert told["groups"] == len(plan.get("boundaries", [])) + 1 <= 5
        error = relative_error(x, apply_plan(plan, x, times), weights[tensor["name"]])
        assert error == pytest.approx(told["error"][plan["mode"]], rel=1e-3), layer
        assert told["error"]["groups"] <= told["error"]["uniform"] * (1 + 1e-9)
        assert told["error"]["groups"] <= told["error"]["static"] * (1 + 1e-9)
        assert told["reason"]
        assert told["shifts"] == len(plan.get("shift", [])) in ([0, 1, told["groups"]] if shift else [0])
        assert told["error"][plan["mode"]] <= told["error"]["unshifted"] * (1 if shift else 1 + 1e-12)
        is_shifted += bool(told["shifts"])
        measured += 1
    assert measured >= 16
    assert (is_shifted > measured / 2) == shift
    mean = report["activation_error"]
    print(f"{bits} bits, mean over layers: " + ", ".join(f"{k} {v:.3e}" for k, v in mean.items()))
    assert mean["token"] < mean["groups"] < mean["static"], "as the notes on this model say"


def test_a_layer_that_grows_sixteenfold_gains_fivefold_by_ten_groups(tmp_path):
    random = np.random.default_rng(3)
    growth = 16.0 ** np.linspace(0, 1, 20) ** 2
    samples = (random.uniform(-1, 1, (20, 32, 256)) * growth[:, None, None]).astype(np.float16)
    weight = random.normal(size=(512, 256)).astype(np.float32)
    save_safetensors(tmp_path / "model.safetensors", {"blocks.0.fc.weight": weight})
    times = np.linspace(999, 0, 20).astype(np.float32)
    tensors = {"blocks.0.fc": samples, "timesteps": times}
    save_safetensors(tmp_path / "samples.safetensors", tensors, meta={"aq.time": "sigma"})
    out = tmp_path / "out.parquet"
    options = ["--calibration", tmp_path / "samples.safetensors", "--act-bits", 8, "--act-mode", "groups"]
    told = aq_json("quantize", tmp_path / "model.safetensors", "-o", out, *options)["tensors"][0]["activations"]
    assert (told["mode"], told["groups"]) == ("groups", 10)
    plan = stored(out)["layers"]["blocks.0.fc"]
    assert stored(out)["time"] == "sigma"
    x = samples.astype(np.float32)
    static = quantize_values(x, x.min(), x.max(), 8)
    errors = [relative_error(x, q, weight) for q in (apply_plan(plan, x, times), static)]
    assert errors[0] * 5 < errors[1]
    assert told["error"]["groups"] * 5 < told["error"]["static"]


def test_options_are_checked_and_what_has_no_effect_is_told(tmp_path):
    out = tmp_path / "out.parquet"
    for wrong in (["--act-bits", "5"], ["--act-bits", "8", "--act-mode", "often"], ["--act-bits", "8", "--time-groups", "0"]):
        aq("quantize", MODEL, "-o", out, *wrong, status=4)
    config = tmp_path / "aq.yaml"
    config.write_text("num_time_groups: 10\nenable_time_aware: true\n")
    report = aq_json("quantize", MODEL, "-o", out, "--config", config)
    assert [f["from"] for f in report["fallbacks"]] == ["num_time_groups", "enable_time_aware"]
    assert b"aq.activations" not in pq.read_metadata(out).metadata
    config.write_text("act_bits: 8\nact_mode: groups\nenable_time_aware: false\n")
    aq("quantize", MODEL, "-o", out, "--config", config, "--calibration", SAMPLES, "--force")
    assert {plan["mode"] for plan in stored(out)["layers"].values()} <= {"static", "token"}
    assert "quantized to 8 bits" in aq("inspect", out)
