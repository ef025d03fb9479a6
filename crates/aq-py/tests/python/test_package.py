"""The package as it is installed: what importing loads, and its types."""
import subprocess
import sys
from pathlib import Path

import pytest

import arrow_quant as aq

PACKAGE = Path(aq.__file__).parent


def test_importing_loads_numpy_and_little_else():
    code = "import sys, arrow_quant, arrow_quant.evaluate; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"torch", "pandas", "pyarrow", "tqdm", "jax", "ml_dtypes"} & set(loaded)


def test_version_and_marker():
    assert aq.__version__.count(".") == 2
    assert (PACKAGE / "py.typed").is_file()


def test_every_public_name_is_documented():
    for name in aq.__all__:
        assert getattr(aq, name).__doc__, name


@pytest.mark.parametrize("check", [
    ["mypy", "--strict", "--package", "arrow_quant", "--exclude", "torch", "--config-file"],
    ["mypy.stubtest", "arrow_quant._native", "--mypy-config-file"],
], ids=["mypy", "stubtest"])
def test_types(check, tmp_path):
    (tmp_path / "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\n")
    done = subprocess.run([sys.executable, "-m", *check, "mypy.ini"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
