"""`aq calibrate`: every number of the statistics against numpy, read as docs/format.md says."""
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import DIGITS, aq, aq_json
from small_models import load_safetensors, save_safetensors

TIMES, ROWS, COLS = 5, 100, 24
KEPT_STEP = 2                                   # at most 64 rows a bucket are kept: every second of 100


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("statistics")
    random = np.random.default_rng(8)
    tensors = {
        "blocks.0.fc": random.normal(size=(TIMES, ROWS, COLS)).astype(np.float16),
        "wide": random.normal(size=(TIMES, 8, 2050)).astype(np.float32),
        "timesteps": np.linspace(999, 1, TIMES).astype(np.float32),
        "time_weights": np.array([1, 2, 0, 3, 4], np.float32),
    }
    meta = {"aq.time": "sigma", "aq.aliases": json.dumps({"blocks.0.k": "blocks.0.fc"})}
    save_safetensors(folder / "samples.safetensors", tensors, meta=meta)
    told = aq_json("calibrate", folder / "samples.safetensors", "-o", folder / "stats.parquet")
    return folder, tensors, told


def held_out(kept):
    every = max(8, -(-kept // 128))
    return lambda row: kept >= 64 and row % every == every - 1


def test_every_number_is_that_of_numpy(made):
    folder, tensors, told = made
    table = pq.read_table(folder / "stats.parquet")
    metadata = {k.decode(): v.decode() for k, v in pq.read_metadata(folder / "stats.parquet").metadata.items()}
    assert metadata["aq.calibration"] == "statistics/1"
    assert (metadata["aq.time"], json.loads(metadata["aq.aliases"])) == ("sigma", {"blocks.0.k": "blocks.0.fc"})
    weights = tensors["time_weights"] / tensors["time_weights"].mean()
    for name, step in (("blocks.0.fc", KEPT_STEP), ("wide", 1)):
        rows = [r for r in table.to_pylist() if r["layer"] == name]
        assert [r["bucket"] for r in rows] == [*range(TIMES), -1]
        x = tensors[name].astype(np.float64)
        kept = x[:, ::step]
        is_held_out = held_out(kept.shape[0] * kept.shape[1])
        hidden = np.zeros(x.shape[:2], bool)
        hidden[:, ::step] = np.vectorize(is_held_out)(np.arange(kept.shape[0] * kept.shape[1])).reshape(kept.shape[:2])
        for t, r in enumerate(rows[:-1]):
            assert (r["time"], r["rows"]) == (tensors["timesteps"][t], x.shape[1])
            assert r["weight"] == pytest.approx(weights[t])
            assert (r["min"], r["max"]) == (x[t].min(), x[t].max())
            assert np.array_equal(np.frombuffer(r["absmax"], "<f4"), np.abs(x[t]).max(0).astype(np.float32))
            assert np.allclose(np.frombuffer(r["mean_square"], "<f4"), (x[t] ** 2).mean(0), rtol=1e-6)
            samples = np.frombuffer(r["samples"], "<f2").reshape(-1, x.shape[2])
            assert np.array_equal(samples, kept[t].astype(np.float16))
            assert (r["hessian"], r["hessian_block"]) == (b"", 0)
        last, block = rows[-1], rows[-1]["hessian_block"]
        assert block == (512 if name == "wide" else COLS)
        seen = ~hidden & (weights[:, None] > 0)
        assert last["rows"] == seen.sum()
        assert last["weight"] == pytest.approx((seen * weights[:, None]).sum())
        expected = [np.einsum("tn,tni,tnj->ij", seen * weights[:, None], x[..., i:i + block], x[..., i:i + block]).ravel()
                    for i in range(0, x.shape[2], block)]
        assert np.allclose(np.frombuffer(last["hessian"], "<f4"), np.concatenate(expected), rtol=1e-5, atol=1e-5)
        assert (last["absmax"], last["mean_square"], last["samples"]) == (b"", b"", b"")
    layer = {l["name"]: l for l in told["layers"]}["blocks.0.fc"]
    assert (layer["rows"], layer["samples"], layer["cols"]) == (TIMES * ROWS, TIMES * ROWS // KEPT_STEP, COLS)
    assert (told["schema"], told["time"], told["buckets"]) == ("aq.calibrate/1", "sigma", TIMES)


def test_files_of_other_tools_are_read(made, tmp_path):
    folder, tensors, _ = made
    metadata = pq.read_metadata(folder / "stats.parquet").metadata
    keys = {k: v for k, v in metadata.items() if k.startswith(b"aq.")}
    table = pq.read_table(folder / "stats.parquet").replace_schema_metadata(keys)
    pq.write_table(table, tmp_path / "again.parquet", use_dictionary=False, compression="zstd")
    weight = np.random.default_rng(1).normal(size=(64, COLS)).astype(np.float32)
    save_safetensors(tmp_path / "model.safetensors", {"blocks.0.k.weight": weight})
    results = []
    for stats in (folder / "stats.parquet", tmp_path / "again.parquet"):
        out = tmp_path / "out.parquet"
        rule = ["--tensor-type", ".=gptq:3:0", "--act-bits", 8, "--act-mode", "groups"]
        aq("quantize", tmp_path / "model.safetensors", "-o", out, "--calibration", stats, "--force", *rule)
        results.append(out.read_bytes())
    assert results[0] == results[1]
    assert b'"blocks.0.k":{"bits":8' in results[0]


def test_statistics_are_as_good_as_samples_on_the_example_model(tmp_path):
    model, samples = DIGITS / "model.safetensors", DIGITS / "calib.safetensors"
    aq("calibrate", samples, "-o", tmp_path / "stats.parquet")
    error = lambda calibration: aq_json(
        "quantize", model, "-o", tmp_path / "out.parquet", "--force", "--calibration", calibration, "--bits", 3
    )["output_error"]["mean"]
    from_samples, from_statistics = error(samples), error(tmp_path / "stats.parquet")
    print(f"mean output error: samples {from_samples:.5f}, statistics {from_statistics:.5f}")
    assert from_statistics == pytest.approx(from_samples, rel=0.02)


def test_exit_codes(made, tmp_path):
    folder, tensors, _ = made
    samples = folder / "samples.safetensors"
    aq("calibrate", samples, "-o", tmp_path / "stats.safetensors", status=2)
    aq("calibrate", tmp_path / "none.safetensors", "-o", tmp_path / "stats.parquet", status=3)
    aq("calibrate", samples, "-o", folder / "stats.parquet", status=1)
    save_safetensors(tmp_path / "bad.safetensors", {**tensors, "wide": tensors["wide"] * np.float32("nan")})
    aq("calibrate", tmp_path / "bad.safetensors", "-o", tmp_path / "stats.parquet", status=4)
    assert not (tmp_path / "stats.parquet").exists()
