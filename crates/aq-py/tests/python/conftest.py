"""What the tests share."""
import os
from pathlib import Path

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import pytest

import arrow_quant as aq

ROOT = Path(__file__).resolve().parents[4]
DIGITS = ROOT / "docs" / "models" / "digits-dit"


@pytest.fixture(scope="session")
def command():
    """The path of `aq`, for what must be the same there."""
    path = Path(os.environ.get("AQ_BIN", ROOT / "target" / "release" / ("aq.exe" if os.name == "nt" else "aq")))
    if not path.is_file():
        pytest.skip(f"{path} is missing: run `cargo build --release --package aq-cli`")
    return str(path)


@pytest.fixture(scope="session")
def quantized(tmp_path_factory):
    """The example model at 4 bits."""
    path = tmp_path_factory.mktemp("models") / "digits.parquet"
    aq.quantize(DIGITS, path, bits=4, group_size=64)
    return path


@pytest.fixture
def random():
    return np.random.default_rng(0)


def write_safetensors(path, tensors):
    """F32 tensors as a file."""
    import json

    header, at = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values, "<f4").tobytes())
