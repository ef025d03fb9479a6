"""Peak memory follows the limit, not the model."""
import json
import subprocess
import sys

import numpy as np
import pytest

from conftest import aq, command, environment, posix_only
from small_models import save_safetensors

pytestmark = posix_only

# A process inherits the peak of the one that starts it, so a small one does. Prints the child's status and peak in bytes.
MEASURE = """
import os, sys
pid = os.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def peak(*arguments):
    argv = [sys.executable, "-S", "-c", MEASURE, command(), *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment())
    status, size = map(int, done.stdout.splitlines()[-1].split())
    assert status == 0, done.stderr
    return size / 2**20, done.stdout.splitlines()[:-1]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ""], ids=["parquet", "arrow", "folder"])
@pytest.mark.parametrize("threads", [1, 2])
def test_quantize_stays_near_the_limit(threads, suffix, large_model, tmp_path):
    out = tmp_path / f"out{suffix}"
    options = ["--bits", 4, "--memory-limit", "64MiB", "--threads", threads, "--json"]
    mib, lines = peak("quantize", large_model, "-o", out, *options)
    assert mib < 96, f"{mib:.0f} MiB"
    reported = json.loads("\n".join(lines))["peak_rss_bytes"] / 2**20
    assert reported == pytest.approx(mib, abs=8)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_reading_commands_do_not_hold_the_model(suffix, large_model, tmp_path):
    out = tmp_path / f"out{suffix}"
    peak("quantize", large_model, "-o", out, "--bits", 4, "--memory-limit", "64MiB", "--quiet")
    for arguments in (["verify", out], ["compare", large_model, out], ["dequantize", out, "-o", tmp_path / "b.safetensors"]):
        mib, _ = peak(*arguments)
        assert mib < 96, f"{arguments[0]}: {mib:.0f} MiB"


@pytest.fixture(scope="module")
def wide_layers(tmp_path_factory):
    """Four layers whose Hessians are 32 MiB each in f64, and inputs of them."""
    folder, random = tmp_path_factory.mktemp("wide"), np.random.default_rng(1)
    names = [f"blocks.{i}.fc" for i in range(4)]
    weight = random.normal(size=(256, 2048)).astype(np.float16)
    inputs = random.normal(size=(1, 256, 2048)).astype(np.float16)
    save_safetensors(folder / "model.safetensors", {f"{name}.weight": weight for name in names})
    save_safetensors(folder / "samples.safetensors", {name: inputs for name in names})
    return folder


@pytest.mark.parametrize("method", ["gptq", "entropy", "trellis"])
def test_what_a_layer_shares_counts(method, wide_layers, tmp_path):
    options = ["--method", method, "--bits", 2, "--calibration", wide_layers / "samples.safetensors", "--threads", 2]
    job = ["quantize", wide_layers / "model.safetensors", *options, "-o", tmp_path / "out.parquet"]
    mib, _ = peak(*job, "--memory-limit", "256MiB", "--quiet")
    assert mib < 256, f"{mib:.0f} MiB"
    aq(*job, "--memory-limit", "128MiB", "--force", status=6)
