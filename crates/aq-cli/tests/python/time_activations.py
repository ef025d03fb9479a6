"""What choosing activation ranges and smoothing adds to the time of `aq quantize`: four layers of 2048 x 2048, 20 timesteps of 64 rows each.

    python crates/aq-cli/tests/python/time_activations.py [method] [runs]

Both are the same work whatever the method, so the seconds are those they add to `minmax`, which is quick, and shares are of the time
of `method`. Each is the shortest of the runs.
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
        more = {
            "10 groups of timesteps": ["--act-bits", 8, "--act-mode", "groups", "--time-groups", 10],
            "smoothing": ["--smoothing", "auto"],
        }
        jobs = {method: ["--method", method], "minmax": ["--method", "minmax"]}
        jobs |= {name: ["--method", "minmax", *options] for name, options in more.items()}
        times = {name: [] for name in jobs}
        for _ in range(runs):
            for name, options in jobs.items():
                times[name].append(aq_json("quantize", *common, "--bits", 4, *options)["elapsed_s"])
    best = {name: min(t) for name, t in times.items()}
    print(", ".join(f"{name} {best[name]:.2f} s" for name in dict.fromkeys([method, "minmax"])))
    for name in more:
        added = best[name] - best["minmax"]
        print(f"{name}: {added:.2f} s more, {added / best[method]:.1%} of {method}")


if __name__ == "__main__":
    main()
