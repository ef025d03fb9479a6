"""End-to-end score of an image DiT. Needs numpy only.

  python eval_image.py ../../../../docs/models/digits-dit            # the reference itself
  python eval_image.py ../../../../docs/models/digits-dit --weights my_dequantized.safetensors

--weights may hold only some tensors (F32/F16/BF16, names as in model.safetensors);
the others come from the reference.
Prints one JSON object:
  fd        Frechet distance of classifier features, n samples vs the real images (lower is better)
  acc       share of samples that the classifier gives the class asked for
  psnr      samples vs the reference's samples from the same noise, dB (range 2)
  eps_mse   eps error against the true noise on held-out images, fixed t grid and noise
  eps_cos   cosine of eps with the reference's eps on that grid
"""
import argparse, json, os
import numpy as np
from small_models import DiT, ddim, load_safetensors, ALPHA_BAR


def features(c, x):
    h = x.reshape(len(x), -1)
    h = np.maximum(h @ c["fc1.weight"].T + c["fc1.bias"], 0)
    f = np.maximum(h @ c["fc2.weight"].T + c["fc2.bias"], 0)
    return f, f @ c["fc3.weight"].T + c["fc3.bias"]


def frechet(mu1, s1, mu2, s2):
    w, v = np.linalg.eigh(s1)
    r = (v * np.sqrt(np.maximum(w, 0))) @ v.T
    e = np.linalg.eigvalsh(r @ s2 @ r)
    return float(((mu1 - mu2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * np.sqrt(np.maximum(e, 0)).sum())


def fd_to_real(cls, x):
    f, lo = features(cls, x)
    f = f.astype(np.float64)
    return frechet(f.mean(0), np.cov(f.T), cls["real_mean"], cls["real_cov"]), lo


def sample(model, n, steps, seed, chunk=250):
    r = np.random.default_rng(seed)
    S = model.cfg["image_size"]
    noise = r.standard_normal((n, 1, S, S)).astype(np.float32)
    y = np.arange(n) % 10
    return np.concatenate([ddim(model, y[i:i + chunk], noise[i:i + chunk], steps) for i in range(0, n, chunk)]), y


def eps_grid(model, x, y, k=20):
    r = np.random.default_rng(1234)
    tot, outs = 0.0, []
    for i in range(k):
        s = int((i + 0.5) * 1000 / k)
        n = r.standard_normal(x.shape).astype(np.float32)
        a = ALPHA_BAR[s]
        e = model((np.sqrt(a) * x + np.sqrt(1 - a) * n).astype(np.float32), s, y)
        tot += float(((e - n) ** 2).mean())
        outs.append(e)
    return tot / k, np.concatenate(outs)


def load(folder, weights=None):
    cfg = json.load(open(os.path.join(folder, "config.json")))
    w = load_safetensors(os.path.join(folder, "model.safetensors"))
    if weights:
        new = load_safetensors(weights)
        for k in new:
            assert k in w and w[k].shape == new[k].shape, f"unexpected tensor {k} {new[k].shape}"
        w.update(new)
    return DiT(cfg, w)


def evaluate(model, ref, folder, n=500, steps=20, seed=0, cache={}):
    cls = load_safetensors(os.path.join(folder, "eval", "eval.safetensors"))
    xe, ye = cls["eval_images"].astype(np.float32), cls["eval_labels"]
    key = (folder, n, steps, seed)
    if key not in cache:
        cache[key] = sample(ref, n, steps, seed)[0], eps_grid(ref, xe, ye)[1]
    xr, er = cache[key]
    x, y = sample(model, n, steps, seed)
    fd, lo = fd_to_real(cls, x)
    mse, e = eps_grid(model, xe, ye)
    m = float(((x - xr) ** 2).mean())
    return {"fd": round(fd, 4), "acc": round(float((lo.argmax(1) == y).mean()), 4),
            "psnr": round(10 * np.log10(4 / m), 2) if m > 0 else float("inf"),
            "eps_mse": round(mse, 6),
            "eps_cos": round(float((e * er).sum() / np.sqrt((e * e).sum() * (er * er).sum())), 6)}


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("folder")
    p.add_argument("--weights")
    p.add_argument("--n", type=int, default=500)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    m = load(a.folder, a.weights)
    print(json.dumps(evaluate(m, load(a.folder), a.folder, a.n, a.steps, a.seed)))
