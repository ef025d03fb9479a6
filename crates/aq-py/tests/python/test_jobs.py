"""Whole files: the same results as the command, errors by kind, progress, interruption."""
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import DIGITS, write_safetensors

import arrow_quant as aq


def same(report):
    """What of a report does not depend on the run."""
    report = json.loads(json.dumps(report))
    for key in ("elapsed_s", "params_per_s", "peak_rss_bytes"):
        report.pop(key)
    report["output"].pop("path")
    return report


@pytest.mark.parametrize("options", [
    {"bits": 3, "group_size": 32, "method": "ls"},
    {"bits": 2, "group_size": 0, "rotation": True, "seed": 7},
    {"calibration": DIGITS / "calib.safetensors", "rate": 3.5, "tensor_type": ["fc2=skip", "qkv=ls:8:64"]},
], ids=str)
def test_the_report_and_the_file_are_those_of_the_command(command, tmp_path, options):
    flags = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            text = {True: "on"}.get(one, str(one)) if isinstance(one, bool) else str(one)
            flags += ["--" + name.replace("_", "-"), text]
    argv = [command, "quantize", str(DIGITS), "-o", str(tmp_path / "a.parquet"), "--json", *flags]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AQ_")}
    printed = subprocess.run(argv, capture_output=True, check=True, env=clean).stdout
    report = aq.quantize(DIGITS, tmp_path / "b.parquet", **options)
    assert same(report) == same(json.loads(printed))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_inspect_and_compare(quantized):
    found = aq.inspect(quantized)
    assert found["schema"] == "aq.inspect/1" and len(found["tensors"]) == 62
    errors = aq.compare(DIGITS, quantized, calibration=DIGITS / "calib.safetensors")
    assert errors["global"]["cosine"] > 0.996
    assert sum(t["output_error"] is not None for t in errors["tensors"]) == 25


def test_errors_have_kinds(tmp_path, quantized):
    out = tmp_path / "out.parquet"
    cases = [
        (aq.InputError, "no such", {"input": tmp_path / "none"}),
        (aq.ConfigError, "did you mean bits", {"bitss": 4}),
        (aq.ConfigError, "7", {"bits": 7}),
        (aq.ConfigError, "unknown method", {"method": "best"}),
        (aq.ConfigError, "neither", {"bits": object()}),
        (aq.InputError, "quantized already", {"input": quantized}),
        (aq.ResourceError, "memory", {"memory_limit": "1KiB"}),
        (aq.AqError, "exists", {"output": quantized}),
    ]
    for kind, text, options in cases:
        with pytest.raises(kind, match=text):
            aq.quantize(**{"input": DIGITS, "output": out, **options})
        assert not list(tmp_path.iterdir())
    assert issubclass(aq.InputError, aq.AqError) and aq.ConfigError.exit_code == 4
    with pytest.raises(aq.InputError):
        aq.open(tmp_path)


def test_non_finite_weights_are_named(tmp_path):
    weights = np.ones((64, 64), np.float32)
    weights[3, 5] = np.nan
    write_safetensors(tmp_path / "m.safetensors", {"layer.weight": weights})
    with pytest.raises(aq.InputError, match="layer.weight.*row 3, column 5"):
        aq.quantize(tmp_path / "m.safetensors", tmp_path / "out.parquet", tensor_type=["layer=4"])


def test_progress_counts_every_byte(tmp_path):
    calls = []
    aq.quantize(DIGITS, tmp_path / "a.parquet", progress=lambda *told: calls.append(told))
    done = [done for done, _, _ in calls]
    assert done == sorted(done) and done[-1] == calls[-1][1] > 3_000_000
    assert any(tensor.startswith("blocks.") for _, _, tensor in calls)


def test_a_bar_of_tqdm(tmp_path, capfd):
    pytest.importorskip("tqdm", reason="the bar is one of tqdm")
    aq.quantize(DIGITS, tmp_path / "a.parquet", progress=True)
    assert "100%" in capfd.readouterr().err
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        aq.quantize(DIGITS, tmp_path / "b.parquet", progress=True)
    finally:
        del os.environ["HF_HUB_DISABLE_PROGRESS_BARS"]
    assert "%" not in capfd.readouterr().err


def test_an_exception_of_the_callback_stops_the_job(tmp_path):
    def stop(done, total, tensor):
        raise LookupError(tensor)

    with pytest.raises(LookupError):
        aq.quantize(DIGITS, tmp_path / "a.parquet", progress=stop)
    assert not list(tmp_path.iterdir())


def test_warnings_reach_python(tmp_path):
    write_safetensors(tmp_path / "m.safetensors", {"layer.weight": np.ones((64, 64), np.float32)})
    with pytest.warns(aq.AqWarning, match="unknown architecture"):
        aq.quantize(tmp_path / "m.safetensors", tmp_path / "out.parquet")


INTERRUPTED = """
import sys, time, numpy as np, arrow_quant as aq
def told(done, total, tensor):
    print("working", flush=True)
what, source, out = sys.argv[1:]
try:
    if what == "array":
        weights = np.load(source)
        print("working", flush=True)
        aq.quantize_array(weights, method="trellis6")
    elif what == "compare":
        print("working", flush=True)
        while True:
            aq.compare(source, source)
    else:
        aq.quantize(source, out, method="trellis6", threads=1, progress=told)
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("what", ["file", "folder", "array", "compare"])
def test_ctrl_c_leaves_nothing(what, tmp_path, random):
    source, out = tmp_path / "m.safetensors", tmp_path / "out"
    out.mkdir()
    weights = {f"blocks.{i}.weight": random.standard_normal((2048, 2048), np.float32) for i in range(4)}
    write_safetensors(source, weights)
    if what == "array":
        source = tmp_path / "m.npy"
        np.save(source, np.concatenate(list(weights.values())))
    target = out / ("q.parquet" if what == "file" else "q")
    argv = [sys.executable, "-c", INTERRUPTED, what, str(source), str(target)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout.readline() == "working\n"
    # In the middle of the work, not at its first step.
    time.sleep(0.5)
    sent = time.time()
    child.send_signal(signal.SIGINT)
    # Alone it takes a minute.
    rest = child.communicate(timeout=20)[0].split()
    assert rest[-2] == "interrupted"
    print(f"{what}: KeyboardInterrupt {float(rest[-1]) - sent:.3f} s after the signal")
    assert not list(out.iterdir())
