"""Quantized inputs against the formula of their stored form, in plain numpy."""
import base64
import json

import numpy as np
import pytest
import torch
from conftest import error

import arrow_quant as aq
import arrow_quant.torch as aqt
from arrow_quant.torch._weight import PackedWeight


def formula(x, low, high, bits):
    """Values of one range, every operation in f32."""
    top = np.float32(2**bits - 1)
    low, high = np.float32(min(low, 0)), np.float32(max(high, 0))
    scale = np.float32((high - low) / top)
    if scale == 0:
        return np.zeros_like(x)
    zero = np.clip(np.round(-low / scale), 0, top)
    return (np.clip(np.round(x / scale) + zero, 0, top) - zero) * scale


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_static_and_grouped_ranges(bits):
    x = np.random.standard_normal((5, 48)).astype(np.float32) * 3
    static = aqt.Activations(bits, "static", low=[-2.0], high=[4.0])
    assert np.array_equal(static.fake(torch.from_numpy(x)).numpy(), formula(x, -2, 4, bits))
    groups = aqt.Activations(bits, "groups", boundaries=[10.0, 20.0], low=[-1.0, -2.0, 0.0], high=[1.0, 3.0, 5.0])
    for t, low, high in ((9.9, -1, 1), (10, -2, 3), (19, -2, 3), (20, 0, 5), (1e9, 0, 5)):
        with aqt.timestep(t):
            assert np.array_equal(groups.fake(torch.from_numpy(x)).numpy(), formula(x, low, high, bits))
    with pytest.raises(aq.ConfigError, match="timestep"):
        groups.fake(torch.from_numpy(x))


@pytest.mark.parametrize("group_size,clip", [(0, 1.0), (16, 1.0), (32, 0.8), (20, 1.0)])
def test_ranges_of_tokens(group_size, clip):
    x = np.random.standard_normal((5, 48)).astype(np.float32)
    x[1] = 0
    plan = aqt.Activations(4, "token", group_size, clip=[clip])
    want, step = np.empty_like(x), group_size or 48
    for row in range(5):
        for c in range(0, 48, step):
            part, factor = x[row, c : c + step], np.float32(clip)
            low, high = np.float32(min(part.min(), 0)) * factor, np.float32(max(part.max(), 0)) * factor
            want[row, c : c + step] = formula(part, low, high, 4)
    assert np.array_equal(plan.fake(torch.from_numpy(x)).numpy(), want)


@pytest.mark.parametrize("bits,weight_bits", [(8, 8), (8, 4), (4, 4), (8, 2)])
@pytest.mark.parametrize("plan", [
    {"mode": "token"},
    {"mode": "token", "clip": [0.9]},
    {"mode": "static", "low": [-1.5], "high": [6.0]},
])
@pytest.mark.parametrize("tokens", [1, 2, 16, 35])
@pytest.mark.parametrize("group", [64, 128])
def test_integer_products_equal_those_of_what_codes_stand_for(bits, weight_bits, plan, tokens, group):
    stored = aq.quantize_array(np.random.standard_normal((130, 256)), bits=weight_bits, group_size=group)
    packed, activations = PackedWeight(stored), aqt.Activations(bits, **plan)
    x = torch.randn(tokens, 256) + 1
    want = activations.fake(x) @ torch.from_numpy(stored.dequantize()).T
    assert error(packed.quantized_product(x, activations), want) < 1e-5


def stored_shift(values):
    """A shift as a file has it, and its values."""
    scale = np.float32(np.abs(values).max() / 127)
    codes = np.rint(values / scale).astype(np.int8)
    return {"scale": float(scale), "codes": base64.b64encode(codes.tobytes()).decode()}, codes.astype(np.float32) * scale


@pytest.mark.parametrize("tokens", [1, 16])
@pytest.mark.parametrize("low_rank", ["off", 4])
@pytest.mark.parametrize("group_size", [0, 64])
def test_shifted_channels(tokens, low_rank, group_size):
    centers = [np.random.standard_normal(256) * 3, np.random.standard_normal(256)]
    shifts, values = zip(*map(stored_shift, centers), strict=True)
    plan = {"bits": 8, "mode": "token", "group_size": group_size, "boundaries": [5.0], "shift": list(shifts)}
    text = json.dumps({"schema": "aq.activations/1", "time": "t", "layers": {"fc": plan}})
    activations = aqt.read_activations({"aq.activations": text})["fc"]
    plain = aqt.Activations(8, "token", group_size)
    stored = aq.quantize_array(np.random.standard_normal((130, 256)), bits=8, group_size=128, low_rank=low_rank)
    packed, weight = PackedWeight(stored), torch.from_numpy(stored.dequantize())
    for t, center in ((0.0, values[0]), (9.0, values[1]), (0.0, values[0])):
        center = torch.from_numpy(center)
        x = 0.1 * torch.randn(tokens, 256) + center
        with aqt.timestep(t):
            seen, got = activations.fake(x), packed.quantized_product(x, activations)
        assert torch.equal(seen, plain.fake(x - center) + center)
        assert error(got, seen @ weight.T) < 1e-5
        assert error(seen, x) < 0.3 * error(plain.fake(x), x), "which is what it is for"
    with pytest.raises(aq.ConfigError, match="timestep"):
        activations.fake(x)


def test_a_shift_of_other_channels_is_refused():
    stored = aq.quantize_array(np.random.standard_normal((8, 128)), bits=8)
    with pytest.raises(aq.InputError, match="3 shifts for 128 channels"):
        aqt.QuantLinear(stored, activations=aqt.Activations(8, "token", shift=[torch.zeros(3)]))


def test_smoothing_and_low_rank_with_integer_products():
    options = {"rotation": True, "low_rank": 4, "bits": 8}
    stored = aq.quantize_array(np.random.standard_normal((64, 128)), **options)
    packed, x = PackedWeight(stored, keep_transform=True), torch.randn(20, 128)
    y = packed.quantized_product(packed.transform(x), aqt.Activations(8, "token"))
    assert error(y, x @ torch.from_numpy(stored.dequantize()).T) < 1e-2


def test_the_stored_form_is_read_and_checked():
    layer = {"bits": 8, "mode": "groups", "boundaries": [250.0], "low": [-1.5, -2.0], "high": [2.5, 2.6], "group_size": 0}
    text = json.dumps({"schema": "aq.activations/1", "time": "t", "layers": {"blocks.0": layer}})
    assert aqt.read_activations({"aq.activations": text})["blocks.0"].high == [2.5, 2.6]
    assert aqt.read_activations({}) == {}
    bad_shifts = ([{"scale": 1.0, "codes": "?"}], [{"codes": "AA=="}], [7], [{"scale": 1.0, "codes": "AA=="}] * 3)
    for change in ({"low": [1.0]}, {"mode": "other"}, {"bits": 1}, *({"shift": shift} for shift in bad_shifts)):
        bad = json.dumps({"schema": "aq.activations/1", "layers": {"blocks.0": {**layer, **change}}})
        with pytest.raises(aq.InputError, match="aq.activations"):
            aqt.read_activations({"aq.activations": bad})
