"""Types of what needs torch; those of the rest are tested without it."""
import subprocess
import sys


def test_types(tmp_path):
    (tmp_path / "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\n")
    argv = [sys.executable, "-m", "mypy", "--strict", "--package", "arrow_quant", "--config-file", "mypy.ini"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
