"""Relative MSE of every block type of ggml, by `aq` and by ggml's own code, on weights of three distributions.

    python score_ggml.py [ROWS]        needs ggml-python and a built aq; prints the table of docs/methods.md
"""
import sys
import tempfile
from pathlib import Path

import numpy as np

from conftest import aq_json
from ggml_peer import TYPES, least_error, quantize
from small_models import save_safetensors

COLS = 4096


def sources(rows):
    random = np.random.default_rng(11)
    yield "normal", random.standard_normal((rows, COLS))
    yield "Laplace", random.laplace(size=(rows, COLS))
    yield "Student-t (5)", random.standard_t(5, size=(rows, COLS))


def main(rows):
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, w in sources(rows):
            w, model = (w * 0.02).astype(np.float32), Path(folder) / "model.safetensors"
            save_safetensors(model, {"w": w})
            for kind in TYPES:
                report = aq_json("quantize", model, "-o", Path(folder) / "out.gguf", "--method", kind.lower(), "--force")
                plain = quantize(kind, w) - w
                plain = float(np.square(plain, dtype=np.float64).sum() / np.square(w, dtype=np.float64).sum())
                columns[name, kind] = report["tensors"][0]["relative_mse"], plain, least_error(kind, w)
    names = [name for name, _ in sources(1)]
    print("| type | bits per weight | " + " | ".join(f"{n}: aq / ggml / ggml, better of two | ratio" for n in names) + " |")
    print("|---|---|" + "---|---|" * len(names))
    sizes = dict(zip(TYPES, (4.5, 5, 5.5, 6, 8.5, 2.625, 3.4375, 4.5, 5.5, 6.5625, 4.5, 4.25)))
    for kind in TYPES:
        cells = []
        for name in names:
            ours, plain, least = columns[name, kind]
            cells.append(f"{ours:.3g} / {plain:.3g} / {least:.3g} | {ours / least:.3f}")
        print(f"| {kind} | {sizes[kind]} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
