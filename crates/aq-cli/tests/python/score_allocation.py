"""Sizes given to layers by their sensitivity, beside one width for all, as the Markdown tables of docs/methods.md.

  AQ_BIN=target/release/aq python crates/aq-cli/tests/python/score_allocation.py [FOLDER]
      [--bits 2.5 3 4] [--evaluations 30] [--seed 0] [--sensitivity FILE]

FOLDER is docs/models/digits-dit when none is given, or a folder of a model zoo (scoring.py says what it has). Needs numpy only.
The sensitivity of each layer is measured first: it alone is quantized at seven rates, and the model is run along its own trajectories
(trajectory.py). Then, at the size of one rate or one width for all layers, come the exact allocation without and with that, and
a search of so many evaluations whose fitness is the error along the trajectories. `layers` counts those whose width is not the first row's.
"""
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import argparse
import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import scoring
from scoring import AQ, ROOT, SCORES, Model, aq_json
from small_models import load_safetensors, save_safetensors
from trajectory import Trajectory, split_audio

RATES = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0]
# Groups of a method with groups, and its width for each rate of one without.
GROUP, WIDTHS = 64, {"2.5": "2", "3.0": "3", "4.0": "4"}


def opened(folder, work):
    """The model of a folder; an audio model without the utterances that its trajectories are about."""
    folder = Path(folder).resolve()
    if json.loads((folder / "config.json").read_text())["modality"] != "audio":
        return Model(folder, work)
    beside = scoring.evaluator(folder, "audio")
    scoring.evaluator = lambda *_: beside
    model = Model(split_audio(folder, work / "audio"), work)
    model.own = model.folder
    return model


def measured(model, trajectory, file):
    """Writes what each layer alone does to the outputs at each of RATES."""
    points, alone = {}, model.work / "alone.safetensors"
    for rate in RATES:
        report = quantized(model, model.work / "all", ["--method", "entropy", "--rate", rate])
        weights = load_safetensors(model.work / "all.safetensors")
        for tensor in (t for t in report["tensors"] if t["method"]):
            save_safetensors(alone, {tensor["name"]: weights[tensor["name"]]})
            damage = trajectory.error(trajectory.load(alone))
            point = {"bits_per_weight": tensor["bits_per_weight"], "damage": damage}
            points.setdefault(tensor["name"].removesuffix(".weight"), []).append(point)
    layers = [{"name": name, "points": p} for name, p in points.items()]
    file.write_text(json.dumps({"schema": "aq.sensitivity/1", "layers": layers}))


def quantized(model, out, options):
    """Quantizes and dequantizes; `out` has no ending. Gives the report."""
    given = ["--calibration", model.calibration, "--force", "--quiet"]
    report = aq_json("quantize", model.weights, "-o", f"{out}.parquet", *given, *options)
    subprocess.run([AQ, "dequantize", f"{out}.parquet", "-o", f"{out}.safetensors", "--force"], check=True, capture_output=True)
    names = {t["name"] for t in report["tensors"] if t["method"]}
    kept = {k: x for k, x in load_safetensors(f"{out}.safetensors").items() if k in names}
    save_safetensors(f"{out}.safetensors", kept)
    return report


class Table:
    def __init__(self, model, trajectory):
        self.model, self.trajectory, self.first = model, trajectory, None
        heads = ["method", "sizes by", "file, bytes", "bits/weight", "layers", "outputs along trajectories"]
        heads += [heading for heading, _, _ in SCORES[model.kind]]
        print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads), flush=True)

    def row(self, method, by, options, first=False):
        """Quantizes, prints a row, and gives the bytes of the file."""
        out = self.model.work / "row"
        report = quantized(self.model, out, options)
        widths = {t["name"]: (t["bits"], t["group_size"], round(t["bits_per_weight"], 1)) for t in report["tensors"] if t["method"]}
        if first:
            self.first = widths
        moved = sum(widths[name] != self.first[name] for name in widths)
        error = self.trajectory.error(self.trajectory.load(f"{out}.safetensors"))
        cells = [method, by, report["output"]["bytes"], f"{report['quantized']['bits_per_weight']:.3f}",
                 f"{moved} of {len(widths)}", f"{error:.3e}", *self.model.score(f"{out}.safetensors")]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        return report["output"]["bytes"]


def searched(model, args, folder, options, plan):
    """Searches with the error along the trajectories as the fitness; says how it went."""
    fitness = f"{sys.executable} {__file__} {folder} --work {model.work} --plan {{plan}}"
    report = aq_json("search", model.weights, "-o", plan, "--force", "--quiet", "--calibration", model.calibration, *options,
                     "--fitness", fitness, "--evaluations", args.evaluations, "--seed", args.seed)
    start, best = report["start"]["score"], report["best"]["score"]
    print(f"<!-- search: {start:.4e} at the start, {best:.4e} after {report['evaluations']} plans -->", flush=True)


def score_plan(args):
    """The fitness: the error along the trajectories of a plan."""
    with tempfile.TemporaryDirectory() as own:
        stored = pickle.loads((args.work / "trajectory.pickle").read_bytes())
        model, trajectory = stored["model"], stored["trajectory"]
        model.evaluation = scoring.evaluator(model.beside, model.kind)
        quantized(model, Path(own) / "out", ["--plan", args.plan, "--threads", "1"])
        trajectory.load = lambda weights: model.evaluation.load(model.folder, weights)
        print(trajectory.error(trajectory.load(Path(own) / "out.safetensors")))


def store(model, trajectory, folder):
    """What the fitness needs, in the folder of work."""
    kept = {"evaluation": model.evaluation, "reference": model.reference, "load": trajectory.load}
    model.beside, model.evaluation, model.reference, trajectory.load = Path(folder).resolve(), None, None, None
    (model.work / "trajectory.pickle").write_bytes(pickle.dumps({"model": model, "trajectory": trajectory}))
    model.evaluation, model.reference, trajectory.load = kept["evaluation"], kept["reference"], kept["load"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=ROOT / "docs" / "models" / "digits-dit")
    parser.add_argument("--bits", nargs="*", type=float, default=[2.5, 3.0, 4.0])
    parser.add_argument("--evaluations", type=int, default=30, help="of each search; 0 for none")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--sensitivity", type=Path, help="where sensitivities are kept; measured when it is not there")
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plan:
        return score_plan(args)
    with tempfile.TemporaryDirectory() as work:
        model = opened(args.folder, Path(work))
        trajectory = Trajectory(model)
        sensitivity = args.sensitivity or Path(work) / "sensitivity.json"
        if not sensitivity.is_file():
            measured(model, trajectory, sensitivity)
        store(model, trajectory, args.folder)
        table = Table(model, trajectory)
        for bits in map(str, args.bits):
            by = ["--sensitivity", sensitivity]
            size = ["--target-size", table.row("entropy", "one rate", ["--method", "entropy", "--rate", bits], first=True)]
            table.row("entropy", "sensitivity", ["--method", "entropy", *size, *by])
            if args.evaluations:
                plan = Path(work) / "plan.yaml"
                searched(model, args, args.folder, ["--method", "entropy", *size, *by], plan)
                table.row("entropy", "search", ["--plan", plan])
            if bits in WIDTHS:
                uniform = ["--method", "gptq", "--bits", WIDTHS[bits], "--group-size", GROUP]
                size = ["--target-size", table.row("gptq", f"{WIDTHS[bits]} bits in groups of {GROUP}", uniform, first=True)]
                table.row("gptq", "output error", ["--method", "gptq", *size])
                table.row("gptq", "sensitivity", ["--method", "gptq", *size, *by])


if __name__ == "__main__":
    main()
