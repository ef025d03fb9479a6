"""The damage of each layer alone, on the example model."""
import json

import numpy as np
import pytest
import torch
from small_dit import DiT

import arrow_quant as aq
import arrow_quant.torch as aqt
from arrow_quant import evaluate


@pytest.fixture(scope="module")
def model(digits):
    module = DiT(digits)
    module.load_state_dict(aq.open(digits / "model.safetensors").state_dict("torch", "float32"))
    return module.eval()


@pytest.fixture
def run(model):
    states = [(torch.randn(4, 1, 12, 12), torch.full((4,), t)) for t in (50, 400, 900)]
    labels = torch.tensor([0, 3, 5, 9])
    calls = []

    def outputs(module):
        calls.append(1)
        return [module(x, t, labels) for x, t in states]

    return aqt.replaced(model, outputs), calls


def test_damages_fall_with_the_rate_and_are_measured_once(digits, model, run, tmp_path):
    (replaced, calls), out = run, tmp_path / "s.json"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = []
    options = {"out": out, "rates": (2.0, 4.0), "threads": 1}
    found = evaluate.sensitivity(digits, replaced, progress=lambda *event: told.append(event), **options)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "weights are put back"
    assert json.loads(out.read_text()) == found and found["schema"] == "aq.sensitivity/1"
    layers = {layer["name"]: layer["points"] for layer in found["layers"]}
    assert len(layers) == 25 and told[-1][:2] == (50, 50) and len(calls) == 51
    for name, (low, high) in layers.items():
        assert low["bits_per_weight"] == pytest.approx(2, abs=0.1) and high["bits_per_weight"] == pytest.approx(4, abs=0.1), name
        assert 0 < high["damage"] < 0.5 * low["damage"], name
    low = [points[0]["damage"] for points in layers.values()]
    print(f"damages at 2 bits from {min(low):.1e} to {max(low):.1e}")
    assert max(low) > 20 * min(low), "layers differ"
    # One of them by hand.
    quantized = tmp_path / "q.parquet"
    aq.quantize(digits, quantized, method="entropy", rate=2.0, threads=1)
    name = "blocks.2.mlp.fc2"
    want, got = (np.concatenate([y.ravel() for y in replaced(weights)]).astype(np.float64) for weights in
                 ({}, {f"{name}.weight": aq.open(quantized)[f"{name}.weight"].dequantize()}))
    assert ((got - want) ** 2).sum() / (want**2).sum() == pytest.approx(layers[name][0]["damage"], rel=1e-5)
    # What is stored is not measured again, and what is missing is.
    calls.clear()
    assert evaluate.sensitivity(digits, replaced, **options) == found and len(calls) == 1
    partial = {**found, "layers": found["layers"][:-1]}
    out.write_text(json.dumps(partial))
    calls.clear()
    again = evaluate.sensitivity(digits, replaced, **options)
    assert len(calls) == 3 and {layer["name"] for layer in again["layers"]} == set(layers)


def test_files_of_something_else_are_refused(digits, run, tmp_path):
    (replaced, _), out = run, tmp_path / "s.json"
    options = {"out": out, "rates": (8,), "method": "minmax", "threads": 1, "group_size": 64}
    found = evaluate.sensitivity(digits, replaced, **options)
    assert all(len(layer["points"]) == 1 and 8 < layer["points"][0]["bits_per_weight"] < 9 for layer in found["layers"])
    with pytest.raises(aq.ConfigError, match="other options"):
        evaluate.sensitivity(digits, replaced, **{**options, "rates": (4,)})
    with pytest.raises(aq.ConfigError, match="other options or outputs"):
        evaluate.sensitivity(digits, lambda weights: [2 * y for y in replaced(weights)], **options)
    out.write_text("{}")
    with pytest.raises(aq.InputError, match="not a file of sensitivities"):
        evaluate.sensitivity(digits, replaced, **options)
    with pytest.raises(aq.ConfigError, match="no tensor called"):
        replaced({"nothing": np.zeros(1)})
    with pytest.raises(aq.ConfigError, match="all zero"):
        evaluate.sensitivity(digits, lambda weights: np.zeros(3), out=tmp_path / "zero.json")
