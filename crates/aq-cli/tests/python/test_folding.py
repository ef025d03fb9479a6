"""Folding by the table of architectures: a model whose factors are folded gives the outputs of one that stores them."""
import numpy as np
import pytest

from conftest import aq, aq_json
from folded_models import DEPTH, LENGTH, SIZE, Dream, DiffusersDiT, MDLM
from small_models import load_safetensors, save_safetensors

TIMES = (0.1, 0.4, 0.7, 1.0)

# What stays as it is, and where the factors of the other layers go, both by the names within a block: the layer that makes their inputs,
# and the first of its outputs that does.
DIT = ("transformer_blocks", {
    ("norm1.linear", "to_out"): {"attn1.to_q": ("norm1.linear", 0), "attn1.to_k": ("norm1.linear", 0),
                                 "attn1.to_v": ("norm1.linear", 0), "ff.net.0.proj": ("norm1.linear", 3 * SIZE)},
    ("norm1.linear", "to_[qkv]"): {"ff.net.0.proj": ("norm1.linear", 3 * SIZE), "attn1.to_out.0": ("attn1.to_v", 0)},
})
MDLM_BLOCKS = ("blocks", {
    ("adaLN", "attn_out"): {"attn_qkv": ("adaLN_modulation", 0), "mlp.0": ("adaLN_modulation", 3 * SIZE)},
    ("adaLN", "attn_qkv"): {"mlp.0": ("adaLN_modulation", 3 * SIZE), "attn_out": ("attn_qkv", 2 * SIZE)},
})
LAYERS = ("model.layers", {
    ("o_proj", "down_proj"): {
        **{f"self_attn.{n}_proj": ("input_layernorm", 0) for n in "qkv"},
        **{f"mlp.{n}_proj": ("post_attention_layernorm", 0) for n in ("gate", "up")}},
    ("[qkv]_proj", "gate_proj", "up_proj"): {"self_attn.o_proj": ("self_attn.v_proj", 0), "mlp.down_proj": ("mlp.up_proj", 0)},
})
# With fewer heads of values than of queries an output of a value feeds several inputs, so there is no factor for it alone.
SHARED_HEADS = ("model.layers", {("[qkv]_proj", "gate_proj", "up_proj"): {"mlp.down_proj": ("mlp.up_proj", 0)}})

CASES = [pytest.param(model, blocks, kept, into, id=f"{name}: {' '.join(into)}")
         for name, model, (blocks, cases) in (("dit-diffusers", DiffusersDiT(), DIT), ("mdlm", MDLM(), MDLM_BLOCKS),
                                              ("dream", Dream(), LAYERS), ("dream, shared heads", Dream(kv_heads=2), SHARED_HEADS))
         for kept, into in cases.items()]


def tokens(seed):
    # Channels differ in size, so that factors have something to do.
    random = np.random.default_rng(seed)
    return random.standard_normal((4, LENGTH, SIZE)) * np.exp(random.standard_normal(SIZE))


def calibration(model, path):
    """Samples of the inputs of every linear layer at some times."""
    seen = {}
    for time in TIMES:
        model(model.weights, tokens(7), time, lambda layer, x: seen.setdefault(layer, []).append(x.reshape(-1, x.shape[-1])))
    samples = {layer: np.stack(rows).astype(np.float16) for layer, rows in seen.items()}
    save_safetensors(path, {**samples, "timesteps": np.array(TIMES, np.float32)}, meta={"aq.time": "t"})


def stored_again(model, folded, blocks, into):
    """The weights of a folded model with the factors back at the layers: divided columns, and what makes the inputs as it was."""
    weights, factors = dict(folded), {}
    for i in range(DEPTH):
        for layer, (target, first) in into.items():
            name, target = f"{blocks}.{i}.{layer}.weight", f"{blocks}.{i}.{target}"
            rows = slice(first, first + weights[name].shape[1])
            size = lambda w: np.linalg.norm(w[f"{target}.weight"].astype(np.float64).reshape(len(w[f"{target}.weight"]), -1)[rows], axis=1)
            factors[name] = size(model.weights) / size(folded)
            weights[name] = folded[name] / factors[name]
    for target, _ in into.values():
        weights.update({name: model.weights[name] for name in folded for i in range(DEPTH) if name.startswith(f"{blocks}.{i}.{target}.")})
    return weights, factors


@pytest.mark.parametrize("model, blocks, kept, into", CASES)
def test_folded_and_stored_factors_give_the_same_outputs(model, blocks, kept, into, tmp_path):
    save_safetensors(tmp_path / "model.safetensors", model.weights)
    calibration(model, tmp_path / "samples.safetensors")
    rules = [part for name in kept for part in ("--tensor-type", f"{name}=skip")]
    options = ("--calibration", tmp_path / "samples.safetensors", "--method", "minmax", "--bits", "4", "--smoothing", "0.5", *rules)
    weights = []
    for name, more in (("stored", ()), ("folded", ("--fold-smoothing", "on"))):
        out = tmp_path / f"{name}.parquet"
        report = aq_json("quantize", tmp_path / "model.safetensors", "-o", out, *options, *more)
        aq("dequantize", out, "-o", out.with_suffix(".safetensors"))
        weights.append(load_safetensors(out.with_suffix(".safetensors")))
    rows = {row["tensor"]: row["to"] for row in report["fallbacks"] if row["to"].startswith("folded into")}
    assert rows == {f"{blocks}.{i}.{layer}.weight": f"folded into {blocks}.{i}.{target}"
                    for i in range(DEPTH) for layer, (target, _) in into.items()}
    stored, folded = weights
    again, factors = stored_again(model, folded, blocks, into)
    if len(set(into.values())) == len(into):
        # Layers that share what makes their inputs share factors when these are folded, and have factors of their own when stored.
        for name, factor in factors.items():
            assert np.abs(again[name] - stored[name]).max() < 1e-5 * np.abs(stored[name]).max(), name
        again = stored
    truth, a, b = (model(w, tokens(8), 0.3) for w in (model.weights, again, folded))
    error, spread = np.linalg.norm(a - b) / np.linalg.norm(a), max(f.max() / f.min() for f in factors.values())
    print(f"relative difference of the outputs {error:.1e}, factors differ {spread:.1f}-fold")
    assert error <= 1e-5
    assert spread > 3, "it was folded"
    assert np.linalg.norm(truth - b) < 0.5 * np.linalg.norm(truth), "and is still the same model"
