"""What a model of the zoo computes along its own trajectories, and how far other weights are from that.

The inputs come from the model itself and fixed noise, not from the data it is scored on: images and texts are sampled with it; audio
is sampled for the first utterances of the folder, which `split_audio` takes out of those that are scored.
"""
import json
import shutil

import numpy as np

from small_models import load_safetensors, save_safetensors

SEED = 4242
# Utterances that audio is sampled for.
OWN = 2


class Trajectory:
    """Inputs along trajectories of a model, and what it makes of them."""

    def __init__(self, model):
        """`model` is a scoring.Model."""
        self.load = lambda weights=None: model.evaluation.load(model.folder, weights)
        self.inputs = {"image": image, "text": text, "audio": audio}[model.kind](model, self.load())
        self.outputs = self.run(self.load())
        self.energy = sum(float((y.astype(np.float64) ** 2).sum()) for y in self.outputs)

    def run(self, network):
        return [network(*arguments) for arguments in self.inputs]

    def error(self, network):
        """Squared difference of the outputs over their squares."""
        pairs = zip(self.run(network), self.outputs)
        return sum(float(((y - z).astype(np.float64) ** 2).sum()) for y, z in pairs) / self.energy


def image(model, network, n=24, steps=10):
    """States of DDIM from noise."""
    size, seen = network.cfg["image_size"], []

    class Recorded:
        cfg = network.cfg

        def __call__(self, x, *rest):
            seen.append((x, *rest))
            return network(x, *rest)

    noise = np.random.default_rng(SEED).standard_normal((n, 1, size, size)).astype(np.float32)
    from_noise = model.evaluation.ddim(Recorded(), np.arange(n) % 10, noise, steps)
    assert len(seen) >= steps and np.isfinite(from_noise).all()
    return seen


def text(model, network, n=24, steps=10):
    """Tokens sampled from all masked on, a tenth of them at a time."""
    random = np.random.default_rng(SEED)
    vocabulary, length, seen = network.cfg["vocab_size"], 64, []
    ids = np.full((n, length), vocabulary - 1)
    order = random.random(ids.shape).argsort(1).argsort(1)
    for step in range(steps):
        ratio = 1 - step / steps
        seen.append((ids.copy(), ratio))
        logits = network(ids, ratio).astype(np.float64)[..., :vocabulary - 1]
        logits += random.gumbel(size=logits.shape)
        now = (order >= step * length // steps) & (order < (step + 1) * length // steps)
        ids[now] = logits.argmax(-1)[now]
    return seen


def audio(model, network, steps=8, frames=32):
    """States of ancestral sampling for the first utterances."""
    module, seen = model.evaluation, []
    held_out = load_safetensors(model.own / "own.safetensors")
    mel = held_out["mel"].astype(np.float32)[:, :frames]
    sound = held_out["audio"].astype(np.float32)[:, :frames * module.HOP] / 32768

    class Recorded:
        cfg, cond = network.cfg, network.cond

        def __call__(self, x, *rest):
            seen.append((x, *rest))
            return network(x, *rest)

    module.sample(Recorded(), mel, [module.lowpass(x) for x in sound], steps, SEED, 1.0)
    return seen


def split_audio(folder, into):
    """Copies an audio folder to `into` without its first utterances, which go to `own.safetensors` there."""
    into.mkdir(parents=True, exist_ok=True)
    for name in ("model.f32.safetensors", "calib.safetensors", "config.json"):
        shutil.copy(folder / name, into / name)
    held_out = load_safetensors(folder / "eval.safetensors")
    utterances = len(held_out["audio"])
    cut = lambda part: {k: np.ascontiguousarray(x[part]) if len(x) == utterances else x for k, x in held_out.items()}
    save_safetensors(into / "eval.safetensors", cut(slice(OWN, None)))
    save_safetensors(into / "own.safetensors", cut(slice(0, OWN)))
    return into
