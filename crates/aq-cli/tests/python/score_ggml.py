"""Every block type of ggml, by `aq` and by ggml's own code, on weights of three distributions. Needs ggml-python and a built aq.

    python score_ggml.py            relative MSE: a table of docs/methods.md
    python score_ggml.py speed      millions of weights for each second of processor time, reading and writing of files included: the other
"""
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

from conftest import aq_json
from ggml_peer import TYPES, quantize, relative_mse
from small_models import save_safetensors

ROWS, COLS = 256, 4096
SIZES = dict(zip(TYPES, (4.5, 5, 5.5, 6, 8.5, 2.625, 3.4375, 4.5, 5.5, 6.5625, 4.5, 4.25)))


def sources():
    random = np.random.default_rng(11)
    yield "normal", random.standard_normal((ROWS, COLS))
    yield "Laplace", random.laplace(size=(ROWS, COLS))
    yield "Student-t (5)", random.standard_t(5, size=(ROWS, COLS))


def errors(folder):
    cells = {kind: [] for kind in TYPES}
    for _, w in sources():
        w, model = (w * 0.02).astype(np.float32), folder / "model.safetensors"
        save_safetensors(model, {"w": w})
        for kind in TYPES:
            report = aq_json("quantize", model, "-o", folder / "out.gguf", "--method", kind.lower(), "--force")
            plain, ones = (relative_mse(quantize(kind, w, h), w) for h in (None, np.ones(COLS, np.float32)))
            cells[kind] += [f"{report['tensors'][0]['relative_mse']:.3g}", f"{plain:.3g} / {ones:.3g}"]
    names = [f"{name}: aq | ggml" for name, _ in sources()]
    print("| type | bits per weight | " + " | ".join(names) + " |")
    print("|---|---" + "|---" * 2 * len(names) + "|")
    for kind in TYPES:
        print(f"| {kind} | {SIZES[kind]} | " + " | ".join(cells[kind]) + " |")


def cpu_seconds(run, who):
    """The least of three runs, in processor time."""
    def once():
        before = resource.getrusage(who)
        run()
        after = resource.getrusage(who)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return min(once() for _ in range(3))


def speed(folder):
    w = (np.random.default_rng(12).standard_normal((2048, COLS)) * 0.02).astype(np.float32)
    save_safetensors(folder / "model.safetensors", {"w": w})
    print("| type | aq | ggml |\n|---|---|---|")
    for kind in TYPES:
        def ours():
            aq_json("quantize", folder / "model.safetensors", "-o", folder / "out.gguf", "--method", kind.lower(), "--force",
                    "--threads", 1)
        ours = cpu_seconds(ours, resource.RUSAGE_CHILDREN)
        theirs = cpu_seconds(lambda: quantize(kind, w[:512], decode=False), resource.RUSAGE_SELF) * 4
        print(f"| {kind} | {w.size / ours / 1e6:.0f} | {w.size / theirs / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        (speed if sys.argv[1:] == ["speed"] else errors)(Path(temporary))
