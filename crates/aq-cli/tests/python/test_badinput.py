"""Truncated, lying, hostile and merely odd files: the corpus of ../badinput, in the native layout."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import DIGITS, aq, command, environment, posix_only

HERE = Path(__file__).resolve().parent.parent / "badinput"
COUNTS = {"safetensors": 52, "index": 9, "parquet": 36, "gguf": 26, "config": 7}

pytestmark = posix_only


def generate(folder, *more):
    subprocess.run([sys.executable, HERE / "generate.py", folder, *more], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("badinput") / "cases")


def judge(corpus, kind, out_name="out.parquet", more=""):
    quantize = f"'{command()}' quantize {{input}} -o {{output}} --bits 4 {more}"
    argv = [sys.executable, HERE / "check.py", corpus, "--cmd", quantize, "--only", f"{kind}/", "--out-name", out_name]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.search(r"^(\d+) passed, 0 failed$", done.stdout, re.M).group(1))


@pytest.mark.parametrize("kind", COUNTS)
def test_every_case(kind, corpus):
    assert judge(corpus, kind) == COUNTS[kind]


@pytest.mark.parametrize("kind", COUNTS)
def test_every_case_streaming_to_a_folder(kind, corpus):
    assert judge(corpus, kind, "out", "--streaming --memory-limit 64MiB") == COUNTS[kind]


def test_every_gguf_case_by_other_commands(corpus, tmp_path):
    dequantize = f"'{command()}' dequantize {{input}} -o {{output}}"
    argv = [sys.executable, HERE / "check.py", corpus, "--only", "gguf/", "--out-name", "out.safetensors", "--cmd"]
    done = subprocess.run([*argv, dequantize], capture_output=True, text=True, env=environment())
    assert f"{COUNTS['gguf']} passed, 0 failed" in done.stdout, done.stdout
    for case in json.loads((corpus / "manifest.json").read_text())["cases"]:
        if case["format"] == "gguf":
            argv = [command(), "inspect", corpus / case["input"]]
            done = subprocess.run(argv, capture_output=True, text=True, env=environment())
            assert (done.returncode == 0) == (case["expect"] == "ok") and "panicked" not in done.stderr, case["id"]


def test_damage_to_a_quantized_file(tmp_path):
    own = tmp_path / "own.parquet"
    aq("quantize", DIGITS, "-o", own, "--quiet")
    corpus = generate(tmp_path / "cases", "--base-parquet", own)
    assert judge(corpus, "parquet") == COUNTS["parquet"]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_flipped_byte_is_found_wherever_it_is(suffix, tmp_path):
    own, bad = tmp_path / f"own{suffix}", tmp_path / f"bad{suffix}"
    aq("quantize", DIGITS, "-o", own, "--quiet")
    good = own.read_bytes()
    for step in range(40):
        at = 16 + step * (len(good) // 2 - 16) // 40          # payload: the second half has the small kept tensors
        bad.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1:])
        done = subprocess.run([command(), "verify", bad], capture_output=True, text=True, env=environment())
        assert "panicked" not in done.stderr
        if done.returncode == 0:
            # Some bytes mean nothing: padding, or a field that readers may ignore. What is stored must be unharmed then.
            back = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
            for file, out in zip((own, bad), back):
                aq("dequantize", file, "-o", out, "--force")
            assert back[0].read_bytes() == back[1].read_bytes(), f"byte {at}"
        else:
            assert done.returncode in (3, 4) and bad.name in done.stderr, f"byte {at}: {done.stderr}"
