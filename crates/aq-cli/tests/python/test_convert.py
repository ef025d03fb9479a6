"""Every format that is written converts to every other without a weight changing."""
import itertools

import numpy as np
import pytest

from conftest import DIGITS, aq, aq_json, digest
from small_models import load_safetensors

PACKED = {"parquet": "out.parquet", "arrow": "out.arrow", "folder": "out"}


@pytest.fixture(scope="module", params=[["--bits", 4], ["--bits", 3, "--group-size", 64, "--rotation", "on"]], ids=["entropy", "affine"])
def outputs(request, tmp_path_factory):
    """One quantized model in each packed format, and its weights."""
    folder = tmp_path_factory.mktemp("outputs")
    for format, name in PACKED.items():
        aq("quantize", DIGITS, "-o", folder / name, "--format", format, *request.param)
    aq("dequantize", folder / "out.parquet", "-o", folder / "weights.safetensors")
    return folder


@pytest.mark.parametrize("source, target", list(itertools.permutations(PACKED, 2)))
def test_packed_formats_keep_every_code(outputs, source, target, tmp_path):
    out = tmp_path / PACKED[target]
    aq("convert", outputs / PACKED[source], "-o", out, "--format", target)
    aq("verify", out)
    codes = aq_json("inspect", outputs / PACKED[source])["tensors"], aq_json("inspect", out)["tensors"]
    assert codes[0] == codes[1]
    aq("dequantize", out, "-o", tmp_path / "weights.safetensors")
    assert digest(tmp_path / "weights.safetensors") == digest(outputs / "weights.safetensors")


@pytest.mark.parametrize("source", PACKED)
def test_safetensors_hold_the_weights(outputs, source, tmp_path):
    aq("convert", outputs / PACKED[source], "-o", tmp_path / "folder", "--format", "safetensors", "--shard-size", "300KB", "--dtype", "f32")
    shards = [load_safetensors(p) for p in sorted((tmp_path / "folder").glob("*.safetensors"))]
    assert len(shards) > 1
    joined, expected = {n: a for shard in shards for n, a in shard.items()}, load_safetensors(outputs / "weights.safetensors")
    assert joined.keys() == expected.keys() and all(np.array_equal(joined[n], expected[n]) for n in joined)


def test_plain_models_convert_too(tmp_path):
    aq("convert", DIGITS / "model.safetensors", "-o", tmp_path / "kept.parquet")
    aq("convert", tmp_path / "kept.parquet", "-o", tmp_path / "back.safetensors")
    a, b = load_safetensors(DIGITS / "model.safetensors"), load_safetensors(tmp_path / "back.safetensors")
    assert a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)
