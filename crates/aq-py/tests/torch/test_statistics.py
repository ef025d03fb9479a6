"""Statistics that calibration writes itself, against those that `aq calibrate` makes of samples, and against numpy."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from small_dit import DiT, sample
from torch import nn

import arrow_quant as aq
import arrow_quant.torch as aqt

pq = pytest.importorskip("pyarrow.parquet", reason="statistics are read with pyarrow here")
AQ = os.environ.get("AQ_BIN", str(Path(__file__).resolve().parents[4] / "target" / "release" / "aq"))
NUMBERS = {"absmax": "<f4", "mean_square": "<f4", "samples": "<f2", "hessian": "<f4"}


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.q, self.k = nn.Linear(4, 8), nn.Linear(4, 8)
        self.wide = nn.Linear(8, 2100)
        self.down = nn.Linear(2100, 4)

    def forward(self, x, t):
        x = self.conv(x).flatten(2).transpose(1, 2) * (1 + t)
        return self.down(self.wide(self.q(x) + self.k(x)))


def rows(path):
    table = pq.read_table(path).to_pylist()
    for row in table:
        row.update({name: np.frombuffer(row[name], kind) for name, kind in NUMBERS.items()})
    return {(row["layer"], row["bucket"]): row for row in table}, pq.read_metadata(path).metadata


def run_toy(model):
    generator = torch.Generator().manual_seed(2)
    for t in (0.1, 0.1, 0.6, 0.9):
        model(torch.randn(1, 3, 10, 10, generator=generator), t)


@pytest.mark.skipif(not Path(AQ).exists(), reason=f"no program {AQ}: build it, or name it in AQ_BIN")
def test_both_ways_to_statistics_agree(tmp_path):
    torch.manual_seed(0)
    # At most 64 rows a bucket, so that all are kept both ways.
    model, options = Toy(), {"rows": 64, "timesteps": (0.0, 1.0, 2)}
    options["time_of"] = lambda args, kwargs: args[1]
    aqt.calibrate(model, run_toy, out=tmp_path / "samples.safetensors", **options)
    made = tmp_path / "made.parquet"
    done = subprocess.run([AQ, "calibrate", tmp_path / "samples.safetensors", "-o", made], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = aqt.calibrate(model, run_toy, out=tmp_path / "direct.parquet", **options)
    assert report.bytes == (tmp_path / "direct.parquet").stat().st_size
    (a, about_a), (b, about_b) = rows(made), rows(tmp_path / "direct.parquet")
    assert a.keys() == b.keys() and len({layer for layer, _ in a}) == 4
    for key in (b"aq.calibration", b"aq.time"):
        assert about_a[key] == about_b[key]
    assert json.loads(about_a[b"aq.aliases"]) == json.loads(about_b[b"aq.aliases"]) == {"k": "q"}
    for key, want in a.items():
        got = b[key]
        assert all(got[name] == want[name] for name in ("weight", "rows", "min", "max", "hessian_block")), key
        assert got["time"] == pytest.approx(want["time"], rel=1e-6)
        assert np.array_equal(got["absmax"], want["absmax"]) and np.array_equal(got["samples"], want["samples"]), key
        assert np.allclose(got["mean_square"], want["mean_square"], rtol=1e-6)
        if key[1] == -1:
            assert want["hessian_block"] == (512 if key[0] == "down" else want["hessian_block"])
            assert np.abs(got["hessian"] - want["hessian"]).max() <= 3e-6 * np.abs(want["hessian"]).max(), key


def test_every_row_counts_and_few_are_kept(tmp_path):
    model = nn.Sequential(nn.Linear(6, 3))
    x = torch.randn(5000, 6) + 1

    def run(m):
        for piece in x.split(700):
            with aqt.timestep(1.0):
                m(piece)

    report = aqt.calibrate(model, run, out=tmp_path / "c.parquet", rows=128, timesteps=(0, 2, 1))
    stored, _ = rows(tmp_path / "c.parquet")
    bucket, whole = stored["0", 0], stored["0", -1]
    kept = bucket["samples"].reshape(-1, 6).astype(np.float64)
    assert report.rows == {"0": 128} and len(kept) == 128 and bucket["rows"] == 5000
    assert whole["rows"] == whole["weight"] == 5000 - 16, "of 128 kept rows every eighth is held out"
    seen = x.half().double().numpy()
    assert np.allclose(bucket["mean_square"], (seen**2).mean(0), rtol=1e-5)
    held_out = kept[7::8]
    assert np.allclose(whole["hessian"].reshape(6, 6), seen.T @ seen - held_out.T @ held_out, rtol=1e-5)
    assert (bucket["min"], bucket["max"]) == (seen.min(), seen.max())
    assert list(tmp_path.iterdir()) == [tmp_path / "c.parquet"]


def test_rows_that_are_not_finite_or_too_large(tmp_path):
    x = torch.ones(70, 8)
    x[0, 0], x[1, 1], x[2, 2] = float("nan"), 1e6, float("inf")
    model = nn.Sequential(nn.Linear(8, 8))

    def run(m):
        with aqt.timestep(0):
            m(x)

    report = aqt.calibrate(model, run, out=tmp_path / "c.parquet", timesteps=(0, 1, 1))
    stored, _ = rows(tmp_path / "c.parquet")
    assert stored["0", 0]["rows"] == 68 and stored["0", 0]["max"] == 65504
    assert np.isfinite(stored["0", -1]["hessian"]).all() and "NaN" in report.notes["0"]


def test_quantizing_with_them_is_as_good_as_with_samples(digits, tmp_path):
    model = DiT(digits)
    model.load_state_dict(aq.open(digits / "model.safetensors").state_dict("torch", "float32"))
    labels, noise = torch.arange(8), torch.randn(8, 1, 12, 12)
    errors = {}
    for name in ("samples.safetensors", "statistics.parquet"):
        aqt.calibrate(model, lambda m: sample(m, labels, noise, 10), out=tmp_path / name)
        aq.quantize(digits, tmp_path / "q.parquet", bits=3, calibration=tmp_path / name, force=True, threads=1)
        compared = aq.compare(digits / "model.safetensors", tmp_path / "q.parquet", digits / "calib.safetensors")
        found = [t["output_error"] for t in compared["tensors"] if t["output_error"] is not None]
        errors[name] = sum(found) / len(found)
    print(f"mean output error on other samples: {errors}")
    assert errors["statistics.parquet"] < 1.02 * errors["samples.safetensors"]
