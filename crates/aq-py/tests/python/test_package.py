"""The package as it is installed: what importing loads, and its types."""
import subprocess
import sys
from pathlib import Path

import pytest

import arrow_quant as aq
from arrow_quant import _native

PACKAGE = Path(aq.__file__).parent


def loaded_by(code):
    code = f"import sys; {code}; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_loads_next_to_nothing():
    alone = set(loaded_by("pass"))
    assert set(loaded_by("import arrow_quant")) - alone == {"arrow_quant", "arrow_quant._errors"}


def test_using_it_loads_numpy_and_little_else():
    loaded = loaded_by("import arrow_quant, arrow_quant.evaluate; [getattr(arrow_quant, name) for name in arrow_quant.__all__]")
    assert "numpy" in loaded
    assert not {"torch", "pandas", "pyarrow", "tqdm", "jax", "ml_dtypes", "diffusers"} & set(loaded)


def test_version_and_marker():
    assert aq.__version__.count(".") == 2
    assert (PACKAGE / "py.typed").is_file()


def test_options_are_those_of_the_engine():
    assert set(aq.Options.__annotations__) == set(_native.option_names())


def test_every_public_name_is_documented():
    for name in aq.__all__:
        assert getattr(aq, name).__doc__, name
    assert set(aq.__all__) <= set(dir(aq))
    with pytest.raises(AttributeError, match="nothing"):
        aq.nothing


@pytest.mark.parametrize("check", [
    ["mypy", "--strict", "--package", "arrow_quant", "--exclude", "arrow_quant/(torch|diffusers)", "--config-file"],
    ["mypy.stubtest", "arrow_quant._native", "--mypy-config-file"],
], ids=["mypy", "stubtest"])
def test_types(check, tmp_path):
    (tmp_path / "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\n")
    done = subprocess.run([sys.executable, "-m", *check, "mypy.ini"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
