"""Measures of what quantizing did, against plain formulas."""
import numpy as np
import pytest
from conftest import DIGITS

import arrow_quant as aq
from arrow_quant import evaluate


def test_layer_errors_agree_with_compare(quantized):
    calibration = DIGITS / "calib.safetensors"
    found = evaluate.layer_errors(DIGITS, quantized, calibration, rows="all")
    assert len(found.timesteps) == 10 and len(found.errors) == 25
    assert all(len(errors) == 10 for errors in found.errors.values())
    # `compare` takes every row of a layer of 200 samples, and adds up before it divides.
    layer = "blocks.2.adaLN_modulation.1"
    x = aq.open(calibration)
    x = x[layer].dequantize() if layer in x else x["blocks.0.adaLN_modulation.1"].dequantize()
    w, q = (aq.open(path)[f"{layer}.weight"].dequantize() for path in (DIGITS, quantized))
    wrong, power = (((x @ (w - q).T) ** 2).sum((1, 2)), ((x @ w.T) ** 2).sum((1, 2)))
    assert found.errors[layer] == pytest.approx(wrong / power, rel=1e-3)
    errors = aq.compare(DIGITS, quantized, calibration=calibration)["tensors"]
    whole = next(t["output_error"] for t in errors if t["name"] == f"{layer}.weight")
    assert wrong.sum() / power.sum() == pytest.approx(whole, rel=1e-3)
    name, worst = found.worst(1)[0]
    assert worst == max(np.mean(e) for e in found.errors.values()) and name in found.errors


def test_held_out_rows_are_those_that_quantize_measures(tmp_path):
    calibration = DIGITS / "calib.safetensors"
    report = aq.quantize(DIGITS, tmp_path / "q.parquet", bits=4, calibration=calibration)
    layer, samples = "blocks.1.mlp.fc1", aq.open(calibration)
    rows = np.concatenate(evaluate._rows(samples[layer], "held_out"))
    assert len(rows) == samples[layer].shape[0] * samples[layer].shape[1] // 8
    w, q = (aq.open(path)[f"{layer}.weight"].dequantize() for path in (DIGITS, tmp_path / "q.parquet"))
    mine = ((rows @ (w - q).T) ** 2).sum() / ((rows @ w.T) ** 2).sum()
    told = next(t["output_error"] for t in report["tensors"] if t["name"] == f"{layer}.weight")
    assert mine == pytest.approx(told, rel=1e-3)


def test_changed_inputs_count(quantized):
    calibration = DIGITS / "calib.safetensors"
    plain = evaluate.layer_errors(DIGITS, quantized, calibration)
    rough = evaluate.layer_errors(DIGITS, quantized, calibration, inputs=lambda layer, x, t: np.round(x * 2) / 2)
    assert rough.mean() > 3 * plain.mean()
    with pytest.raises(aq.ConfigError, match="rows"):
        evaluate.layer_errors(DIGITS, quantized, calibration, rows="some")
    with pytest.raises(aq.InputError, match="timesteps"):
        evaluate.layer_errors(DIGITS, quantized, DIGITS / "model.safetensors")


def test_trajectory_error(tmp_path, random):
    def run(model):
        x = random.standard_normal((2, 3))
        for t in (1.0, 0.5, 0.25):
            x = x + model(x, t)

    trajectory = evaluate.Trajectory.record(lambda x, t: x * t, run)
    assert trajectory.times == [1.0, 0.5, 0.25]
    trajectory.save(tmp_path / "t.npz")
    stored = evaluate.Trajectory.load(tmp_path / "t.npz")
    assert all(np.array_equal(a, b) for a, b in zip(stored.states, trajectory.states, strict=True))
    found = evaluate.trajectory_error(lambda x, t: x * t, lambda x, t: x * t + 0.1, stored, weights=[1, 2, 4])
    assert found["steps"] == pytest.approx([0.06] * 3, rel=1e-5)
    assert found["total"] == pytest.approx(0.42, rel=1e-5)
    power = sum(w * ((x.astype(float) * t) ** 2).sum() for w, x, t in zip([1, 2, 4], stored.states, stored.times))
    assert found["relative"] == pytest.approx(0.42 / power, rel=1e-5)
    with pytest.raises(aq.ConfigError, match="weights"):
        evaluate.trajectory_error(lambda x, t: x, lambda x, t: x, stored, weights=[1])
    with pytest.raises(aq.InputError, match="trajectory"):
        evaluate.Trajectory.load(DIGITS / "config.json")


def test_psnr():
    x = np.zeros((2, 5), np.float32)
    assert evaluate.psnr(x, x) == float("inf")
    assert evaluate.psnr(x + 0.2, x) == pytest.approx(20, abs=1e-4)
    assert evaluate.psnr(x + 0.1, x, data_range=1) == pytest.approx(20, abs=1e-4)


def test_frechet_distance_of_gaussians(random):
    a = random.standard_normal((200_000, 3))
    assert evaluate.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert evaluate.frechet_distance(a * 2 + [1, 0, 0], a) == pytest.approx(1 + 3, rel=0.02)


def test_nelbo_of_a_model_that_knows_nothing_is_the_entropy(random):
    tokens = random.integers(0, 8, (40, 200))
    uniform = lambda masked, t: np.full((*masked.shape, 9), -np.log(8))
    assert evaluate.nelbo(uniform, tokens, mask_id=8) == pytest.approx(np.log(8), rel=0.02)
    seen = []
    evaluate.nelbo(lambda masked, t: seen.append((masked == 8).mean() / t) or uniform(masked, t), tokens, 8)
    assert seen == pytest.approx([1] * 16, rel=0.25)


def test_scores_name_the_package_they_need(monkeypatch):
    import sys

    for module in ("cleanfid", "cleanfid.fid", "speechmos", "speechmos.dnsmos"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(aq.ConfigError, match="pip install clean-fid"):
        evaluate.fid("a", "b")
    with pytest.raises(aq.ConfigError, match="pip install speechmos"):
        evaluate.dnsmos(np.zeros(10), 16_000)


def test_dnsmos_of_speech_and_of_noise():
    pytest.importorskip("speechmos.dnsmos", reason="DNSMOS needs the packages speechmos, onnxruntime and librosa")
    seconds = np.arange(10 * 16_000) / 16_000
    noise = np.random.default_rng(0).normal(size=seconds.shape)
    scores = evaluate.dnsmos(noise, 16_000)
    assert set(scores) == {"sig_mos", "bak_mos", "ovrl_mos", "p808_mos"}
    assert 0.5 < scores["ovrl_mos"] < 2, "nobody takes noise for speech"
    assert evaluate.dnsmos(np.clip(noise, -1, 1), 16_000) == scores
    for audio, rate, fact in ((noise, 8_000, "8000"), (noise[None], 16_000, "one channel"), ([], 16_000, "one channel")):
        with pytest.raises(aq.ConfigError, match=fact):
            evaluate.dnsmos(np.asarray(audio), rate)
