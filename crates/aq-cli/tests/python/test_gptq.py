"""`gptq` against a plain implementation of it, by the error of a layer's outputs on inputs that neither has seen."""
import numpy as np
import pytest

from conftest import aq, aq_json
from reference_quantizers import gptq
from small_models import load_safetensors, save_safetensors

ROWS, COLS, INPUTS, GROUP = 256, 512, 4096, 128


def correlated_layer(seed):
    """Weights with unlike rows and columns, and inputs that go together: a spectrum of i^-0.8, and 8 channels times 8."""
    random = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(random.normal(size=(COLS, COLS)))
    mix = (basis * np.arange(1, COLS + 1) ** -0.4) @ basis.T
    channels = np.ones(COLS)
    channels[random.choice(COLS, 8, replace=False)] = 8
    inputs = [(random.normal(size=(INPUTS, COLS)) @ mix * channels).astype(np.float16) for _ in range(2)]
    spread = np.exp(0.3 * random.normal(size=(ROWS, 1))) * np.exp(0.3 * random.normal(size=(1, COLS)))
    weight = (random.standard_t(6, size=(ROWS, COLS)) * spread).astype(np.float32)
    return weight, *(x.astype(np.float32) for x in inputs)


def output_error(w, q, x):
    return ((x @ (q - w).T) ** 2).sum() / ((x @ w.T) ** 2).sum()


def slope(w, q, x):
    y = x @ w.T
    return (y * (x @ q.T)).sum() / (y * y).sum()


@pytest.fixture(scope="module", params=[1, 2, 3], ids="seed {}".format)
def layer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layer")
    weight, seen, unseen = correlated_layer(request.param)
    save_safetensors(folder / "model.safetensors", {"blocks.0.fc.weight": weight})
    save_safetensors(folder / "samples.safetensors", {"blocks.0.fc": seen.astype(np.float16)[None]})
    return folder, weight, seen, unseen


def quantize(folder, *options):
    """The report of a job, and the weights that it gave."""
    out, back = folder / "out.parquet", folder / "back.safetensors"
    model, samples = folder / "model.safetensors", folder / "samples.safetensors"
    common = ["--group-size", GROUP, "--calibration", samples, "--force"]
    report = aq_json("quantize", model, "-o", out, *common, *options)
    aq("dequantize", out, "-o", back, "--dtype", "f32", "--force")
    return report, load_safetensors(back)["blocks.0.fc.weight"].astype(np.float64)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_no_worse_than_the_reference(layer, bits):
    folder, weight, seen, unseen = layer
    reference = gptq(weight, seen, bits, GROUP)
    expected = output_error(weight, reference, unseen)
    _, plain = quantize(folder, "--bits", bits, "--method", "ls")
    report, q = quantize(folder, "--bits", bits, "--method", "gptq")
    _, without_gain = quantize(folder, "--bits", bits, "--method", "gptq", "--gain", "off")
    errors = [output_error(weight, each, unseen) for each in (q, without_gain, plain)]
    ratios = ", ".join(f"{e:.5f} ({e / expected:.3f})" for e in errors)
    slopes = [slope(weight, each, unseen) for each in (q, without_gain, reference)]
    print(f"{bits} bits: reference {expected:.5f}; gptq, without gain, ls: {ratios}; slopes {slopes}")
    assert report["fallbacks"] == []
    assert errors[0] <= 0.98 * expected
    assert errors[1] < errors[0] < errors[2]
    assert abs(slopes[0] - 1) < 0.2 * abs(slopes[2] - 1)
    assert report["tensors"][0]["output_error"] == pytest.approx(errors[0], rel=0.15)


# By bits: what the trellis leaves of the reference's error at most. Without feedback it leaves .58, .51 and .59 of it.
TRELLIS = {2: 0.5, 3: 0.42, 4: 0.48}


@pytest.mark.parametrize("bits", TRELLIS)
def test_a_trellis_errs_less_in_fewer_bits(layer, bits):
    folder, weight, seen, unseen = layer
    expected = output_error(weight, gptq(weight, seen, bits, GROUP), unseen)
    report, q = quantize(folder, "--bits", bits, "--method", "trellis")
    error = output_error(weight, q, unseen)
    print(f"{bits} bits: reference {expected:.5f}, trellis {error:.5f} ({error / expected:.3f})")
    assert report["quantized"]["bits_per_weight"] < bits + 0.07
    assert error <= TRELLIS[bits] * expected
    assert abs(slope(weight, q, unseen) - 1) < 0.01


HESSIANS = {
    "singular": (lambda x: x[:40], "gptq", "it is singular: 40 calibration rows for 512 columns"),
    "zero": (lambda x: 0 * x, "gptq", "1 of 1 blocks of its Hessian are zero"),
    "poisoned": (lambda x: np.where(np.arange(COLS) == 7, np.nan, x), "ls", "the layer has no calibration inputs"),
}


@pytest.mark.parametrize("what", HESSIANS)
def test_a_hessian_without_an_inverse_is_a_row_of_the_report(what, tmp_path):
    change, method, reason = HESSIANS[what]
    weight, seen, _ = correlated_layer(4)
    save_safetensors(tmp_path / "model.safetensors", {"blocks.0.fc.weight": weight})
    inputs = change(seen[:512]).astype(np.float16)
    save_safetensors(tmp_path / "samples.safetensors", {"blocks.0.fc": inputs[None]})
    report, q = quantize(tmp_path, "--bits", 4, "--method", "gptq")
    reasons = [f["reason"] for f in report["fallbacks"] if f["tensor"] == "blocks.0.fc.weight"]
    assert reason in reasons
    assert np.isfinite(q).all()
    _, plain = quantize(tmp_path, "--bits", 4, "--method", "ls")
    assert ((q - weight) ** 2).sum() < (1.2 if what != "singular" else 6) * ((plain - weight) ** 2).sum()
    assert (method == "ls") == np.array_equal(q, plain)
