"""What calibration stores of what layers see."""
import json

import numpy as np
import pytest
import torch
from conftest import error
from safetensors import safe_open
from torch import nn
from torch.nn import functional

import arrow_quant as aq
import arrow_quant.torch as aqt


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.line = nn.Conv1d(4, 8, 3, padding="same", padding_mode="circular")
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x, timestep):
        x = self.depthwise(self.conv(x)).flatten(2)
        x = self.line(x).transpose(1, 2)
        return self.q(x) + self.k(x) + self.v(x * (1 + timestep.flatten()[0]))


def read(path):
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def test_rows_ranges_and_aliases(tmp_path):
    model, seen = Toy(), []
    inputs = [torch.randn(1, 3, 16, 16) for _ in range(4)]

    def run(m):
        m.conv.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        for x, t in zip(inputs, (10.0, 20.0, 900.0, 950.0), strict=True):
            m(x, torch.full((1,), t))

    report = aqt.calibrate(model, run, out=tmp_path / "c.safetensors", rows=10_000)
    samples, metadata = read(tmp_path / "c.safetensors")
    assert report.timesteps == samples["timesteps"].tolist() == [15.0, 925.0]
    assert set(samples) == {"timesteps", "conv", "line", "q", "v"}
    assert json.loads(metadata["aq.aliases"]) == report.aliases == {"k": "q"}
    assert (metadata["aq.calibration"], metadata["aq.time"]) == ("samples/1", "t")
    assert "groups" in report.notes["depthwise"]
    # More places than rows: everything is stored, in order, as torch unfolds it.
    unfolded = [functional.unfold(x, 3, 2, 1, 2).transpose(1, 2)[0] for x in inputs]
    want = torch.stack([torch.cat(unfolded[:2]), torch.cat(unfolded[2:])]).half().numpy()
    assert np.array_equal(samples["conv"], want)
    assert samples["line"].shape[2] == 12
    assert report.ranges["conv"]["max"][1] == pytest.approx(max(float(x.max()) for x in inputs[2:]))
    assert list(tmp_path.iterdir()) == [tmp_path / "c.safetensors"]


def test_unfolded_rows_times_the_weight_are_the_outputs(tmp_path):
    model = Toy()
    x = torch.randn(1, 3, 16, 16)
    aqt.calibrate(model, lambda m: m(x, torch.zeros(1)), out=tmp_path / "c.safetensors", rows=10_000, timesteps=(0, 1, 1))
    samples, _ = read(tmp_path / "c.safetensors")
    rows = torch.from_numpy(samples["conv"][0]).float()
    y = rows @ model.conv.weight.flatten(1).T + model.conv.bias
    want = functional.conv2d(x, model.conv.weight, model.conv.bias, 2, 1, 2).flatten(2)[0].T
    assert error(y, want) < 1e-3


def test_a_reservoir_is_an_even_sample(tmp_path):
    model, stored = nn.Sequential(nn.Linear(1, 1)), []
    for seed in range(60):
        def run(m):
            for step in range(20):
                with aqt.timestep(0.0):
                    m(torch.arange(100 * step, 100 * (step + 1), dtype=torch.float32)[:, None])

        report = aqt.calibrate(model, run, out=tmp_path / "c.safetensors", rows=32, seed=seed, timesteps=(0, 1, 1))
        rows = read(tmp_path / "c.safetensors")[0]["0"]
        assert report.rows == {"0": 32} and len(set(rows.ravel().tolist())) == 32
        stored.append(rows.ravel())
    quarters = np.histogram(np.concatenate(stored), 4, (0, 2000))[0]
    assert (abs(quarters - 480) < 4 * np.sqrt(480)).all()


def test_the_same_seed_gives_the_same_file(tmp_path):
    def run(m):
        generator = torch.Generator().manual_seed(1)
        for t in (0.0, 500.0, 999.0):
            m(torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([t, t]))

    for name in "ab":
        aqt.calibrate(Toy().requires_grad_(False), run, out=tmp_path / name, layers="conv", rows=8)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_times(tmp_path):
    model = Toy()
    x, out = torch.randn(2, 3, 16, 16), tmp_path / "c.safetensors"

    def run(m):
        for t in (0.1, 0.2, 0.9):
            m(x, timestep=torch.tensor([t, t]))

    with pytest.warns(aq.AqWarning, match="one bucket"):
        aqt.calibrate(model, run, out=out)
    report = aqt.calibrate(model, run, out=out, timesteps=[0.0, 1.0])
    assert report.timesteps == pytest.approx([0.15, 0.9])
    report = aqt.calibrate(model, run, out=out, timesteps=(0, 10, 2), time_of=lambda args, kw: kw["timestep"][0] * 10)
    assert report.timesteps == pytest.approx([1.5, 9.0])
    with pytest.raises(aq.ConfigError, match="several"):
        aqt.calibrate(model, lambda m: m(x, torch.tensor([1.0, 2.0])), out=out)
    with pytest.raises(aq.ConfigError, match="time is set"):
        aqt.calibrate(nn.Sequential(nn.Linear(2, 2)), lambda m: m(torch.ones(1, 2)), out=out)
    with pytest.raises(aq.ConfigError, match="usual span"):
        aqt.calibrate(model, run, out=out, time="sigma")


def test_values_that_float16_does_not_have(tmp_path):
    x = torch.ones(4, 8)
    x[0, 0], x[1, 1] = float("nan"), 1e6
    model = nn.Sequential(nn.Linear(8, 8))

    def run(m):
        with aqt.timestep(0):
            m(x)

    report = aqt.calibrate(model, run, out=tmp_path / "c.safetensors", timesteps=(0, 1, 1))
    rows = read(tmp_path / "c.safetensors")[0]["0"]
    assert rows.shape == (1, 3, 8) and np.isfinite(rows).all() and rows.max() == 65504
    assert "NaN" in report.notes["0"]
    assert report.ranges["0"] == {"min": [1], "max": [1e6], "absmax": [1e6]}


def test_masked_inputs():
    tokens = torch.arange(1, 4001).reshape(4, 1000)
    masked, times = aqt.masked_inputs(tokens, torch.tensor([0.0, 0.25, 0.75, 1.0]), 0, torch.Generator().manual_seed(0))
    share = (masked == 0).float().mean(1)
    assert share[0] == 0 and share[3] == 1
    assert (share - times).abs().max() < 0.05
    assert torch.equal(masked[masked != 0], tokens[masked != 0])
    spread = aqt.masked_inputs(tokens, None, 0)[1].sort().values
    assert ((spread > 0) & (spread <= 1)).all() and torch.allclose(spread.diff(), torch.full((3,), 0.25))
