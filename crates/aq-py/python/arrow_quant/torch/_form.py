"""How the weight of a layer is packed: which buffers there are, and their shapes."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from .._errors import InputError
from .._model import Tensor as Stored
from ._packing import PLANES, packed_len


@dataclass(frozen=True)
class Form:
    """Codec `affine` with its side data, as the buffers of a `PackedWeight` hold it; docs/format.md says what they mean."""

    bits: int
    #: Weights that share a scale; 0 for a whole row.
    group_size: int
    #: Whether offsets are zero points, else they are float16.
    zero_points: bool = False
    #: Whether rows have exponents.
    exponents: bool = False
    smoothing: bool = False
    #: Columns that are rotated together; 0 for no rotation.
    rotation: int = 0
    #: Components of the low-rank part.
    low_rank: int = 0
    #: What the signs of the rotation are drawn from; None for regular ones.
    seed: int | None = None

    def __post_init__(self) -> None:
        whole = (self.bits, self.group_size, self.rotation, self.low_rank)
        if not all(isinstance(n, int) and n >= 0 for n in (*whole, self.seed or 0)) or self.bits not in PLANES:
            raise InputError(f"a layer cannot be packed as {asdict(self)}")

    @classmethod
    def of(cls, stored: Stored) -> Form:
        """The form of a tensor of codec `affine`.

        Both kinds of offsets are told apart by their length, and exponents that are all 0 are left out, as docs/format.md says.
        """
        rows, cols, side = stored.shape[0], stored.size // max(stored.shape[0], 1), stored.side
        bits, group = stored.bits or 0, stored.group_size or 0
        groups = -(-cols // min(group or cols, cols))
        offsets = sum(slab.offsets.size for slab in stored.slabs)
        return cls(
            bits=bits,
            group_size=group,
            zero_points=offsets != 2 * groups * rows,
            exponents=any(slab.extra.any() for slab in stored.slabs),
            smoothing="smoothing" in side,
            rotation=side["rotation"][0] if "rotation" in side else 0,
            low_rank=len(side["low_rank"][0]) if "low_rank" in side else 0,
            seed=side.get("seed"),
        )

    def group(self, cols: int) -> int:
        """Weights of a full group in rows of `cols` weights."""
        return min(self.group_size or cols, cols)

    def buffers(self, rows: int, cols: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of each buffer of a matrix `[rows, cols]`. float16 and float32 are held as integers of the same bits, which
        nothing that casts a model changes.
        """
        group = self.group(cols)
        groups = -(-cols // group)
        row = (cols // group) * packed_len(self.bits, group) + packed_len(self.bits, cols % group)
        found: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "codes": ((rows, row), torch.uint8),
            "scales": ((rows, groups), torch.int16),
        }
        found |= {"zeros": ((rows, groups), torch.uint8)} if self.zero_points else {"offsets": ((rows, groups), torch.int16)}
        if self.exponents:
            found["exponents"] = ((rows,), torch.int8)
        if self.smoothing:
            found["smoothing"] = ((cols,), torch.int16)
        if self.rotation:
            found["signs"] = ((cols,), torch.int8)
        if self.low_rank:
            rank = self.low_rank
            found |= {"left": ((rows, rank), torch.int8), "right": ((rank, cols), torch.int8), "part": ((rank,), torch.int32)}
        return found

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, and `bits` and `group_size`."""
        kept = {"bits", "group_size"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in kept or getattr(self, f.name) != f.default}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Form:
        """The reverse of `to_dict`. What `given` says of the weight, `shape` and `dtype`, is no part of the form."""
        try:
            return cls(**{key: value for key, value in given.items() if key not in ("shape", "dtype")})
        except TypeError as error:
            raise InputError(f"a layer cannot be packed as {dict(given)}: {error}") from None
