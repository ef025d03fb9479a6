"""Help, manual pages and completions."""
import json
import re
import shlex
import shutil

import pytest

from conftest import DIGITS, aq

COMMANDS = ["quantize", "plan", "inspect", "compare", "calibrate", "verify", "dequantize", "convert", "completions", "man"]


def test_manual_pages_are_written_for_every_command(tmp_path):
    aq("man", tmp_path / "man1")
    pages = {p.name: p.read_text() for p in (tmp_path / "man1").iterdir()}
    assert {"aq.1", *(f"aq-{name}.1" for name in COMMANDS)} <= pages.keys()
    assert ".TH" in pages["aq-quantize.1"] and "group\\-size" in pages["aq-quantize.1"]
    assert ".TH aq" in aq("man") and "quantize" in aq("man")
    (tmp_path / "file").write_text("")
    aq("man", tmp_path / "file", status=2)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell", "elvish"])
def test_completions_know_the_commands(shell):
    assert all(name in aq("completions", shell) for name in COMMANDS)


def test_examples_of_the_help_are_accepted(tmp_path, monkeypatch):
    """Every example that quantizes, compares or converts runs on the example model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.safetensors").symlink_to(DIGITS / "model.safetensors")
    (tmp_path / "samples.safetensors").symlink_to(DIGITS / "calib.safetensors")
    (tmp_path / "transformer").mkdir()
    shutil.copy(DIGITS / "model.safetensors", tmp_path / "transformer")
    (tmp_path / "transformer" / "config.json").write_text("{}")
    aq("quantize", "model.safetensors", "-o", "ls.parquet", "--method", "ls")
    ran = 0
    for name in ("quantize", "plan", "compare", "dequantize", "convert"):
        for line in re.findall(r"^  aq (.*)$", aq(name, "--help"), re.M):
            words = shlex.split(line.split(" > ")[0])
            if "pipeline/" in words:
                continue
            if "--target-size" in words:
                words[words.index("--target-size") + 1] = "500KB"
            out = aq(*words, *(["--force"] if name == "quantize" and "--dry-run" not in words else []))
            if name == "plan" and "--table" not in words:
                json.loads(out)
            ran += 1
    assert ran >= 10
