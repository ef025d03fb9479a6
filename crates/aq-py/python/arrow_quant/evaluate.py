"""What quantizing did to a model: errors of layers, of trajectories, and of final samples; and what each layer alone would do.

Everything here is numpy; models are functions of your own, in whatever framework. Scores that need a package say so.
"""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._arrays import Array, as_f32
from ._errors import ConfigError, InputError
from ._model import Model, Tensor, open as open_model
from ._sensitivity import sensitivity as sensitivity

#: Of this many calibration rows one is held out, as `quantize` does, when there are at least `MIN_ROWS` of them.
HOLD_OUT, MIN_ROWS, MOST_HELD_OUT = 8, 64, 128


@dataclass(frozen=True)
class LayerErrors:
    """The output error of each layer at each time."""

    timesteps: list[float]
    #: `||X (W - Q)^T||^2 / ||X W^T||^2` by layer, one for each time; NaN where the outputs are all zero.
    errors: dict[str, list[float]]

    def mean(self) -> float:
        """Over layers and times."""
        return float(np.nanmean(list(self.errors.values())))

    def worst(self, count: int = 5) -> list[tuple[str, float]]:
        """The layers of the largest mean error."""
        means = {layer: float(np.nanmean(errors)) for layer, errors in self.errors.items()}
        return sorted(means.items(), key=lambda item: -item[1])[:count]


def layer_errors(
    original: str | os.PathLike[str],
    quantized: str | os.PathLike[str],
    calibration: str | os.PathLike[str],
    *,
    rows: str = "held_out",
    inputs: Callable[[str, Array, float], Array] | None = None,
) -> LayerErrors:
    """The error of the outputs of each quantized layer at each time of a samples file.

    `rows` is `held_out` (those that quantizing with the same file did not see) or `all`. `inputs(layer, x, t)` may change the inputs
    of the quantized layer, such as by rounding them.

        errors = layer_errors("model/", "out.parquet", "calib.safetensors")
        print(errors.mean(), errors.worst())
    """
    a, b, samples = open_model(original), open_model(quantized), open_model(calibration)
    times = _times(samples)
    aliases = json.loads(samples.metadata.get("aq.aliases", "{}"))
    errors = {}
    for name, weight in b.items():
        layer = name.removesuffix(".weight")
        source = samples.get(aliases.get(layer, layer))
        if source is None or name not in a or not weight.is_quantized:
            continue
        errors[layer] = _errors(a[name], weight, _rows(source, rows), times, layer, inputs)
    if not errors:
        raise InputError(f"{os.fspath(calibration)}: no quantized layer of {os.fspath(quantized)} has samples")
    return LayerErrors(times.tolist(), errors)


def _times(samples: Model) -> Array:
    if "timesteps" not in samples:
        raise InputError(f"{samples.path}: it has no timesteps, so it holds no calibration samples")
    return samples["timesteps"].dequantize()


def _rows(samples: Tensor, rows: str) -> list[Array]:
    """Chosen rows of each time."""
    values = samples.dequantize()
    if rows not in ("held_out", "all"):
        raise ConfigError(f"rows {rows!r} is neither held_out nor all")
    number = np.arange(values.shape[0] * values.shape[1]).reshape(values.shape[:2])
    every = max(HOLD_OUT, -(-number.size // MOST_HELD_OUT))
    chosen = number % every == every - 1 if rows == "held_out" and number.size >= MIN_ROWS else number >= 0
    return [step[mask] for step, mask in zip(values, chosen, strict=True)]


def _errors(w: Tensor, q: Tensor, rows: list[Array], times: Array, layer: str, inputs: Any) -> list[float]:
    shape = (w.shape[0], -1)
    exact, coded = w.dequantize().reshape(shape), q.dequantize().reshape(shape)
    result = []
    for x, t in zip(rows, times, strict=True):
        changed = x if inputs is None else inputs(layer, x, float(t))
        want = (x @ exact.T).astype(np.float64)
        power = (want**2).sum()
        wrong = ((changed @ coded.T - want) ** 2).sum()
        result.append(float(wrong / power) if power > 0 else float("nan"))
    return result


@dataclass(frozen=True)
class Trajectory:
    """States of a sampler and their times: what it fed the model, step by step."""

    states: list[Array]
    times: list[float]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Stores it as `.npz`."""
        with open(path, "wb") as file:
            states: dict[str, Any] = {f"x{k}": x for k, x in enumerate(self.states)}
            np.savez(file, times=np.asarray(self.times), **states)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Trajectory:
        """Reads a stored one."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                times = stored["times"].tolist()
                return Trajectory([stored[f"x{k}"] for k in range(len(times))], times)
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{os.fspath(path)}: not a stored trajectory: {error}") from None

    @staticmethod
    def record(model: Callable[[Any, Any], Any], run: Callable[[Callable[[Any, Any], Any]], Any]) -> Trajectory:
        """Runs a sampler, `run(model)`, and notes every state and time that it calls `model(x, t)` with."""
        states: list[Array] = []
        times: list[float] = []

        def noted(x: Any, t: Any) -> Any:
            states.append(np.array(as_f32(x)))
            times.append(float(np.asarray(t).reshape(-1)[0]))
            return model(x, t)

        run(noted)
        return Trajectory(states, times)


def trajectory_error(
    model: Callable[[Array, float], Any],
    quantized: Callable[[Array, float], Any],
    trajectory: Trajectory,
    weights: Sequence[float] | None = None,
) -> dict[str, Any]:
    """`sum_k lambda_k ||f_q(x_k, t_k) - f(x_k, t_k)||^2` over a stored trajectory, with `weights` for lambda (1 by default).

    Both models are functions of a state (numpy) and its time. Both see the states of the stored trajectory, so errors do not add up
    from step to step. Returns `total`, `relative` (to the weighted squares of `f`) and `steps`, the error of each step.
    """
    chosen = np.ones(len(trajectory.times)) if weights is None else np.asarray(weights, np.float64)
    if len(chosen) != len(trajectory.times):
        raise ConfigError(f"{len(chosen)} weights for {len(trajectory.times)} steps")
    steps, power = [], []
    for x, t in zip(trajectory.states, trajectory.times, strict=True):
        want, got = (as_f32(f(x, t)).astype(np.float64) for f in (model, quantized))
        steps.append(float(((got - want) ** 2).sum()))
        power.append(float((want**2).sum()))
    total, whole = float(chosen @ steps), float(chosen @ power)
    return {"total": total, "relative": total / whole if whole > 0 else float("nan"), "steps": steps}


def psnr(samples: Any, reference: Any, data_range: float = 2.0) -> float:
    """Peak signal-to-noise ratio in dB of samples to those of the reference from the same noise; infinite when they are equal.

    `data_range` is the span of the values: 2 for images in [-1, 1].
    """
    a, b = (as_f32(x).astype(np.float64) for x in (samples, reference))
    if a.shape != b.shape:
        raise ConfigError(f"samples of shape {a.shape} and {b.shape}")
    mse = float(((a - b) ** 2).mean())
    return float("inf") if mse == 0 else 10 * float(np.log10(data_range**2 / mse))


def frechet_distance(features: Any, reference: Any) -> float:
    """The Frechet distance of two sets of features `[samples, dims]` taken as Gaussian:
    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))` (Heusel et al., 2017, arXiv 1706.08500)."""
    a, b = (as_f32(x).astype(np.float64) for x in (features, reference))
    (m1, c1), (m2, c2) = ((x.mean(0), np.atleast_2d(np.cov(x.T))) for x in (a, b))
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    mixed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ c2 @ root), 0)).sum()
    return float(((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * mixed)


def fid(images: str | os.PathLike[str], reference: str | os.PathLike[str]) -> float:
    """The FID of two folders of images, by the package clean-fid."""
    module = _package("cleanfid.fid", "clean-fid")
    return float(module.compute_fid(os.fspath(images), os.fspath(reference)))


def nelbo(
    log_probabilities: Callable[[Array, float], Any],
    tokens: Any,
    mask_id: int,
    *,
    times: Iterable[float] | None = None,
    seed: int = 0,
) -> float:
    """An estimate of the NELBO, in nats a token, of a masked diffusion language model under the linear schedule:
    `mean over t of (1 / t) * sum over masked tokens of -log p(token | masked)` (Sahoo et al., 2024, arXiv 2406.07524).

    `log_probabilities(masked, t)` gives `[batch, length, vocabulary]`; `times` are 16 even ones by default. The same `seed` masks alike, so differences
    between two models have little noise.
    """
    ids, random = np.asarray(tokens), np.random.default_rng(seed)
    losses = []
    for t in times or [(i + 0.5) / 16 for i in range(16)]:
        hidden = random.random(ids.shape) < t
        logs = as_f32(log_probabilities(np.where(hidden, mask_id, ids), float(t)))
        chosen = np.take_along_axis(logs, ids[..., None], -1)[..., 0].astype(np.float64)
        losses.append(-(chosen * hidden).sum() / (t * ids.size))
    return float(np.mean(losses))


def dnsmos(audio: Any, rate: int) -> dict[str, float]:
    """The DNSMOS scores of mono speech `[samples]` at 16 kHz, by the package speechmos: `sig_mos`, `bak_mos`, `ovrl_mos` (of the speech, the
    background and both, from 1 to 5) and `p808_mos`.

    Values beyond -1 and 1 are clipped, as a file of 16-bit samples would. What is shorter than 9 seconds is repeated. Beside errors
    only: models that are clearly damaged may score as well as the one they were made from.
    """
    module = _package("speechmos.dnsmos", "speechmos", "onnxruntime librosa requests")
    samples = as_f32(audio)
    if rate != 16_000:
        raise ConfigError(f"DNSMOS takes audio of 16000 Hz, not {rate}")
    if samples.ndim != 1 or samples.size == 0 or not np.isfinite(samples).all():
        raise ConfigError(f"DNSMOS takes finite samples of one channel, not an array of shape {list(samples.shape)}")
    scores = module.run(np.clip(samples, -1, 1).astype(np.float64), rate)
    return {name: float(scores[name]) for name in ("sig_mos", "bak_mos", "ovrl_mos", "p808_mos")}


def _package(module: str, name: str, more: str = "") -> Any:
    """A module of a package that is not always there; `more` are packages that it uses and does not bring."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = "" if error.name in (None, module, module.partition(".")[0]) else f" ({error.name} is missing)"
        raise ConfigError(f"this score needs the package {name}{missing}: pip install {f'{name} {more}'.strip()}") from None
