"""The reader printed in docs/format.md gives what `aq dequantize` gives, to the last bit."""
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import DIGITS, ROOT, aq, write_model
from small_models import load_safetensors


def printed_reader():
    """The function `tensors` of the page."""
    page = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    names = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[-1], names)
    return names["tensors"]


@pytest.fixture(scope="session")
def odd(tmp_path_factory):
    """Rows that end within a group, rows of one column, and a slab of two streams."""
    shapes = {"a.weight": (70, 333), "b.weight": (20, 20, 3, 3), "c.weight": (300, 1), "d.weight": (250, 600)}
    return write_model(tmp_path_factory.mktemp("odd") / "odd.safetensors", shapes)


def assert_equal(source, folder, *settings):
    out, back = folder / "q.parquet", folder / "q.safetensors"
    aq("quantize", source, "-o", out, *settings, "--quiet")
    aq("dequantize", out, "-o", back, "--dtype", "f32")
    expected, decoded = load_safetensors(back), printed_reader()(out)
    assert decoded and decoded.keys() <= expected.keys()
    for name, array in decoded.items():
        assert np.array_equal(array.view(np.uint32), expected[name].view(np.uint32)), name


@pytest.mark.parametrize("settings", [
    ("--method", "ls", "--bits", 4, "--group-size", 64),
    ("--method", "entropy", "--rate", 0.6),
    ("--method", "entropy", "--rate", 7.5),
], ids=lambda s: "-".join(map(str, s[1::2])))
def test_the_printed_reader_equals_dequantize(settings, odd, tmp_path):
    assert_equal(odd, tmp_path, *settings)


def test_the_printed_reader_knows_steps_of_columns(tmp_path):
    calibration = DIGITS / "calib.safetensors"
    rules = ["--tensor-type", "^blocks.0.=entropy:2", "--tensor-type", ".*=skip"]
    assert_equal(DIGITS, tmp_path, "--calibration", calibration, *rules)
    rows = pq.read_table(tmp_path / "q.parquet").to_pylist()
    assert any(row["codec"] == "entropy" and row["offsets"][0] & 16 for row in rows)
