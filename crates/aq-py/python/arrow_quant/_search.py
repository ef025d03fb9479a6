"""The search for a better plan than one width for all layers."""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from . import _native
from ._errors import AqError
from ._options import Path, as_json
from ._progress import Bar, Callback, Told, chosen


def search(
    input: Path,
    output: Path,
    *,
    fitness: str | Callable[[str], float] | None = None,
    evaluations: int = 200,
    population: int = 16,
    children: int = 4,
    patience: int | None = None,
    checkpoint: Path | None = None,
    methods: Sequence[str] = (),
    smoothings: Sequence[str | float] = (),
    groups: Sequence[int] = (),
    force: bool = False,
    progress: bool | Callback = False,
    **options: Any,
) -> dict[str, Any]:
    """Searches for the best plan of a size for a model, writes it as YAML, and returns what was found: the object that `aq search --json` prints.

    `target_bpw` or `target_size` give the size; other options are those of `quantize`. `fitness` is called with the path of a plan, which
    `quantize(..., plan=path)` takes, and returns its score, lower for better plans; or it is a command such as `python score.py {plan}`. Several
    may be asked for at once, from as many threads as `threads` says. Without one the score is the error of the layers' outputs.

    The search begins with the exact allocation of the errors that are predicted (`sensitivity`, else `calibration`), so its plan has no
    higher score than that. The same `seed` gives the same plan. With `checkpoint` a search that was stopped goes on. An exception of
    `fitness` ends it and is raised.

        def fitness(plan):
            arrow_quant.quantize("model/", "tried.parquet", plan=plan, force=True)
            return damage_of("tried.parquet")

        found = arrow_quant.search("model/", "plan.yaml", target_bpw=2.5, fitness=fitness, evaluations=30, threads=1)
    """
    if os.path.exists(output) and not force:
        raise AqError(f"{os.fspath(output)}: exists already; force=True replaces it")
    settings = {
        "evaluations": evaluations, "population": population, "children": children, "patience": patience,
        "checkpoint": None if checkpoint is None else os.fspath(checkpoint), "methods": list(methods),
        "smoothings": list(smoothings), "groups": list(groups),
    }
    show = chosen(progress)
    paths = os.fspath(input), os.fspath(output)
    try:
        found: dict[str, Any] = json.loads(
            _native.search(*paths, as_json(options), json.dumps(settings), fitness, Told(show)))
    finally:
        if isinstance(show, Bar):
            show.close()
    return found
