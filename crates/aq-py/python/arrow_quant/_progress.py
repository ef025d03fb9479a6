"""How a running job shows itself."""
from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from ._errors import AqWarning

#: Called with the source bytes that are done, all there are, and the tensor in work.
Callback = Callable[[int, int, str], Any]


class Told:
    """Takes the events of a job: `start`, `advance`, `warn`, `verify`, each with a number and a text."""

    def __init__(self, show: Callback | None) -> None:
        self.show, self.done, self.total = show, 0, 0

    def __call__(self, kind: str, number: int, text: str) -> None:
        if kind == "warn":
            warnings.warn(text, AqWarning, stacklevel=4)
            return
        if kind == "start":
            self.done, self.total = 0, number
        elif kind == "advance":
            self.done += number
        if self.show is not None:
            self.show(self.done, self.total, text)


class Bar:
    """A progress bar: of tqdm where that is installed, else a line on stderr when that is a terminal."""

    def __init__(self) -> None:
        self.bar: Any = None
        try:
            from tqdm.auto import tqdm
        except ImportError:
            tqdm = None
        self.tqdm: Any = tqdm

    def __call__(self, done: int, total: int, tensor: str) -> None:
        if self.tqdm is not None:
            self._tqdm(done, total)
        elif sys.stderr.isatty() and total:
            end = "\n" if done >= total else ""
            print(f"\r{100 * done // total:3d} % {tensor:<60.60}", end=end, file=sys.stderr, flush=True)

    def _tqdm(self, done: int, total: int) -> None:
        if self.bar is None or self.bar.total != total:
            self.close()
            self.bar = self.tqdm(total=total, unit="B", unit_scale=True)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def chosen(progress: bool | Callback) -> Callback | None:
    """What `progress=` asks for. `HF_HUB_DISABLE_PROGRESS_BARS` switches bars off."""
    if callable(progress):
        return progress
    off = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").upper() in ("1", "ON", "YES", "TRUE")
    return Bar() if progress and not off else None
