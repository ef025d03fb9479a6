"""End-to-end scores of the methods on the example model, as the Markdown table of docs/methods.md.

  AQ_BIN=target/release/aq python crates/aq-cli/tests/python/score_methods.py

`gptq` alone is calibrated. Needs numpy only. 200 samples, 10 DDIM steps, seed 0.
"""
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import json
import subprocess
import tempfile
from pathlib import Path

import eval_image

ROOT = Path(__file__).resolve().parents[4]
MODEL = ROOT / "docs" / "models" / "digits-dit"
AQ = os.environ.get("AQ_BIN", str(ROOT / "target" / "release" / "aq"))
CASES = [
    ("minmax", 2, 64), ("minmax", 2, 32), ("ls", 2, 64), ("minmax", 3, 64), ("minmax", 3, 40), ("ls", 3, 64),
    ("minmax", 4, 64), ("minmax", 4, 40), ("ls", 4, 64), ("minmax", 5, 64), ("ls", 5, 64),
    ("minmax", 6, 64), ("ls", 6, 64), ("minmax", 8, 64), ("ls", 8, 64),
    ("gptq", 2, 64), ("gptq", 3, 64), ("gptq", 4, 64), ("gptq", 8, 64),
]


def quantized(folder, method, bits, group, gain):
    out, back = folder / "out.parquet", folder / "back.safetensors"
    options = ["--method", method, "--bits", str(bits), "--group-size", str(group), "--gain", gain]
    if method == "gptq":
        options += ["--calibration", MODEL / "calib.safetensors"]
    run = subprocess.run([AQ, "quantize", MODEL, "-o", out, "--force", "--json", *options],
                         check=True, capture_output=True, text=True)
    subprocess.run([AQ, "dequantize", out, "-o", back, "--force"], check=True, capture_output=True)
    return json.loads(run.stdout), back


def main():
    reference = eval_image.load(MODEL)
    print("| method | bits | group | gain | bits per weight | relative MSE | Frechet distance | PSNR | eps MSE |")
    print("|---|---|---|---|---|---|---|---|---|")

    def row(label, bits_per_weight, mse, weights):
        s = eval_image.evaluate(eval_image.load(MODEL, weights), reference, MODEL, n=200, steps=10)
        print(f"| {label} | {bits_per_weight:.3f} | {mse:.2e} | {s['fd']:.2f} | {s['psnr']:.1f} dB | {s['eps_mse']:.5f} |",
              flush=True)

    row("bf16 | | |", 16, 0, None)
    with tempfile.TemporaryDirectory() as folder:
        for method, bits, group in CASES:
            for gain in ("on", "off") if bits == 2 and group == 64 else ("on",):
                report, back = quantized(Path(folder), method, bits, group, gain)
                label = f"{method} | {bits} | {group} | {gain}"
                row(label, report["quantized"]["bits_per_weight"], report["weight"]["relative_mse_global"], back)


if __name__ == "__main__":
    main()
