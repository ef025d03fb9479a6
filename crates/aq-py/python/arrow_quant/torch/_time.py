"""The time of the forward pass that runs now."""
from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from .._errors import ConfigError

_now: ContextVar[float | None] = ContextVar("arrow_quant_time", default=None)

#: What the time is called among the arguments of a model's forward.
_NAMES = ("timestep", "timesteps", "t", "time", "sigma", "sigmas", "noise_level")

#: Gives the time from the arguments and keyword arguments of the root module's forward.
TimeOf = Callable[[tuple[Any, ...], dict[str, Any]], Any]


@contextlib.contextmanager
def timestep(t: Any) -> Iterator[None]:
    """Says at what time (t, sigma or mask ratio) the forward passes inside of it run; it goes before what the arguments say.

        with arrow_quant.torch.timestep(t):
            noise = model(x, t)
    """
    token = _now.set(as_time(t))
    try:
        yield
    finally:
        _now.reset(token)


def current_time() -> float | None:
    """The time of the innermost `timestep`, or that of the arguments of the root module that runs."""
    return _now.get()


def as_time(value: Any) -> float:
    """A number, or a tensor whose elements are all the same number."""
    if isinstance(value, torch.Tensor):
        times = value.detach().flatten().to(torch.float64)
        if times.numel() == 0 or bool((times != times[0]).any()):
            raise ConfigError("one forward pass has one time, but its samples have several")
        return float(times[0])
    return float(value)


def detect(module: nn.Module) -> TimeOf | None:
    """Finds the time by the name of an argument of the module's forward; None when it has no such argument."""
    signature = inspect.signature(module.forward)
    name = next((name for name in _NAMES if name in signature.parameters), None)
    if name is None:
        return None

    def time_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return signature.bind_partial(*args, **kwargs).arguments.get(name)

    return time_of


class TimeHooks:
    """Sets the time while the root module runs. An outer `timestep` stays in force."""

    def __init__(self, module: nn.Module, time_of: TimeOf | None) -> None:
        self.time_of = time_of or detect(module)
        self.tokens: list[Any] = []
        self.handles = [
            module.register_forward_pre_hook(self._enter, with_kwargs=True),
            module.register_forward_hook(self._leave, always_call=True),
        ]

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = None if self.time_of is None or _now.get() is not None else self.time_of(args, kwargs)
        self.tokens.append(None if value is None else _now.set(as_time(value)))

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        token = self.tokens.pop() if self.tokens else None
        if token is not None:
            _now.reset(token)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
