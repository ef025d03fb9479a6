"""The bytes of a result depend on the model and the settings, and on nothing else."""
import numpy as np
import pytest

from conftest import DIGITS, aq, digest, write_model
from small_models import save_safetensors

VARIANTS = {
    "one thread": (["--threads", "1"], {}),
    "two threads": (["--threads", "2"], {}),
    "three threads": (["--threads", "3"], {}),
    "blocks of 64 KiB": ([], {"AQ_BLOCK_BYTES": "65536"}),
    "blocks of 1 MiB": (["--threads", "2"], {"AQ_BLOCK_BYTES": "1048576"}),
    "blocks of 16 MiB": (["--threads", "2"], {"AQ_BLOCK_BYTES": "16777216"}),
    "little memory": (["--memory-limit", "160MiB"], {}),
    "streaming": (["--streaming"], {}),
    "streaming, small blocks": (["--streaming", "--threads", "2"], {"AQ_BLOCK_BYTES": "65536"}),
    "scalar": ([], {"AQ_SIMD": "scalar"}),
    "avx2": ([], {"AQ_SIMD": "avx2"}),
    "avx512": ([], {"AQ_SIMD": "avx512"}),
    "neon": ([], {"AQ_SIMD": "neon"}),
}


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory):
    """Several slabs a tensor, rows of an odd width, a convolution, a row longer than a block, small kept tensors."""
    shapes = {"a.weight": (3000, 1152), "b.weight": (1500, 1001), "c.weight": (96, 64, 3, 3), "d.weight": (3, 300_001),
              "e.bias": (1152,), "f.weight": (40, 27), "g.weight": (70, 2600)}
    return write_model(tmp_path_factory.mktemp("wide") / "model.safetensors", shapes)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Inputs of layers of the wide model and of the digits."""
    random = np.random.default_rng(8)
    layers = {"a": 1152, "b": 1001, "c": 576, "g": 2600, "blocks.0.mlp.fc1": 128, "blocks.1.mlp.fc2": 512}
    inputs = {k: (random.normal(size=(1, 200, n)) * random.normal(size=n)).astype(np.float16) for k, n in layers.items()}
    path = tmp_path_factory.mktemp("samples") / "samples.safetensors"
    save_safetensors(path, inputs)
    return path


# Formats know nothing of methods: the slow ones are written in one format each.
CASES = [(settings, suffix) for settings in ["2 ls 64", "4 ls 128", "3 minmax 0", "8 minmax 40", "2 hqq 128", "1 binary 64", "2 ternary 0"]
         for suffix in (".parquet", ".arrow", "")]
CASES += [("3 gptq 64", ".parquet"), ("2 entropy 0", ""), ("3 codebook 64", ".arrow"), ("2 trellis 0", ".parquet")]


@pytest.mark.parametrize("settings, suffix", CASES)
@pytest.mark.parametrize("name", ["digits", "wide"])
def test_same_bytes(name, settings, suffix, wide_model, samples, tmp_path):
    model = DIGITS if name == "digits" else wide_model
    bits, method, group = settings.split()
    options = ["--bits", bits, "--method", method, "--group-size", group, "--force", "--quiet"]
    if method == "gptq":
        options += ["--calibration", samples]
    out = tmp_path / f"out{suffix}"
    digests = {}
    for label, (more, env) in VARIANTS.items():
        aq("quantize", model, "-o", out, *options, *more, env=env)
        digests[label] = digest(out)
    assert len(set(digests.values())) == 1, digests
