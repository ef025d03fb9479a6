"""Every step down, forced: it shows in the report with its reason, and the result is sound."""
import numpy as np
import pytest

from conftest import DIGITS, aq, aq_json, posix_only, write_model
from small_models import load_safetensors, save_safetensors

MODEL, SAMPLES = DIGITS / "model.safetensors", DIGITS / "calib.safetensors"


def rows(report):
    return [(f["tensor"], f["from"], f["to"], f["reason"]) for f in report["fallbacks"]]


def test_bits_step_up_until_the_gate_holds(tmp_path):
    out = tmp_path / "out.parquet"
    report = aq_json("quantize", MODEL, "-o", out, "--bits", 2, "--method", "minmax", "--min-cosine", 0.999)
    quantized = {t["name"]: t for t in report["tensors"] if t["kept_reason"] is None}
    kept = {t["name"]: t["kept_reason"] for t in report["tensors"] if (t["kept_reason"] or "").startswith("quality gate")}
    assert quantized and all(t["cosine"] >= 0.999 for t in quantized.values())
    steps = {}
    for tensor, before, after, reason in rows(report):
        assert reason.startswith("cosine 0.") and reason.endswith(" is below 0.999")
        assert steps.setdefault(tensor, "2 bits") == before
        steps[tensor] = after
    assert {name: f"{t['bits']} bits" for name, t in quantized.items() if name in steps} == {
        name: bits for name, bits in steps.items() if bits != "kept"}
    assert set(kept) == {name for name, bits in steps.items() if bits == "kept"}
    assert {"4 bits", "8 bits"} & set(steps.values())
    aq("verify", out)
    compared = {t["name"]: t["cosine"] for t in aq_json("compare", MODEL, out)["tensors"]}
    assert all(compared[name] >= 0.999 for name in steps)


def test_output_errors_are_held_to_the_bound(tmp_path):
    options = ("--bits", 2, "--method", "gptq", "--calibration", SAMPLES, "--max-error", 0.02)
    report = aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", *options)
    quantized = [t for t in report["tensors"] if t["kept_reason"] is None]
    assert all((t["relative_mse"] if t["output_error"] is None else t["output_error"]) <= 0.02 for t in quantized)
    assert any(reason.startswith("output error") for *_, reason in rows(report))


def test_fail_fast_stops_with_nothing_left(tmp_path):
    for out in ("out.parquet", "out"):
        options = ("--bits", 2, "--method", "minmax", "--min-cosine", 0.999, "--fail-fast")
        with pytest.raises(AssertionError, match="is below 0.999"):
            aq("quantize", MODEL, "-o", tmp_path / out, *options)
        aq("quantize", MODEL, "-o", tmp_path / out, *options, status=5)
    assert list(tmp_path.iterdir()) == []
    aq("quantize", MODEL, "-o", tmp_path / "x.parquet", "--bits", 2, "--fail-fast", status=2)


def samples_with(tmp_path, change):
    samples = load_safetensors(SAMPLES)
    save_safetensors(tmp_path / "samples.safetensors", change(samples))
    return tmp_path / "samples.safetensors"


GROUPS = ("--act-bits", 8, "--act-mode", "groups")


def test_time_groups_without_usable_timesteps_are_left_out(tmp_path):
    one = samples_with(tmp_path, lambda samples: {k: v[:1] for k, v in samples.items()})
    report = aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", "--calibration", one, *GROUPS)
    told = [r for r in rows(report) if r[1] == "time groups"]
    assert told and all("does not tell times apart" in reason or "no calibration" in reason for *_, reason in told)
    assert {to for _, _, to, _ in told} <= {"one static range", "ranges of each token"}


def test_time_groups_that_buy_nothing_are_left_out(tmp_path):
    still = samples_with(tmp_path, lambda samples: {k: v if k == "timesteps" else np.repeat(v[:1], len(v), 0) for k, v in samples.items()})
    report = aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", "--calibration", still, *GROUPS)
    assert any(r[2] == "one static range" and "time groups are left out" in r[3] for r in rows(report))


def test_time_groups_without_any_calibration_are_one_row_about_the_job(tmp_path):
    report = aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", *GROUPS)
    assert rows(report) == [(None, "time groups", "ranges of each token", "the layer has no calibration samples")]


def test_calibration_that_is_not_finite_is_left_out(tmp_path):
    def spoil(samples):
        layer = next(k for k in samples if k.endswith("attn.qkv"))
        samples[layer] = samples[layer].copy()
        samples[layer][0, 0, 0] = np.nan
        return samples
    spoilt = samples_with(tmp_path, spoil)
    report = aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", "--calibration", spoilt, "--smoothing", "0.5", *GROUPS)
    tensor = next(r[0] for r in rows(report) if r[1:3] == ("calibrated", "uncalibrated"))
    mine = {r[1]: r[2:] for r in rows(report) if r[0] == tensor}
    assert mine["time groups"][0] == "ranges of each token"
    assert mine["smoothing"] == ("no smoothing", "the layer has no calibration inputs")


def test_smoothing_without_calibration_is_one_row_about_the_job(tmp_path):
    (tmp_path / "aq.yaml").write_text("enable_spatial: true\n")
    report = aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", "--config", tmp_path / "aq.yaml")
    assert rows(report) == [(None, "smoothing", "no smoothing", "the layer has no calibration inputs")]


def test_smoothing_that_buys_nothing_is_left_out(tmp_path):
    options = ("--calibration", SAMPLES, "--smoothing", "auto", "--method", "ls", "--bits", 8)
    report = aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", *options)
    off = [r for r in rows(report) if r[1:3] == ("smoothing", "no smoothing")]
    assert any("output error" in reason for *_, reason in off)


def test_a_model_beyond_the_memory_limit_is_streamed(medium_model, tmp_path):
    options = ("--method", "minmax", "--bits", 4, "--threads", 1)
    tight = aq_json("quantize", medium_model, "-o", tmp_path / "a.parquet", *options, "--memory-limit", "40MiB")
    row = next(r for r in rows(tight) if r[1:3] == ("batch", "streaming"))
    assert row[0] is None and "exceed the memory limit" in row[3]
    roomy = aq_json("quantize", medium_model, "-o", tmp_path / "b.parquet", *options, "--memory-limit", "400MiB")
    assert rows(roomy) == []
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@posix_only
def test_a_model_that_cannot_be_mapped_is_streamed(tmp_path):
    import json
    import resource
    import subprocess

    from conftest import command, environment
    model = write_model(tmp_path / "model.safetensors", {"blocks.0.mlp.fc1.weight": (600_000, 1024)})
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    argv = [
        command(), "quantize", model, "-o", tmp_path / "out.parquet", "--json", "--method", "minmax", "--threads", "1",
        "--memory-limit", "2GiB"]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(), preexec_fn=limit)
    assert done.returncode == 0, done.stderr
    row = next(f for f in json.loads(done.stdout)["fallbacks"] if f["to"] == "streaming")
    assert row["tensor"] is None and "cannot be mapped" in row["reason"]


def test_a_size_that_cannot_be_met_is_told(tmp_path):
    report = aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", "--target-size", "1GB")
    assert [r[0] for r in rows(report) if r[1] == "1000000000 bytes"] == [None]


def test_gguf_steps_up_in_its_own_types(tmp_path):
    out = tmp_path / "out.gguf"
    report = aq_json("quantize", MODEL, "-o", out, "--bits", 2, "--min-cosine", 0.99)
    told = {(before, after) for tensor, before, after, reason in rows(report) if reason.startswith("cosine")}
    assert told and all(after == "kept" or after.startswith("q") for _, after in told), told
    assert all(t["cosine"] >= 0.99 for t in report["tensors"] if t["kept_reason"] is None)
    aq("inspect", out)
