"""GPTQ in numpy, slow and readable: what the engine's methods have to beat. Nothing here is used by the engine.

Inputs: w (out, in) float; x (rows, in) float, calibration inputs of the layer.
"""
import numpy as np


def affine_grid(w, bits, importance, candidates=29, refits=8):
    """Scale and offset of groups w (..., group): clipped ranges searched, then refitted to the codes by least squares."""
    h = np.broadcast_to(importance, w.shape)
    top = 2 ** bits - 1
    low, width = w.min(-1, keepdims=True), np.ptp(w, axis=-1, keepdims=True)
    high = low + width

    def codes(scale, offset):
        return np.clip(np.round((w - offset) / scale), 0, top)

    def error(scale, offset):
        return (h * (w - codes(scale, offset) * scale - offset) ** 2).sum(-1, keepdims=True)

    def better(old, new):
        take = error(*new) < error(*old)
        return tuple(np.where(take, n, o) for n, o in zip(new, old))

    grid = None
    for clip in np.linspace(.3, 1, candidates):
        new = np.maximum((high - low) * clip / top, 1e-12), low * clip
        grid = new if grid is None else better(grid, new)
    for _ in range(refits):
        k, total = codes(*grid), h.sum(-1, keepdims=True)
        mean_k, mean_w = (h * k).sum(-1, keepdims=True) / total, (h * w).sum(-1, keepdims=True) / total
        variance = (h * (k - mean_k) ** 2).sum(-1, keepdims=True)
        slope = (h * (k - mean_k) * (w - mean_w)).sum(-1, keepdims=True) / np.maximum(variance, 1e-12)
        scale = np.maximum(np.where(variance > 0, slope, grid[0]), 1e-12)
        grid = better(grid, (scale, mean_w - scale * mean_k))
    return grid


def gptq(w, x, bits, group, damping=.01):
    """Error feedback (Frantar et al. 2022) with columns by falling importance, and grids fixed from the original weights."""
    m, n = w.shape
    x = x.astype(np.float64)
    hessian = x.T @ x * (2 / len(x))
    hessian += np.eye(n) * damping * np.diag(hessian).mean()
    h = np.diag(hessian)
    scale, offset = affine_grid(w.reshape(m, n // group, group), bits, h.reshape(1, n // group, group))
    order = np.argsort(-h)
    scale, offset = (np.repeat(p[..., 0], group, 1)[:, order] for p in (scale, offset))
    u = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)])).T
    rest, q = w[:, order].astype(np.float64), np.zeros((m, n))
    for i in range(n):
        k = np.clip(np.round((rest[:, i] - offset[:, i]) / scale[:, i]), 0, 2 ** bits - 1)
        q[:, order[i]] = k * scale[:, i] + offset[:, i]
        rest[:, i + 1:] -= ((rest[:, i] - q[:, order[i]]) / u[i, i])[:, None] * u[i, i + 1:]
    return q


def with_gain(w, q, x):
    """One factor an output row, so that the outputs of q have slope 1 on those of w."""
    true, got = x @ w.T, x @ q.T
    return q * ((true * true).sum(0) / np.maximum((true * got).sum(0), 1e-12))[:, None]


def gptq_bits(bits, group):
    """Bits per weight of GPTQ's result: codes, and an f16 scale and offset a group."""
    return bits + 32 / group
