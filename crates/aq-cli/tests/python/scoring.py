"""A model with inputs of its layers, quantized and judged: errors of weights and outputs, and what its results are worth.

Two kinds of folder: the one of `docs/models/digits-dit`, and folders of a model zoo, which have `model.f32.safetensors`,
`calib.safetensors` and `config.json`, and beside them `eval_image.py`, `eval_text.py` or `eval_audio.py`.
"""
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from small_models import load_metadata, load_safetensors, save_safetensors

ROOT = Path(__file__).resolve().parents[4]
AQ = os.environ.get("AQ_BIN", str(ROOT / "target" / "release" / "aq"))
# What is printed of each kind of model: heading, key of its evaluation, format.
SCORES = {
    "image": [("Frechet distance", "fd", ".2f"), ("PSNR", "psnr", ".1f"), ("eps MSE", "eps_mse", ".5f")],
    "text": [("bits/char", "bpc", ".4f"), ("logit cosine", "logit_cos", ".5f")],
    "audio": [("SNR", "snr", ".1f"), ("lsd_high", "lsd_high", ".3f"), ("eps MSE", "eps_mse", ".5f")],
}
SETTINGS = {"image": {"n": 200, "steps": 10, "seed": 0}, "text": {"seed": 0}, "audio": {"seed": 0}}


def aq_json(*arguments):
    done = subprocess.run([AQ, *map(str, arguments), "--json"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[0])
    return json.loads(done.stdout)


def methods():
    """The methods of `aq`, which lists them when it is asked for one it does not have."""
    refused = subprocess.run([AQ, "plan", ROOT / "docs/models/digits-dit", "--method", "?"], capture_output=True, text=True)
    return refused.stderr.split("use one of ")[1].split("\n")[0].strip(" .").split(", ")


def split(path, folder):
    """Writes the first three quarters of the rows of each bucket, and the rest, to two files."""
    tensors, metadata = load_safetensors(path), load_metadata(path)
    parts = {"calibration": slice(0, 3), "held-out": slice(3, 4)}
    for name, part in parts.items():
        def rows(x):
            n = x.shape[1] * 3 // 4
            return np.ascontiguousarray(x[:, :n] if part.start == 0 else x[:, n:])
        save_safetensors(folder / f"{name}.safetensors", {k: rows(x) if x.ndim == 3 else x for k, x in tensors.items()},
                         meta=metadata)
    return folder / "calibration.safetensors", folder / "held-out.safetensors"


def evaluator(folder, kind):
    """The module that scores models of a folder."""
    if (folder / "model.safetensors").is_file():
        import eval_image
        return eval_image
    sys.path.insert(0, str(folder.parent))
    path = folder.parent / f"eval_{kind}.py"
    spec = importlib.util.spec_from_file_location(f"zoo_eval_{kind}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Model:
    """A folder with a model, what to calibrate with, and what to judge on."""

    def __init__(self, folder, work):
        self.folder, self.work = Path(folder).resolve(), Path(work)
        files = [self.folder / name for name in ("model.safetensors", "model.f32.safetensors")]
        self.weights = next(file for file in files if file.is_file())
        self.kind = json.loads((self.folder / "config.json").read_text())["modality"]
        self.calibration, self.held_out = split(self.folder / "calib.safetensors", self.work)
        self.evaluation = evaluator(self.folder, self.kind)
        self.reference = self.evaluation.load(self.folder)

    def score(self, weights=None):
        """The scores of SCORES, of the model itself or with other weights."""
        model = self.evaluation.load(self.folder, weights) if weights else self.reference
        found = self.evaluation.evaluate(model, self.reference, self.folder, **SETTINGS[self.kind])
        return [format(found[key], form) for _, key, form in SCORES[self.kind]]

    def quantize(self, options, calibrated):
        """Quantizes with `aq`. Gives bits per weight of the quantized layers and a file of plain tensors."""
        out, back = self.work / "out.parquet", self.work / "back.safetensors"
        given = ["--calibration", self.calibration] if calibrated else []
        report = aq_json("quantize", self.weights, "-o", out, "--force", "--quiet", *options, *given)
        subprocess.run([AQ, "dequantize", out, "-o", back, "--force"], check=True, capture_output=True)
        tensors = {t["name"] for t in report["tensors"] if t["method"]}
        # Only what was quantized: kept tensors are the same in both.
        save_safetensors(back, {k: x for k, x in load_safetensors(back).items() if k in tensors})
        return report["quantized"]["bits_per_weight"], back

    def errors(self, back):
        """Relative squared error of the weights, and mean over layers of the output error and slope on held-out inputs."""
        report = aq_json("compare", self.weights, back, "--calibration", self.held_out)
        measured = [t for t in report["tensors"] if t["output_error"] is not None]
        output, slope = (float(np.mean([t[key] for t in measured])) for key in ("output_error", "output_slope"))
        return report["global"]["relative_mse"], output, slope

    def layers(self):
        """Name, matrix and calibration inputs of each layer that is quantized."""
        weights, samples = load_safetensors(self.weights), load_safetensors(self.calibration)
        aliases = json.loads(load_metadata(self.calibration).get("aq.aliases", "{}"))
        for layer in aq_json("plan", self.weights)["layers"]:
            if layer["decision"] == "quantize":
                name = layer["name"].removesuffix(".weight")
                x, w = samples[aliases.get(name, name)], weights[layer["name"]]
                yield layer["name"], w, x.reshape(-1, x.shape[-1]).astype(np.float32)
