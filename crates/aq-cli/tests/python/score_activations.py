"""Scores models whose inputs of layers are quantized too: one static range, uniform and optimal groups of timesteps, and a range a token.

  python score_activations.py [FOLDER] [--widths 8:8 4:8 4:4] [--groups 5 10 20] [--seeds 3] [--smoothing off auto] [--shift on off] [--modes MODE ...]

FOLDER is that of the example model, or one of a model zoo (see scoring.py). Weights are quantized by the default method with calibration. For each width W:A of weights and
inputs a table: error of the weights, mean output error of the layers on held-out inputs that are quantized too, and the scores over seeds, mean and spread.
The first row is the model itself, whose spread is what sampling alone does. Of audio, DNSMOS (overall) is shown too where the packages speechmos,
onnxruntime and librosa are installed.
"""
import argparse
import base64
import functools
import importlib.util
import itertools
import json
import os
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more get into each other's way in models this small

import numpy as np

from native_format import split_side
from scoring import ROOT, SCORES, SETTINGS, Model, aq_json
from small_models import load_metadata, load_safetensors

# What one unit of the time that models are called with is, in that of the calibration file.
UNIT = {"image": 1000, "text": 1, "audio": 60}


# What is shown of each kind of model.
SHOWN = dict(SCORES)
HAS_DNSMOS = all(importlib.util.find_spec(name) for name in ("speechmos", "onnxruntime", "librosa"))
if HAS_DNSMOS:
    SHOWN["audio"] = [*SCORES["audio"], ("DNSMOS", "ovrl", ".2f")]


def quantized(x, bits, low, high):
    """Values on the asymmetric grid of a range with 0 in it."""
    top = np.float32(2**bits - 1)
    low, high = np.minimum(low, 0).astype(np.float32), np.maximum(high, 0).astype(np.float32)
    scale = (high - low) / top
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    zero = np.clip(np.rint(-low / scale), 0, top)
    return ((np.clip(np.rint(x / scale) + zero, 0, top) - zero) * scale).astype(np.float32)


class Activations:
    """What a file says of the inputs of layers, as a function of a layer's name, its inputs and the time."""

    def __init__(self, metadata, factors, unit):
        self.layers = json.loads(metadata["aq.activations"])["layers"]
        self.factors, self.unit = factors, unit

    def __call__(self, name, x, t):
        if name not in self.layers:
            return x
        s = self.factors.get(name, np.float32(1))
        return self.values(self.layers[name], (x / s).astype(np.float32), t * self.unit) * s

    @staticmethod
    def values(plan, x, t):
        group = int(np.searchsorted(plan.get("boundaries", []), t, side="right"))
        if "shift" in plan:
            shift = plan["shift"][group if len(plan["shift"]) > 1 else 0]
            center = np.frombuffer(base64.b64decode(shift["codes"]), np.int8).astype(np.float32) * np.float32(shift["scale"])
            return Activations.values({k: v for k, v in plan.items() if k != "shift"}, x - center, t) + center
        if plan["mode"] != "token":
            return quantized(x, plan["bits"], np.float32(plan["low"][group]), np.float32(plan["high"][group]))
        clip = np.float32(plan.get("clip", [1.0] * (group + 1))[group])
        size = plan.get("group_size", 0) or x.shape[-1]
        parts = [x[..., i:i + size] for i in range(0, x.shape[-1], size)]
        ends = [(p.min(-1, keepdims=True) * clip, p.max(-1, keepdims=True) * clip) for p in parts]
        return np.concatenate([quantized(p, plan["bits"], *e) for p, e in zip(parts, ends)], -1)


def smoothing(path):
    """The factors of each layer that has some."""
    import pyarrow.parquet as pq

    found = {}
    for row in pq.read_table(path, columns=["tensor", "row_start", "codec", "extra"]).to_pylist():
        if not row["codec"].endswith("+transform") or row["row_start"]:
            continue
        side = split_side(row)
        while side:
            size = 5 + int.from_bytes(side[1:5], "little")
            if side[0] == 2:
                found[row["tensor"].removesuffix(".weight")] = np.frombuffer(side[5:size], "<f2").astype(np.float32)
            side = side[size:]
    return found


def output_error(model, weights, activations):
    """Mean over layers of the relative squared error of outputs on held-out inputs."""
    samples, metadata = load_safetensors(model.held_out), load_metadata(model.held_out)
    aliases = json.loads(metadata.get("aq.aliases", "{}"))
    original, new = load_safetensors(model.weights), load_safetensors(weights)
    errors = []
    for key, quantized_weight in new.items():
        name = key.removesuffix(".weight")
        if not key.endswith(".weight") or aliases.get(name, name) not in samples:
            continue
        w = original[key].reshape(len(quantized_weight), -1).astype(np.float32)
        q = quantized_weight.reshape(w.shape).astype(np.float32)
        error = truth = 0.0
        for x, t in zip(samples[aliases.get(name, name)].astype(np.float32), samples["timesteps"]):
            y = x @ w.T
            d = activations(name, x, float(t) / activations.unit) @ q.T - y
            error, truth = error + float((d * d).sum()), truth + float((y * y).sum())
        errors.append(error / truth)
    return float(np.mean(errors))


def scores(model, weights, activations, seeds):
    """Mean and half the spread of each score over seeds; nothing for none."""
    if not seeds:
        return []
    rows = []
    other = model.evaluation.load(model.folder, weights) if weights else model.reference
    if activations is not None:
        other.actq = activations
    for seed in range(seeds):
        settings = {**SETTINGS[model.kind], "seed": seed}
        if model.kind == "audio":
            settings["mos"] = HAS_DNSMOS
        found = model.evaluation.evaluate(other, model.reference, model.folder, **settings)
        found.update(found.get("dnsmos", {}))
        rows.append([found[key] for _, key, _ in SHOWN[model.kind]])
    rows = np.array(rows, float)
    with np.errstate(invalid="ignore"):
        spread = (rows.max(0) - rows.min(0)) / 2
    return [f"{m:{form}} +- {s:{form}}" if np.isfinite(s) else "exact"
            for m, s, (_, _, form) in zip(rows.mean(0), spread, SHOWN[model.kind])]


def remembered(grid):
    """`eps_grid`, called once for each model in a row."""
    last = functools.lru_cache(maxsize=2)(lambda call: grid(call.model, *call.rest))

    class Call:
        def __init__(self, model, rest):
            self.model, self.rest = model, rest

        def __hash__(self):
            return id(self.model)

        def __eq__(self, other):
            return self.model is other.model

    return lambda model, *rest: last(Call(model, rest))


def of_each(dnsmos):
    """`dnsmos`, called once for each audio."""
    known = {}

    def scores(x):
        key = hash(np.concatenate(x).tobytes())
        if key not in known:
            known[key] = dnsmos(x)
        return known[key]

    return scores


def modes(groups, only):
    """Names and options of the ways to choose ranges, those in `only` where it is not empty."""
    for name, options in every_mode(groups):
        if not only or name in only:
            yield name, options


def every_mode(groups):
    yield "static", ["--act-mode", "static"]
    for n in groups:
        yield f"{n} uniform groups", ["--act-mode", "uniform", "--time-groups", n]
        yield f"{n} optimal groups", ["--act-mode", "groups", "--time-groups", n]
    yield "token", ["--act-mode", "token"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=ROOT / "docs/models/digits-dit")
    parser.add_argument("--widths", nargs="+", default=["8:8", "4:8", "4:4"], metavar="W:A")
    parser.add_argument("--groups", nargs="+", type=int, default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=3, help="0 for the errors alone")
    parser.add_argument("--smoothing", nargs="+", default=["off"])
    parser.add_argument("--shift", nargs="+", default=["on"], choices=["on", "off"])
    parser.add_argument("--modes", nargs="+", default=[], help="some of the rows, such as token or '10 optimal groups'")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        model = Model(arguments.folder, work)
        if hasattr(model.evaluation, "eps_grid"):
            # It does not depend on the seed.
            model.evaluation.eps_grid = remembered(model.evaluation.eps_grid)
        if HAS_DNSMOS and model.kind == "audio":
            model.evaluation.dnsmos = of_each(model.evaluation.dnsmos)
        heads = ["weights:inputs", "ranges", "smoothing", "shift", "relative MSE", "output error"]
        heads += [h for h, _, _ in SHOWN[model.kind]] if arguments.seeds else []
        print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
        if arguments.seeds:
            print("| float | | | | | | " + " | ".join(scores(model, None, None, arguments.seeds)) + " |", flush=True)
        for width in arguments.widths:
            bits, act_bits = width.split(":")
            for smooth, shift in itertools.product(arguments.smoothing, arguments.shift):
                for name, mode in modes(arguments.groups, arguments.modes):
                    options = ["--bits", bits, "--act-bits", act_bits, "--smoothing", smooth, "--act-shift", shift, *mode]
                    row = case(model, options, arguments.seeds)
                    print(f"| {width} | {name} | {smooth} | {shift} | " + " | ".join(row) + " |", flush=True)


def case(model, options, seeds):
    _, back = model.quantize(list(map(str, options)), True)
    out = model.work / "out.parquet"
    metadata = aq_json("inspect", out)["metadata"]
    activations = Activations(metadata, smoothing(out), UNIT[model.kind])
    error, _, _ = model.errors(back)
    return [f"{error:.2e}", f"{output_error(model, back, activations):.2e}", *scores(model, back, activations, seeds)]


if __name__ == "__main__":
    main()
