"""Methods by bits: errors and end-to-end scores of a model, as the Markdown table of docs/methods.md.

  AQ_BIN=target/release/aq python crates/aq-cli/tests/python/score_methods.py [FOLDER]
      [--methods ls gptq ...] [--bits 2 3 4] [--group 64] [--rates 1.6 2.1 ...] [--uncalibrated-rates 2.5 ...]

FOLDER is docs/models/digits-dit when none is given, or a folder of a model zoo (scoring.py says what it has). Needs numpy
only. Methods that take calibration see three quarters of the rows of calib.safetensors; output errors and slopes are means
over layers on the other quarter. Images: 200 samples, 10 DDIM steps, seed 0.
"""
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import argparse
import tempfile
from typing import NamedTuple

import numpy as np

from reference_quantizers import gptq, gptq_bits, with_gain
from scoring import ROOT, SCORES, Model, methods
from small_models import save_safetensors

GROUP = 64
# Groups that make minmax as large as methods with more to store.
SMALL_GROUPS = {"2": 32, "3": 40, "4": 40}


class Case(NamedTuple):
    method: str
    asked: str
    group: int | None = GROUP
    gain: str = "on"
    calibrated: bool = True

    def options(self):
        bits = ["--rate" if self.group is None else "--bits", self.asked]
        group = [] if self.group is None else ["--group-size", self.group]
        return ["--method", self.method, *bits, *group, "--gain", self.gain]


def cases(known, bits, rates, uncalibrated_rates, size=GROUP):
    """Without calibration first, then with it; a group of None is a codec without groups."""
    known = [method for method in known if method != "numpy-gptq"]
    for b in bits:
        for method in known:
            if method not in ("gptq", "entropy"):
                yield Case(method, b, size, calibrated=False)
        if "minmax" in known and b in SMALL_GROUPS:
            yield Case("minmax", b, SMALL_GROUPS[b], calibrated=False)
        for method in known if b == "2" else ():
            if method in ("minmax", "ls"):
                yield Case(method, b, size, gain="off", calibrated=False)
        if "entropy" in known:
            yield Case("entropy", b, None, calibrated=False)
        for method in known:
            if method not in ("minmax", "entropy"):
                yield Case(method, b, size)
    for rate in uncalibrated_rates if "entropy" in known else ():
        yield Case("entropy", rate, None, calibrated=False)
    for rate in rates if "entropy" in known else ():
        yield Case("entropy", rate, None)


class Table:
    """Prints rows as they come and keeps output errors by method and bits."""

    def __init__(self, model):
        self.model, self.output = model, {}
        heads = ["method", "asked", "group", "gain", "calibrated", "bits/weight", "relative MSE", "output error", "slope"]
        heads += [heading for heading, _, _ in SCORES[model.kind]]
        print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads), flush=True)

    def row(self, *cells):
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)

    def original(self):
        self.row("not quantized", "", "", "", "", "", "", "", "", *self.model.score())

    def measured(self, case, bits, back):
        mse, output, slope = self.model.errors(back)
        self.output.setdefault(case.method, []).append((bits, output, case))
        self.row(case.method, case.asked, case.group or "", case.gain, "yes" if case.calibrated else "no", f"{bits:.3f}",
                 f"{mse:.2e}", f"{output:.2e}", f"{slope:.4f}", *self.model.score(back))


def numpy_gptq(model, bits):
    """Plain GPTQ with gain: bits per weight and a file of plain tensors."""
    back, out = model.work / "numpy.safetensors", {}
    for name, w, x in model.layers():
        matrix = w.reshape(len(w), -1)
        out[name] = with_gain(matrix, gptq(matrix, x, bits, GROUP), x).astype(np.float32).reshape(w.shape)
    save_safetensors(back, out)
    return gptq_bits(bits, GROUP), back


def compare_with_gptq(table):
    """Output error of entropy over that of plain GPTQ, at no more bits."""
    for bits, output, case in table.output.get("numpy GPTQ", []):
        fitting = [e for e in table.output.get("entropy", []) if e[2].calibrated and e[0] <= float(case.asked)]
        if fitting:
            rate, own, _ = max(fitting, key=lambda e: e[0])
            print(f"entropy at {rate:.3f} bits per weight: {own / output:.3f} of the output error of numpy GPTQ at {bits:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=ROOT / "docs" / "models" / "digits-dit")
    parser.add_argument("--methods", nargs="*", help="only these, numpy-gptq among them (default: all)")
    parser.add_argument("--bits", nargs="*", default=["2", "3", "4"])
    parser.add_argument("--rates", nargs="*", default=["1.0", "1.5", "1.6", "2.0", "2.1", "2.5", "3.0", "4.0"])
    parser.add_argument("--uncalibrated-rates", nargs="*", default=[], help="rates of entropy without calibration too")
    parser.add_argument("--group", type=int, default=GROUP, help="weights that share a scale; 0 for whole rows")
    args = parser.parse_args()
    wanted = args.methods or [*methods(), "numpy-gptq"]
    with tempfile.TemporaryDirectory() as work:
        model = Model(args.folder, work)
        table = Table(model)
        table.original()
        for case in cases(wanted, args.bits, args.rates, args.uncalibrated_rates, args.group):
            try:
                table.measured(case, *model.quantize(case.options(), case.calibrated))
            except RuntimeError as error:
                print(f"<!-- {case.method} at {case.asked}: {error} -->", flush=True)
        for bits in args.bits if "numpy-gptq" in wanted else ():
            table.measured(Case("numpy GPTQ", bits), *numpy_gptq(model, int(bits)))
        compare_with_gptq(table)


if __name__ == "__main__":
    main()
