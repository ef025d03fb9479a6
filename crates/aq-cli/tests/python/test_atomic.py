"""A destination holds a complete result or what was there before, however the work ends."""
import random
import signal
import subprocess
import time

import pytest

from conftest import aq, command, digest, environment, posix_only

pytestmark = posix_only
OPTIONS = ["--bits", "4", "--method", "ls", "--threads", "1", "--force", "--quiet"]


def start(model, out):
    argv = [command(), "quantize", str(model), "-o", str(out), *OPTIONS]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment())


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ""], ids=["parquet", "arrow", "folder"])
def test_killed_at_random_moments(suffix, medium_model, tmp_path):
    out = tmp_path / f"out{suffix}"
    begin = time.monotonic()
    assert start(medium_model, out).wait() == 0
    whole = time.monotonic() - begin
    complete = digest(out)
    aq("quantize", medium_model, "-o", out, "--bits", 2, "--group-size", 256, "--force", "--quiet")
    earlier = digest(out)
    fate = random.Random(2)
    killed = 0
    for _ in range(20):
        process = start(medium_model, out)
        try:
            process.wait(fate.uniform(0, whole))
        except subprocess.TimeoutExpired:
            process.kill()
        killed += process.wait() == -signal.SIGKILL
        assert digest(out) in (earlier, complete), "neither the earlier nor the complete result"
    assert killed >= 10, "too few runs were killed to say anything"


def test_killed_before_there_was_anything(medium_model, tmp_path):
    fate = random.Random(3)
    for i in range(5):
        out = tmp_path / f"{i}.parquet"
        process = start(medium_model, out)
        time.sleep(fate.uniform(0, 0.3))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            assert not out.exists()
        else:
            aq("verify", out)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_within_a_second_and_leave_nothing(number, status, suffix, large_model, tmp_path):
    for delay in (0.05, 0.5):
        process = start(large_model, tmp_path / f"out{suffix}")
        time.sleep(delay)
        sent = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) == status, process.stderr.read()
        assert time.monotonic() - sent < 1.0
        assert list(tmp_path.iterdir()) == []


def test_a_failed_job_keeps_the_earlier_result(medium_model, tmp_path):
    out, cut = tmp_path / "out.parquet", tmp_path / "cut.safetensors"
    aq("quantize", medium_model, "-o", out, "--bits", 2, "--quiet")
    earlier = digest(out)
    cut.write_bytes(medium_model.read_bytes()[:-100])
    aq("quantize", cut, "-o", out, "--force", status=4)
    assert digest(out) == earlier and sorted(p.name for p in tmp_path.iterdir()) == ["cut.safetensors", "out.parquet"]
