"""A model whose tensors are read when they are asked for."""
from __future__ import annotations

import json
import os
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from functools import cached_property
from typing import Any, NamedTuple, Unpack

import numpy as np

from . import _native
from ._arrays import STORED, Array, as_dtype, as_weights
from ._errors import ConfigError, InputError
from ._options import Options, as_json


class Slab(NamedTuple):
    """The stored parts of some rows of a tensor, as docs/format.md has them."""

    row_start: int
    row_count: int
    codes: Array
    scales: Array
    offsets: Array
    extra: Array


class Tensor:
    """A tensor of a model. Nothing of it is read before it is asked for."""

    def __init__(self, source: _native.Source, index: int, about: _native._About) -> None:
        self._source, self._index, self._about = source, index, about

    @property
    def name(self) -> str:
        """Its name in the model."""
        return self._about["name"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self._about["shape"])

    @property
    def src_dtype(self) -> str:
        """Its element type in the source, named as in safetensors: F32, BF16 ..."""
        return self._about["src_dtype"]

    @property
    def codec(self) -> str:
        """What its bytes mean: raw, affine, entropy ..."""
        return self._about["codec"]

    @property
    def bits(self) -> int | None:
        """Bits of a code; None where codes vary in length or there are none."""
        return self._about["bits"]

    @property
    def group_size(self) -> int | None:
        """Weights that share a scale; 0 for a whole row, None where there are no groups."""
        return self._about["group_size"]

    @property
    def nbytes(self) -> int:
        """Its bytes in the file, side data included."""
        return self._about["nbytes"]

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bits_per_weight(self) -> float:
        """All its bytes, in bits, for each weight."""
        return 8 * self.nbytes / max(self.size, 1)

    @property
    def is_quantized(self) -> bool:
        """Whether it is anything but kept as it was."""
        return not self.codec.startswith("raw")

    def __repr__(self) -> str:
        return f"<Tensor {self.name} {list(self.shape)} {self.codec} {self.bits_per_weight:.3f} bits per weight>"

    @cached_property
    def slabs(self) -> list[Slab]:
        """The stored parts, slab by slab, as read-only arrays: views of the mapped file where it holds a part in one piece.

        Each slab's checksum is verified.
        """
        rows = enumerate(self._about["slabs"])
        return [Slab(start, count, *self._source.slab(self._index, i)) for i, (start, count) in rows]

    def _joined(self, part: str) -> Array:
        arrays = [getattr(slab, part) for slab in self.slabs]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    @property
    def codes(self) -> Array:
        """Packed codes (uint8), or the elements of a tensor that is kept.

        A view of the mapped file when the tensor has one slab (up to 2^20 weights); a tensor of more slabs is copied together, while
        `slabs` has the pieces in place.
        """
        return self._joined("codes") if self.is_quantized else self._source.raw(self._index)

    @property
    def scales(self) -> Array:
        """Scales, one a group (float16); their bytes for `entropy`, whose scales are no numbers yet. Empty for kept tensors."""
        if not self.is_quantized:
            return np.empty(0, np.float16)
        scales = self._joined("scales")
        return scales if self.codec.startswith("entropy") else scales.view("<f2")

    @cached_property
    def side(self) -> dict[str, Any]:
        """What is done to decoded weights: `rotation` (block, signs) with its `seed` (None for regular signs), `smoothing`, `low_rank` (scales, left, right)."""
        if not self.is_quantized:
            return {}
        side = self._source.side(self._index)
        if "smoothing" in side:
            side["smoothing"] = np.frombuffer(side["smoothing"], "<f2")
        if "low_rank" in side:
            scales, left, right = side["low_rank"]
            scales = np.frombuffer(scales, "<f4")
            shape = (len(scales), -1)
            left, right = (np.frombuffer(part, np.int8) for part in (left, right))
            side["low_rank"] = scales, left.reshape(shape[::-1]), right.reshape(shape)
        return side

    def dequantize(self, dtype: str = "float32") -> Array:
        """Its weights as `float32`, `float16` or `bfloat16` (which needs ml_dtypes). Integers that are kept stay integers."""
        if not self.src_dtype.startswith(("F", "BF")):
            return self.codes.view(STORED[self.src_dtype]).reshape(self.shape)
        return as_dtype(self._source.weights(self._index).reshape(self.shape), dtype)

    def __arrow_c_schema__(self) -> object:
        """The columns of `__arrow_c_array__` as a capsule."""
        return self._source.arrow_schema()

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """Its slabs as an Arrow struct, a row for each, with the columns of docs/format.md: for `pyarrow.record_batch(tensor)`.

        The codes of one slab are not copied; those of several are, as Arrow keeps a column in one buffer. `__arrow_c_stream__` has them
        slab by slab, in place.
        """
        return self._source.arrow_array(self._index)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The same, a batch for each slab."""
        return self._source.arrow_stream(self._index, 1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        values = self.dequantize()
        return values if dtype is None else values.astype(dtype)


class Model:
    """An opened model: names and their tensors, in the order of the file, as a dictionary has them, and a table of slabs as Arrow has it.

    It is no `Mapping` to `isinstance`: programs such as polars take those for columns by name.
    """

    def __init__(self, source: _native.Source, path: str) -> None:
        self._source, self.path = source, path
        self._tensors = {about["name"]: Tensor(source, i, about) for i, about in enumerate(source.tensors())}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def keys(self) -> KeysView[str]:
        """Names of the tensors."""
        return self._tensors.keys()

    def values(self) -> ValuesView[Tensor]:
        """The tensors."""
        return self._tensors.values()

    def items(self) -> ItemsView[str, Tensor]:
        """Names and tensors."""
        return self._tensors.items()

    def get(self, name: str) -> Tensor | None:
        """The tensor of that name, if there is one."""
        return self._tensors.get(name)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"<Model {self.path}: {len(self)} tensors>"

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Free-form metadata of the file."""
        metadata: dict[str, str] = json.loads(self._source.inspect())["metadata"]
        return metadata

    def __arrow_c_schema__(self) -> object:
        """The columns of `__arrow_c_stream__` as a capsule."""
        return self._source.arrow_schema()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """All slabs as a stream of record batches with the columns of docs/format.md, one for each slab, which are read as they are asked for.

        Codes of a mapped file are not copied. pyarrow, polars and DuckDB take it:

            table = pyarrow.table(model)
            duckdb.sql("SELECT tensor, sum(octet_length(codes)) FROM model GROUP BY 1")
        """
        return self._source.arrow_stream(0, len(self))

    def state_dict(self, framework: str = "numpy", dtype: str | None = None) -> dict[str, Any]:
        """All tensors as plain ones, by name: numpy arrays, torch tensors, or jax arrays.

        Floating-point tensors become `dtype`: `float32` by default for numpy, `bfloat16` for the others. Tensors are decoded one
        at a time, so nothing but the result is held. jax without `jax_enable_x64` has no 64 bits: integers become 32 wide, and `InputError` is raised
        for those that do not fit.
        """
        convert = {"numpy": _numpy, "torch": _torch, "jax": _jax}.get(framework)
        if convert is None:
            raise ConfigError(f"framework {framework!r} is not numpy, torch or jax")
        dtype = dtype or ("float32" if framework == "numpy" else "bfloat16")
        return {name: convert(tensor, dtype) for name, tensor in self.items()}


def _numpy(tensor: Tensor, dtype: str) -> Array:
    return tensor.dequantize(dtype)


def _torch(tensor: Tensor, dtype: str) -> Any:
    import torch

    kind = getattr(torch, dtype, None)
    if kind not in (torch.float32, torch.float16, torch.bfloat16):
        raise ConfigError(f"dtype {dtype!r} is not float32, float16 or bfloat16")
    values = torch.from_numpy(np.array(tensor.dequantize()))
    return values.to(kind) if values.is_floating_point() else values


def _jax(tensor: Tensor, dtype: str) -> Any:
    import jax
    import jax.numpy as jnp

    if dtype not in ("float32", "float16", "bfloat16"):
        raise ConfigError(f"dtype {dtype!r} is not float32, float16 or bfloat16")
    values = tensor.dequantize()
    # `array` copies: integers are a view of the file.
    if tensor.src_dtype.startswith(("F", "BF")):
        return jnp.array(values, dtype=dtype)
    kept = values.astype(jax.dtypes.canonicalize_dtype(values.dtype))
    if not np.array_equal(kept, values):
        raise InputError(f"tensor {tensor.name!r} has integers beyond 32 bits, which jax keeps with jax_enable_x64 only")
    return jnp.array(kept)


def open(path: str | os.PathLike[str]) -> Model:
    """Opens any model that can be read: our files, safetensors, folders. Only headers are read.

        model = arrow_quant.open("out.parquet")
        weight = model["blocks.0.attn.qkv.weight"].dequantize()
    """
    return Model(_native.Source.open(os.fspath(path)), os.fspath(path))


def quantize_array(array: Any, **options: Unpack[Options]) -> Tensor:
    """Quantizes one array of weights, whose first axis are its rows, with the options of `quantize`: `bits`, `group_size`, `method`,
    `rate`, `rotation`, `low_rank`, `gain`, `seed`.

    Takes numpy arrays, `ml_dtypes.bfloat16` among them, anything with the buffer protocol, and anything on the CPU with `__dlpack__`, such as
    torch tensors. Elements of 16, 32 and 64 bits that lie in order are read where they are.

        q = arrow_quant.quantize_array(weights, bits=4, group_size=64, method="ls")
        print(q.bits_per_weight, arrow_quant.cosine_similarity(weights, q.dequantize()))
    """
    values, dtype = as_weights(array)
    source = _native.Source.quantize(values.reshape(-1).view(np.uint8), dtype, values.shape, as_json(options))
    return Tensor(source, 0, source.tensors()[0])
