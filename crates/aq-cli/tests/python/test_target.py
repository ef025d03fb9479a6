"""Sizes that are asked for, on checkpoints with the tensors of published models."""
import subprocess
import sys

import pytest

from conftest import SHARED, aq_json

MAKER = SHARED / "layouts" / "make_checkpoint.py"
LAYOUTS = {"dit-xl-2-256": "0.125", "sd-vae": "0.25", "wavegrad-base": "0.5"}

pytestmark = pytest.mark.skipif(not MAKER.is_file(), reason="../shared/layouts/make_checkpoint.py is not there")


@pytest.mark.parametrize("method", ["entropy", "minmax"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ten_sizes_are_met_from_below(layout, method, tmp_path):
    """By one rate, and by widths and group sizes that differ between layers."""
    argv = [sys.executable, MAKER, layout, tmp_path / "in", "--layers", "2", "--scale", LAYOUTS[layout], "--dtype", "bf16"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    out = tmp_path / "out.parquet"

    def size(*options):
        report = aq_json("quantize", tmp_path / "in", "-o", out, "--force", "--method", method, *options)
        assert out.stat().st_size == report["output"]["bytes"]
        return report["output"]["bytes"]

    least, most = size("--bits", "2"), size("--bits", "8")
    for i in range(10):
        goal = int(least * 1.05 + (most * 0.97 - least * 1.05) * i / 9)
        reached = size("--target-size", str(goal))
        assert goal * 0.99 <= reached <= goal, f"{reached} of {goal} ({reached / goal:.4f})"


def test_the_smallest_output_within_an_error(tmp_path):
    """--max-error with no width is a goal: no layer errs more, and much narrower ones would."""
    argv = [sys.executable, MAKER, "wavegrad-base", tmp_path / "in", "--scale", "0.5", "--dtype", "bf16"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    sizes = []
    for bound in (0.02, 0.002):
        out = tmp_path / f"{bound}.parquet"
        report = aq_json("quantize", tmp_path / "in", "-o", out, "--max-error", bound)
        errors = [t["relative_mse"] for t in report["tensors"] if t["method"]]
        assert max(errors) <= bound and sum(errors) / len(errors) > bound / 3
        sizes.append(report["output"]["bytes"])
    assert sizes[0] < 0.9 * sizes[1]
