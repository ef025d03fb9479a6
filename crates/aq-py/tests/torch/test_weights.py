"""Packed weights and their products against the decoded weights in torch."""
import numpy as np
import pytest
import torch
from conftest import error
from torch.nn import functional

import arrow_quant as aq
import arrow_quant.torch as aqt
from arrow_quant.torch._packing import decode
from arrow_quant.torch._weight import FEW_TOKENS, PackedWeight

SHAPES = [(256, 64), (384, 128), (200, 64), (128, 0), (72, 24), (1030, 128)]


@pytest.mark.parametrize("method", ["ls", "minmax"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("cols,group", SHAPES)
def test_affine_weights_stay_as_stored(bits, method, cols, group):
    weight = np.random.standard_normal((70, cols)).astype(np.float32)
    stored = aq.quantize_array(weight, bits=bits, group_size=group, method=method)
    packed, truth = PackedWeight(stored), torch.from_numpy(stored.dequantize())
    assert torch.equal(packed.dense(), truth)
    # What other devices do gives the same bits.
    grids = (*(packed.floats(name) for name in ("scales", "offsets", "zeros")), packed.bits, packed.group, packed.cols)
    assert torch.equal(decode(packed.codes, *grids) * packed._factors()[:, None], truth)
    for tokens in (1, FEW_TOKENS, FEW_TOKENS + 1, 40):
        x = torch.randn(tokens, cols)
        assert error(packed.product(x), x @ truth.T) < 1e-5


@pytest.mark.parametrize("options", [{"rotation": True}, {"low_rank": 8}, {"rotation": True, "low_rank": 8}])
@pytest.mark.parametrize("method", ["ls", "entropy", "trellis", "codebook", "ternary"])
def test_side_data_is_applied_to_inputs(method, options):
    stored = aq.quantize_array(np.random.standard_normal((96, 256)), bits=2 if method == "ternary" else 4, method=method, **options)
    truth, x = torch.from_numpy(stored.dequantize()), torch.randn(33, 256)
    limit = 1e-5 if method == "ls" else 5e-4
    for keep in (False, True):
        packed = PackedWeight(stored, keep_transform=keep)
        assert error(packed.product(packed.transform(x)), x @ truth.T) < limit
        assert error(packed.dense(), truth) < limit


@pytest.mark.parametrize("options", [{}, {"rotation": True, "low_rank": 4}], ids=str)
def test_other_codecs_can_be_held_in_8_bits(options):
    stored = aq.quantize_array(np.random.standard_normal((128, 512)), method="entropy", rate=3.0, **options)
    packed, x = PackedWeight(stored, torch.int8, keep_transform=True), torch.randn(30, 512)
    assert error(packed.product(packed.transform(x)), x @ torch.from_numpy(stored.dequantize()).T) < 1e-2
    assert aqt.memory_bytes(packed) < 0.55 * aqt.memory_bytes(PackedWeight(stored))


def test_row_exponents_reach_the_product():
    scale = np.exp2(np.arange(-20, 21, dtype=np.float32))[:, None]
    stored = aq.quantize_array(np.random.standard_normal((41, 128)) * scale, bits=4)
    packed, truth = PackedWeight(stored), torch.from_numpy(stored.dequantize())
    assert packed.exponents.any()
    for tokens in (1, 20):
        x = torch.randn(tokens, 128)
        rows = (packed.product(x) - x @ truth.T).norm(dim=0) / truth.norm(dim=1)
        assert rows.max() < 1e-4


def test_a_weight_of_several_slabs_is_joined():
    weight = np.random.standard_normal((1100, 1024)).astype(np.float32)
    stored = aq.quantize_array(weight, bits=4, group_size=128)
    assert len(stored.slabs) == 2
    packed = PackedWeight(stored)
    assert torch.equal(packed.dense(), torch.from_numpy(stored.dequantize()))


def test_gradients_reach_the_inputs():
    stored = aq.quantize_array(np.random.standard_normal((16, 64)), bits=4)
    x = torch.randn(2, 64, requires_grad=True)
    PackedWeight(stored).product(x).sum().backward()
    assert error(x.grad, torch.from_numpy(stored.dequantize()).sum(0).expand(2, 64)) < 1e-5


def test_half_precision_inputs_give_half_precision_outputs():
    stored = aq.quantize_array(np.random.standard_normal((16, 64)), bits=4)
    truth = torch.from_numpy(stored.dequantize())
    for tokens in (1, 30):
        x = torch.randn(tokens, 64, dtype=torch.bfloat16)
        y = PackedWeight(stored).product(x)
        assert y.dtype == torch.bfloat16
        assert error(y, functional.linear(x.float(), truth)) < 2e-2
