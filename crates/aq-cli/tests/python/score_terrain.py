"""Fidelity of a third-party model under each method: the consistency U-Net (10.4 M weights, convolutions and linear layers)
that the package adaptive-terrain-diffusion 0.4.2 ships as an ONNX file.

  pip install adaptive-terrain-diffusion==0.4.2 onnx onnxruntime numpy
  AQ_BIN=target/release/aq python crates/aq-cli/tests/python/score_terrain.py [--methods ls ...] [--bits 2 3 4]

There is no real terrain data in the package, so scores compare with the unquantized model on the same noise (sigma 80 to
0.1): PSNR of one-step samples at sigma 80, mean PSNR of the denoiser's output, and the mean cosine of the noise it
predicts. Calibration samples are inputs of every layer at every sigma, from noise of another seed than the scores'; a
convolution's rows are patches `[in * kh * kw]`.
"""
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import argparse
import importlib.util
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from reference_quantizers import gptq, gptq_bits, with_gain
from scoring import AQ, aq_json, methods
from score_methods import GROUP, cases
from small_models import load_safetensors, save_safetensors

SIGMAS = [80.0, 40.0, 20.0, 10.0, 5.0, 2.5, 1.2, 0.6, 0.3, 0.1]
FILE = "weights/terrain_consistency_unet_difficulty100.onnx"
IMAGES, ROWS = 3, 64


class Network:
    """The ONNX graph, its weights, and a way to run it with others."""

    def __init__(self):
        import onnx
        package = importlib.util.find_spec("terrain_diffusion").submodule_search_locations[0]
        self.graph = onnx.load(os.path.join(package, FILE))

    def tensors(self):
        from onnx import numpy_helper
        named = self.graph.graph.initializer
        return {i.name: numpy_helper.to_array(i) for i in named if i.name.startswith("network.")}

    def layers(self):
        """Name of the weight and node of each convolution and linear layer."""
        nodes = self.graph.graph.node
        return [(n.input[1], n) for n in nodes if n.op_type in ("Conv", "Gemm") and n.input[1].endswith(".weight")]

    def session(self, weights=(), outputs=()):
        """A session with these weights instead of its own, and further outputs."""
        import onnx
        import onnxruntime
        model = onnx.ModelProto()
        model.CopyFrom(self.graph)
        named = {i.name: i for i in model.graph.initializer}
        for name, value in dict(weights).items():
            named[name].CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        info = onnx.helper.make_tensor_value_info
        model.graph.output.extend(info(name, onnx.TensorProto.FLOAT, None) for name in outputs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session, x, sigma, difficulty, outputs=("denoised",)):
    given = {"noisy": x.astype(np.float32), "sigma": np.full(len(x), sigma, np.float32), "difficulty": difficulty}
    return session.run(list(outputs), given)


def noised(session, seed):
    """Inputs at each sigma: pure noise, then noised samples of the model itself."""
    random = np.random.default_rng(seed)
    difficulty = ((np.arange(IMAGES) * 37 % 100) / 99).astype(np.float32)
    noise = random.standard_normal((IMAGES, 1, 128, 128)).astype(np.float32) * 80
    sample = run(session, noise, 80.0, difficulty)[0]
    later = [sample + s * random.standard_normal(sample.shape).astype(np.float32) for s in SIGMAS[1:]]
    return difficulty, [noise, *later]


def patches(x, node, shape, random):
    """ROWS inputs of a layer: rows of a matrix, or patches of a padded image `[n, in, h, w]`."""
    if node.op_type == "Gemm":
        return x.reshape(-1, x.shape[-1])[random.integers(x.reshape(-1, x.shape[-1]).shape[0], size=ROWS)]
    attributes = {a.name: list(a.ints) for a in node.attribute if a.ints}
    (kh, kw), pads = shape[2:], attributes.get("pads", [0, 0, 0, 0])
    sh, sw = attributes.get("strides", [1, 1])
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), (2, 3))[:, :, ::sh, ::sw]
    n, _, h, w = windows.shape[:4]
    at = (random.integers(m, size=ROWS) for m in (n, h, w))
    i, j, k = at
    return windows[i, :, j, k].reshape(ROWS, -1)


def collect(network, seed):
    """Samples of the inputs of each layer: weight name -> [sigmas, ROWS, in]."""
    sources = sorted({node.input[0] for _, node in network.layers()} - {i.name for i in network.graph.graph.input})
    plain, session = network.session(), network.session(outputs=sources)
    difficulty, inputs = noised(plain, seed)
    shapes = {name: x.shape for name, x in network.tensors().items()}
    random, found = np.random.default_rng(seed), {}
    for sigma, x in zip(SIGMAS, inputs):
        values = dict(zip(sources, run(session, x, sigma, difficulty, sources)), noisy=x)
        for name, node in network.layers():
            if node.input[0] in values:
                rows = patches(values[node.input[0]], node, shapes[name], random)
                found.setdefault(name, []).append(rows.astype(np.float32))
    return {name: np.stack(rows) for name, rows in found.items()}


def write_samples(path, samples):
    named = {name.removesuffix(".weight"): rows for name, rows in samples.items()}
    meta = {"aq.calibration": "samples/1", "aq.time": "sigma", "aq.aliases": "{}"}
    save_safetensors(path, {**named, "timesteps": np.array(SIGMAS, np.float32)}, meta=meta)
    return path


class Judge:
    """Scores weights against the network's own on fixed noise."""

    def __init__(self, network):
        self.network, session = network, network.session()
        self.difficulty, self.inputs = noised(session, 0)
        self.true = [run(session, x, s, self.difficulty)[0] for x, s in zip(self.inputs, SIGMAS)]

    def __call__(self, weights):
        session, psnr, cosine = self.network.session(weights), [], []
        for x, sigma, true in zip(self.inputs, SIGMAS, self.true):
            got = run(session, x, sigma, self.difficulty)[0]
            psnr.append(10 * np.log10(4 / float(((true - got) ** 2).mean())))
            a, b = ((y - x).ravel().astype(np.float64) for y in (true, got))
            cosine.append(a @ b / np.sqrt((a @ a) * (b @ b)))
        return psnr[0], np.mean(psnr), np.mean(cosine)


def quantize(work, case):
    """True bits per weight, errors, and the weights that were quantized."""
    out, back = work / "out.parquet", work / "back.safetensors"
    given = ["--calibration", work / "calibration.safetensors"] if case.calibrated else []
    model, held_out = work / "model.safetensors", work / "held-out.safetensors"
    report = aq_json("quantize", model, "-o", out, "--force", "--quiet", *case.options(), *given)
    subprocess.run([AQ, "dequantize", out, "-o", back, "--force"], check=True, capture_output=True)
    errors = aq_json("compare", model, out, "--calibration", held_out)
    names = {t["name"] for t in report["tensors"] if t["method"]}
    output = np.mean([t["output_error"] for t in errors["tensors"] if t["name"] in names and t["output_error"] is not None])
    weights = {name: x for name, x in load_safetensors(back).items() if name in names}
    return report["quantized"]["bits_per_weight"], errors["global"]["relative_mse"], output, weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", help="only these (default: all)")
    parser.add_argument("--bits", nargs="*", default=["2", "3", "4"])
    parser.add_argument("--rates", nargs="*", default=["1.6", "2.1", "3.0", "4.0"])
    args = parser.parse_args()
    network = Network()
    judge = Judge(network)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        save_safetensors(work / "model.safetensors", network.tensors())
        write_samples(work / "calibration.safetensors", collect(network, 1))
        write_samples(work / "held-out.safetensors", collect(network, 2))
        print("| method | asked | calibrated | bits/weight | relative MSE | output error | PSNR at sigma 80 | mean PSNR | residual cosine |")
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        for case in cases(args.methods or methods(), args.bits, args.rates):
            try:
                bits, mse, output, weights = quantize(work, case)
            except RuntimeError as error:
                print(f"<!-- {case.method} at {case.asked}: {error} -->", flush=True)
                continue
            first, mean, cosine = judge(weights)
            name = case.method + ("" if case.gain == "on" else ", no gain") + ("" if case.group in (None, GROUP) else f" g{case.group}")
            print(f"| {name} | {case.asked} | {'yes' if case.calibrated else 'no'} | {bits:.3f} | {mse:.2e} | {output:.2e} "
                  f"| {first:.1f} | {mean:.1f} | {cosine:.5f} |", flush=True)


if __name__ == "__main__":
    main()
