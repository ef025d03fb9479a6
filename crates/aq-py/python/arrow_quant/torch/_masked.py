"""Inputs of masked diffusion language models, masked as in training."""
from __future__ import annotations

import torch
from torch import Tensor


def masked_inputs(
    tokens: Tensor,
    t: float | Tensor | None,
    mask_id: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Masks each token on its own with probability `t`, as MDLM and LLaDA are trained; returns the masked tokens and the `t` of each row.

    `t` is one number, one for each row, or None: then rows are spread over (0, 1] by stratified draws, which covers the
    mask ratios evenly with few rows. A sampler's own states are not needed: the model sees the same inputs in training.

        for masked, t in (masked_inputs(batch, t, mask_id) for t in torch.linspace(0.05, 1, 20)):
            with timestep(t[0]):
                model(masked)

    Sahoo et al., "Simple and effective masked diffusion language models", 2024, arXiv 2406.07524.
    """
    rows = tokens.shape[0]
    if t is None:
        draw = torch.rand((), generator=generator)
        times = 1 - (torch.arange(rows) + draw) / rows
    else:
        times = torch.as_tensor(t, dtype=torch.float32).expand(rows).clone()
    chance = torch.rand(tokens.shape, generator=generator).to(tokens.device)
    hidden = chance < times.to(tokens.device).reshape(-1, *[1] * (tokens.ndim - 1))
    return torch.where(hidden, torch.full_like(tokens, mask_id), tokens), times
