"""The damage of each layer alone to a model's own output."""
from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._arrays import Array, as_f32
from ._errors import ConfigError, InputError
from ._jobs import quantize
from ._model import Model, open as open_model
from ._progress import Callback

SCHEMA = "aq.sensitivity/1"
#: Relative difference of the outputs' squares up to which a stored file is of the same inputs.
SAME = 1e-3

#: Gives the model's outputs over fixed inputs and times, with these weights in the place of its own.
Run = Callable[[Mapping[str, Array]], Any]


def sensitivity(
    model: str | os.PathLike[str],
    run: Run,
    *,
    out: str | os.PathLike[str] | None = None,
    rates: Sequence[float] = (1.5, 2.0, 3.0, 4.0),
    progress: Callback | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The damage that quantizing each layer alone does to the outputs of a model, at several rates:

        damage = sum((y_layer - y)^2) / sum(y^2)

    `run(weights)` gives the outputs `y` of the model over inputs and times of your choice, always the same ones, with `weights` (by name,
    float32) in the place of its own: none for the model itself, and those of one layer for its damage. `arrow_quant.torch.replaced` makes
    such a function of a torch module. `options` are those of `quantize`, which quantizes the whole model once for each rate: by
    `entropy`, or with `method=` one of whole bits, whose `rates` are widths.

    What was measured is kept in `out`, by default beside the model with the ending `.sensitivity.json`, after every layer, and is not measured
    again. Raises `ConfigError` when that file is of other options or other outputs.

        found = evaluate.sensitivity("model/", replaced(module, outputs), calibration="calib.safetensors")
        worst = max(found["layers"], key=lambda layer: layer["points"][0]["damage"])

    Damages below about one bit a weight do not follow `2^(-2 bits)`, so they are measured at several rates and not extrapolated.
    """
    path = Path(os.fspath(model).rstrip("/\\") + ".sensitivity.json") if out is None else Path(out)
    reference = _flat(run({}))
    power = float(reference @ reference)
    if not (np.isfinite(power) and power > 0):
        raise ConfigError("the outputs of the model are not finite, or all zero")
    settings = json.loads(json.dumps({"rates": list(rates), **options}, default=os.fspath))
    known = _Known(path, settings, power)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        for at, rate in enumerate(rates):
            quantized = _quantized(model, Path(folder) / "rate.parquet", rate, options)
            names = [name for name, tensor in quantized.items() if tensor.is_quantized]
            for number, name in enumerate(names):
                if not known.has(name, at):
                    tensor = quantized[name]
                    wrong = _flat(run({name: tensor.dequantize()})) - reference
                    known.add(name, at, tensor.bits_per_weight, float(wrong @ wrong) / power)
                if progress is not None:
                    progress(at * len(names) + number + 1, len(rates) * len(names), name)
    return known.stored()


def _quantized(model: str | os.PathLike[str], out: Path, rate: float, options: dict[str, Any]) -> Model:
    if options.get("method", "entropy") == "entropy":
        quantize(model, out, force=True, **{"method": "entropy", "rate": rate, **options})
    else:
        quantize(model, out, force=True, **{"bits": int(rate), **options})
    return open_model(out)


def _flat(outputs: Any) -> Array:
    """Outputs, one array or several, as one vector of float64."""
    parts = outputs if isinstance(outputs, list | tuple) else [outputs]
    return np.concatenate([as_f32(part).reshape(-1).astype(np.float64) for part in parts])


class _Known:
    """What was measured so far, on disk."""

    def __init__(self, path: Path, settings: dict[str, Any], power: float) -> None:
        self.path, self.about = path, {"schema": SCHEMA, "settings": settings, "output_squares": power}
        #: Points by layer and number of the rate.
        self.points: dict[str, dict[int, dict[str, float]]] = {}
        if path.exists():
            self._read(settings, power)

    def _read(self, settings: dict[str, Any], power: float) -> None:
        try:
            stored = json.loads(self.path.read_text())
            if stored["schema"] != SCHEMA:
                raise InputError(f"{self.path}: schema {stored['schema']!r} is not {SCHEMA!r}")
            same = stored["settings"] == settings and abs(stored["output_squares"] / power - 1) <= SAME
            layers = {layer["name"]: layer["points"] for layer in stored["layers"]}
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{self.path}: not a file of sensitivities: {error}") from None
        if not same:
            raise ConfigError(f"{self.path}: it was measured with other options or outputs; remove it, or give another out=")
        self.points = {name: dict(enumerate(points)) for name, points in layers.items()}

    def has(self, tensor: str, at: int) -> bool:
        return at in self.points.get(tensor.removesuffix(".weight"), {})

    def add(self, tensor: str, at: int, bits_per_weight: float, damage: float) -> None:
        point = {"bits_per_weight": bits_per_weight, "damage": damage}
        self.points.setdefault(tensor.removesuffix(".weight"), {})[at] = point
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        unfinished.write_text(json.dumps(self.stored(), indent=1))
        os.replace(unfinished, self.path)

    def stored(self) -> dict[str, Any]:
        layers = [{"name": name, "points": [points[at] for at in sorted(points)]} for name, points in self.points.items()]
        return {**self.about, "layers": layers}
