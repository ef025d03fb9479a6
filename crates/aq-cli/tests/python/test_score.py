"""What quantization does to the pictures of a real model."""
import pytest

import eval_image
from conftest import DIGITS, aq


def frechet(tmp_path, *options):
    out, back = tmp_path / "out.parquet", tmp_path / "back.safetensors"
    aq("quantize", DIGITS, "-o", out, *options, "--quiet")
    aq("dequantize", out, "-o", back)
    cls = eval_image.load_safetensors(DIGITS / "eval" / "eval.safetensors")
    samples, _ = eval_image.sample(eval_image.load(DIGITS, back), n=200, steps=10, seed=0)
    return eval_image.fd_to_real(cls, samples)[0]


def test_two_bits_with_gain_keep_the_pictures(tmp_path):
    assert frechet(tmp_path, "--bits", 2, "--group-size", 64, "--method", "ls") <= 13


def test_eight_bits_change_next_to_nothing(tmp_path):
    cls = eval_image.load_safetensors(DIGITS / "eval" / "eval.safetensors")
    samples, _ = eval_image.sample(eval_image.load(DIGITS), n=200, steps=10, seed=0)
    reference = eval_image.fd_to_real(cls, samples)[0]
    assert frechet(tmp_path, "--bits", 8) == pytest.approx(reference, abs=0.5)
