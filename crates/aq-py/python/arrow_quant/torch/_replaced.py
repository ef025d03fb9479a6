"""A module as a function of some of its weights."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._errors import ConfigError


def replaced(module: nn.Module, run: Callable[[nn.Module], Any]) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """`run(module)` as a function of weights by name, which are in the place of the module's own while it runs, without gradients.

    `run` gives tensors: one, or several in a list, tuple or mapping. What it draws at random has to be the same each time.

        def outputs(model):
            return [model(x, t) for x, t in states]

        evaluate.sensitivity("model/", replaced(model, outputs))
    """

    def outputs(weights: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        own = module.state_dict(keep_vars=True)
        if unknown := [name for name in weights if name not in own]:
            raise ConfigError(f"the module has no tensor called {unknown[0]!r}")
        kept = {name: own[name].detach().clone() for name in weights}
        with torch.no_grad():
            try:
                for name, values in weights.items():
                    own[name].copy_(torch.from_numpy(np.ascontiguousarray(values)))
                return [x.detach().float().cpu().numpy() for x in _tensors(run(module))]
            finally:
                for name, values in kept.items():
                    own[name].copy_(values)

    return outputs


def _tensors(outputs: Any) -> Iterator[Tensor]:
    """The tensors of what a model gives, in order."""
    if isinstance(outputs, Tensor):
        yield outputs
        return
    for part in outputs.values() if isinstance(outputs, Mapping) else outputs:
        yield from _tensors(part)
