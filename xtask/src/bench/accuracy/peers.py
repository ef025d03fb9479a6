"""Quantizes the layers of a model with what other Python packages offer, for `cargo xtask bench --suite accuracy`.

Reads one JSON object: model, tensors, calibration and held_out (or null), folder, group. Prints one JSON object a line:
  {"peer", "asked", "bits_per_weight", "file"}   dequantized weights, to be compared
  {"curve", "points"}                            a bound: [bits, relative output error], ...
  {"skipped", "reason"}
Needs numpy; every other package is optional: ggml-python (or gguf), and those of torch_peers.py.
"""
import ctypes
import json
import os
import sys

import numpy as np

import torch_peers
from reference_quantizers import gptq, gptq_bits, with_gain
from small_models import load_metadata, load_safetensors, save_safetensors

GGML_TYPES = ("IQ1_S IQ1_M TQ2_0 IQ2_XXS IQ2_XS IQ2_S Q2_K IQ3_XXS IQ3_S Q3_K IQ4_XS IQ4_NL Q4_0 Q4_1 Q4_K MXFP4 NVFP4 "
              "Q5_0 Q5_1 Q5_K Q6_K Q8_0").split()


class Layers:
    """The weights to quantize as matrices, and inputs of each where there are any."""

    def __init__(self, request):
        self.request, self.made = request, 0
        model = load_safetensors(request["model"])
        self.shapes = {name: model[name].shape for name in request["tensors"]}
        self.weights = {n: np.ascontiguousarray(model[n].reshape(len(model[n]), -1), np.float32) for n in self.shapes}
        self.calibration = self.samples(request["calibration"])
        self.held_out = self.samples(request["held_out"])

    def samples(self, path):
        if path is None:
            return {}
        tensors, aliases = load_safetensors(path), json.loads(load_metadata(path).get("aq.aliases", "{}"))
        found = {}
        for name in self.weights:
            layer = name.removesuffix(".weight")
            rows = tensors.get(aliases.get(layer, layer))
            if rows is not None:
                found[name] = rows.reshape(-1, rows.shape[-1]).astype(np.float32)
        return found

    def importance(self, name):
        if name not in self.calibration:
            return np.ones(self.weights[name].shape[1])
        return np.square(self.calibration[name]).mean(0)

    def quantize(self, peer, asked, one):
        """one(name, weights) -> (dequantized, bits in all)."""
        bits, out = 0, {}
        for name, w in self.weights.items():
            q, b = one(name, w)
            out[name], bits = np.asarray(q, np.float32).reshape(self.shapes[name]), bits + b
        self.made += 1
        file = os.path.join(self.request["folder"], f"peer{self.made}.safetensors")
        save_safetensors(file, out)
        say(peer=peer, asked=asked, file=file, bits_per_weight=bits / sum(w.size for w in self.weights.values()))


# Whatever else a package prints goes to stderr.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def say(**what):
    print(json.dumps(what), file=ANSWERS, flush=True)


def skip(peer, reason):
    say(skipped=peer, reason=str(reason).splitlines()[0] if str(reason) else type(reason).__name__)


def floats(array):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def ggml_types(layers):
    """ggml's own code, with importances: those of the inputs, or all ones, which it does better with than without any."""
    import ggml
    kinds = {label: getattr(ggml, "GGML_TYPE_" + label) for label in GGML_TYPES}
    widths = {w.shape[1] for w in layers.weights.values()}
    unfit = [label for label, kind in kinds.items() if any(n % ggml.ggml_blck_size(kind) for n in widths)]
    if unfit:
        skip("ggml " + " ".join(unfit), "rows are no multiple of the block")
    for label in sorted(set(kinds) - set(unfit)):
        kind = kinds[label]
        ggml.ggml_quantize_init(kind)

        def one(name, w):
            size, out = ggml.ggml_row_size(kind, w.shape[1]) * len(w), np.empty_like(w)
            data = ctypes.create_string_buffer(size)
            importance = np.ascontiguousarray(layers.importance(name), np.float32)
            start = ctypes.cast(data, ctypes.c_void_p)
            ggml.ggml_quantize_chunk(kind, floats(w), start, 0, *w.shape, floats(importance))
            ggml.ggml_get_type_traits(kind).contents.to_float(start, floats(out), w.size)
            return out, 8 * size

        layers.quantize("ggml " + label, "", one)


def gguf_types(layers):
    """The few types that the package gguf can write with numpy."""
    from gguf import GGMLQuantizationType, quants
    for label in GGML_TYPES:
        kind = GGMLQuantizationType[label]
        try:
            quants.quantize(np.zeros((1, 256), np.float32), kind)
        except NotImplementedError:
            continue

        def one(_, w):
            data = quants.quantize(w, kind)
            return quants.dequantize(data, kind), 8 * data.nbytes

        try:
            layers.quantize("gguf " + label, "", one)
        except quants.QuantError as error:
            skip("gguf " + label, error)


def reference_gptq(layers):
    """GPTQ with act-order, static groups and gain, in numpy."""
    group = layers.request["group"]
    for bits in (2, 3, 4):
        def one(name, w):
            x = layers.calibration[name]
            return with_gain(w, gptq(w, x, bits, group), x), gptq_bits(bits, group) * w.size
        layers.quantize("numpy GPTQ", str(bits), one)


def spectrum(w, x):
    """Variances of the independent parts of the output error, if the weights were normal with these row and column sizes."""
    columns = np.square(w).mean(0) + 1e-30
    rows = (np.square(w) / columns).mean(1)
    scaled = x.astype(np.float64) * np.sqrt(columns)
    return np.maximum(np.outer(rows, np.linalg.eigvalsh(scaled.T @ scaled / len(x))).ravel(), 1e-30)


def water_filling(variances, bits):
    """Least relative error at `bits` a component: reverse water-filling (Cover and Thomas, chapter 10)."""
    low, high = -80.0, np.log2(variances.max())
    for _ in range(60):
        level = (low + high) / 2
        rate = np.maximum(np.log2(variances) - level, 0).mean() / 2
        low, high = (level, high) if rate > bits else (low, level)
    return np.minimum(variances, 2 ** level).sum() / variances.sum()


def output_bound(layers):
    spectra = [spectrum(w, np.concatenate([layers.calibration[n], layers.held_out[n]])) for n, w in layers.weights.items()]
    points = [[bits, float(np.mean([water_filling(s, bits) for s in spectra]))] for bits in np.arange(.5, 6.6, .5)]
    say(curve="reverse water-filling, normal weights", points=points)


def attempt(peer, run, layers):
    try:
        run(layers)
        return True
    except ImportError as error:
        skip(peer, error)
    except Exception as error:
        skip(peer, f"{type(error).__name__}: {error}")
    return False


def main():
    layers = Layers(json.load(sys.stdin))
    if not attempt("ggml, pip install ggml-python", ggml_types, layers):
        attempt("gguf, pip install gguf", gguf_types, layers)
    torch_peers.measure(layers, attempt)
    if layers.calibration:
        attempt("numpy GPTQ", reference_gptq, layers)
        attempt("output bound", output_bound, layers)


if __name__ == "__main__":
    main()
