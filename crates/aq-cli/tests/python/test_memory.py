"""Peak memory follows the limit, not the model."""
import json
import subprocess
import sys

import pytest

from conftest import command, environment, posix_only

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
