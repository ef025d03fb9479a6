"""Smoothing: factors that are stored with a layer, or folded into what makes its inputs."""
import numpy as np
import pytest

import eval_image
from conftest import DIGITS, aq, aq_json
from small_models import load_safetensors, save_safetensors

CALIBRATION = ("--calibration", DIGITS / "calib.safetensors")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The model in the repository with weights of single precision."""
    path = tmp_path_factory.mktemp("single") / "model.safetensors"
    save_safetensors(path, load_safetensors(DIGITS / "model.safetensors"))
    return path


def quantized(model, out, *options):
    """The weights of a quantized model, and the report."""
    report = aq_json("quantize", model, "-o", out, "--method", "minmax", *CALIBRATION, *options)
    back = out.with_suffix(".safetensors")
    aq("dequantize", out, "-o", back)
    return back, report


def predicted_noise(weights):
    cls = load_safetensors(DIGITS / "eval" / "eval.safetensors")
    model = eval_image.load(DIGITS, weights)
    return model(cls["eval_images"][:8].astype(np.float32), 400, cls["eval_labels"][:8])


@pytest.mark.parametrize(
    "kept, folded",
    [(("adaLN", "proj"), {"qkv": "adaLN_modulation.1", "fc1": "adaLN_modulation.1"}),
     (("adaLN", "qkv"), {"fc1": "adaLN_modulation.1", "proj": "attn.qkv"})],
    ids=lambda v: "+".join(v),
)
def test_folded_and_stored_factors_give_the_same_outputs(kept, folded, single, tmp_path):
    rules = [part for name in kept for part in ("--tensor-type", f"{name}=skip")]
    options = ("--bits", "4", "--smoothing", "0.5", *rules)
    stored, _ = quantized(single, tmp_path / "stored.parquet", *options)
    there, report = quantized(single, tmp_path / "folded.parquet", *options, "--fold-smoothing", "on")
    rows = {row["tensor"]: row["to"] for row in report["fallbacks"] if row["to"].startswith("folded into")}
    assert rows == {f"blocks.{i}.{'mlp' if 'fc' in layer else 'attn'}.{layer}.weight": f"folded into blocks.{i}.{into}"
                    for i in range(5) for layer, into in folded.items()}
    a, b = predicted_noise(stored), predicted_noise(there)
    assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a)
    assert not np.array_equal(load_safetensors(stored)["blocks.0.mlp.fc1.weight"],
                              load_safetensors(there)["blocks.0.mlp.fc1.weight"]), "it was folded"


def test_a_model_whose_layers_before_are_quantized_too_stays_close(single, tmp_path):
    back, _ = quantized(single, tmp_path / "all.parquet", "--bits", "8", "--smoothing", "auto", "--fold-smoothing", "on")
    truth, noise = predicted_noise(single), predicted_noise(back)
    assert np.linalg.norm(truth - noise) < 0.02 * np.linalg.norm(truth)


def test_factors_cost_bytes_and_are_reported(tmp_path):
    options = ("--bits", "4", "--method", "ls", *CALIBRATION)
    plain = aq_json("quantize", DIGITS, "-o", tmp_path / "plain.parquet", *options)
    smooth = aq_json("quantize", DIGITS, "-o", tmp_path / "smooth.parquet", *options, "--smoothing", "awq")
    by_name = {t["name"]: t for t in plain["tensors"]}
    for tensor in smooth["tensors"]:
        if tensor["codec"] != "raw":
            cols = int(np.prod(tensor["shape"][1:]))
            assert tensor["bytes"] == by_name[tensor["name"]]["bytes"] + 5 + 2 * cols + 4
    assert all(row["from"] == "smoothing" for row in smooth["fallbacks"])
    aq("verify", tmp_path / "smooth.parquet")
    again = aq_json("compare", DIGITS, tmp_path / "smooth.parquet")
    assert again["global"]["cosine"] == pytest.approx(smooth["weight"]["cosine_global"], abs=1e-9)


def test_smoothing_that_makes_no_sense_is_refused(tmp_path):
    aq("quantize", DIGITS, "-o", tmp_path / "x.parquet", "--smoothing", "1.5", status=4)
    report = aq_json("quantize", DIGITS, "-o", tmp_path / "x.parquet", "--smoothing", "auto", "--method", "ls")
    steps = {row["reason"] for row in report["fallbacks"]}
    assert steps == {"the layer has no calibration inputs"}


@pytest.mark.parametrize("options", [("--smoothing", "0.5"), ("--rotation", "on"), ("--low-rank", "4")], ids=lambda o: o[0])
@pytest.mark.parametrize("method", ["entropy", "gptq", "trellis", "ls"])
def test_a_file_holds_what_was_measured_while_it_was_made(method, options, tmp_path):
    out = tmp_path / "out.parquet"
    report = aq_json("quantize", DIGITS, "-o", out, "--bits", "4", "--method", method, *CALIBRATION, *options)
    told = {t["name"]: t["relative_mse"] for t in report["tensors"] if t["codec"] != "raw"}
    stored = {t["name"]: t["relative_mse"] for t in aq_json("compare", DIGITS, out)["tensors"]}
    for name, error in told.items():
        assert stored[name] == pytest.approx(error, rel=1e-4), name
