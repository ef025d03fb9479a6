"""What choosing activation ranges adds to the time of `aq quantize`: four layers of 2048 x 2048, 20 timesteps of 64 rows each.

    python crates/aq-cli/tests/python/time_activations.py [method] [runs]
"""
import sys
import tempfile
from pathlib import Path

import numpy as np

from conftest import aq_json, write_model
from small_models import save_safetensors

LAYERS, COLS, STEPS, ROWS = 4, 2048, 20, 64


def write_samples(path):
    """Inputs that go together and whose range grows sixteenfold over the timesteps."""
    random = np.random.default_rng(5)
    growth = (16.0 ** np.linspace(0, 1, STEPS))[:, None, None]
    samples = {"timesteps": np.linspace(999, 0, STEPS).astype(np.float32)}
    for layer in range(LAYERS):
        x = random.standard_normal((STEPS, ROWS, COLS)) + random.standard_normal((STEPS, ROWS, 1))
        samples[f"blocks.{layer}.mlp.fc1"] = (x * growth * 0.1).astype(np.float16)
    save_safetensors(path, samples)


def main():
    method = sys.argv[1] if len(sys.argv) > 1 else "entropy"
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shapes = {f"blocks.{i}.mlp.fc1.weight": (COLS, COLS) for i in range(LAYERS)}
        model = write_model(folder / "model.safetensors", shapes)
        write_samples(folder / "samples.safetensors")
        common = [model, "-o", folder / "out.parquet", "--force", "--calibration", folder / "samples.safetensors"]
        common += ["--method", method, "--bits", 4]
        acts = ["--act-bits", 8, "--act-mode", "groups", "--time-groups", 10]
        times = {name: [] for name in ("without", "with")}
        for _ in range(runs):
            for name, more in (("without", []), ("with", acts)):
                times[name].append(aq_json("quantize", *common, *more)["elapsed_s"])
    best = {name: min(t) for name, t in times.items()}
    added = best["with"] / best["without"] - 1
    print(f"{method}: without {best['without']:.3f} s, with 10 time groups {best['with']:.3f} s: {added:+.1%}; all {times}")


if __name__ == "__main__":
    main()
