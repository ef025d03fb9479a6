"""What all tests share: the built command, the models, and how a process is started."""
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

# The models here are small: more threads only get into each other's way. To be set before numpy is loaded.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import pytest

from small_models import bf16_bits

ROOT = Path(__file__).resolve().parents[4]
DIGITS = ROOT / "docs" / "models" / "digits-dit"
SHARED = ROOT.parent / "shared"

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and resource usage")


def command():
    """The path of `aq`: `AQ_BIN`, or the release build of this workspace."""
    name = "aq.exe" if os.name == "nt" else "aq"
    path = Path(os.environ.get("AQ_BIN", ROOT / "target" / "release" / name))
    if not path.is_file():
        pytest.exit(f"{path} is missing: run `cargo build --release` first", returncode=2)
    return str(path)


def environment(**more):
    """Ours without the variables that change what `aq` does, and with `more`."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AQ_")}
    return {**clean, "NO_COLOR": "1", **more}


def aq(*arguments, env=None, status=0):
    """Runs `aq`, checks its exit status, and gives what it printed on stdout."""
    argv = [command(), *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, encoding="utf-8", env=environment(**(env or {})))
    assert done.returncode == status, f"exit {done.returncode}: {argv}\n{done.stderr}"
    return done.stdout


def aq_json(*arguments, **more):
    return json.loads(aq(*arguments, "--json", **more))


def zoo():
    """The small models: the one in the repository, and those beside it when they are there."""
    found = [pytest.param(DIGITS / "model.safetensors", id="digits-dit")]
    for name in ("image/model.f32", "text/model.bf16", "audio/model.f32"):
        path = SHARED / "zoo" / f"{name}.safetensors"
        gone = pytest.mark.skipif(not path.is_file(), reason=f"../shared/zoo/{name}.safetensors is not there")
        found.append(pytest.param(path, id=name, marks=gone))
    return found


def digest(path):
    """sha256 of a file, or of the names and bytes of all files of a folder."""
    h = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            h.update(str(file.relative_to(path)).encode() + b"\0")
        h.update(file.read_bytes())
    return h.hexdigest()


def write_model(path, tensors):
    """Writes BF16 tensors of these shapes, row by row from a pool of Gaussian values, without holding a tensor."""
    pool = bf16_bits(np.random.default_rng(7).standard_normal(1 << 20).astype(np.float32) * 0.02).tobytes()
    header, offset = {}, 0
    for name, shape in tensors.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        while offset:
            f.write(pool[:offset])
            offset -= min(offset, len(pool))
    return path


@pytest.fixture(scope="session")
def medium_model(tmp_path_factory):
    """24 M weights, 48 MB."""
    shapes = {f"blocks.{i}.mlp.fc1.weight": (4096, 1000) for i in range(6)}
    return write_model(tmp_path_factory.mktemp("medium") / "model.safetensors", shapes)


@pytest.fixture(scope="session")
def large_model(tmp_path_factory):
    """200 M weights, 400 MB, two thirds of them in one tensor."""
    shapes = {"embed.weight": (60000, 2304), **{f"blocks.{i}.mlp.fc1.weight": (4608, 1152) for i in range(12)}}
    return write_model(tmp_path_factory.mktemp("large") / "model.safetensors", shapes)


def pytest_report_header():
    version = subprocess.run([command(), "--version"], capture_output=True, text=True).stdout.strip()
    return f"aq: {version or command()}, python {sys.version.split()[0]}"
