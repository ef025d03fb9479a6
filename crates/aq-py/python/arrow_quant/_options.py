"""The options of `quantize`, by name and type."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TypedDict

from ._errors import ConfigError

Path = str | os.PathLike[str]


class Options(TypedDict, total=False):
    """What `quantize` takes by name: the options of the command, with underscores. None leaves one open."""

    #: Bits of a code: 2, 3, 4, 5, 6 or 8; experimental: 1.
    bits: int | None
    #: Weights that share a scale; 0 or `row` for a whole row.
    group_size: int | str | None
    #: `minmax`, `ls`, `gptq`, `entropy`, `trellis`, the experimental `binary` and `ternary`, or any other strategy.
    method: str | None
    #: `edge`, `local` or `cloud`.
    profile: str | None
    #: Samples or statistics of layer inputs.
    calibration: Path | None
    #: Bits per weight of each layer, for methods of variable rate.
    rate: float | None
    #: Bits per weight of the whole file.
    target_bpw: float | None
    #: Size of the whole file: `"1.9GB"`.
    target_size: str | int | None
    #: Least cosine of each weight with its quantized form.
    min_cosine: float | None
    #: Largest relative squared error of each layer's outputs.
    max_error: float | None
    #: Stop at the first tensor that misses a bound.
    fail_fast: bool | None
    #: Rules `REGEX=SPEC`, the first match wins.
    tensor_type: str | Sequence[str] | None
    #: Rules as a configuration file has them, after those of `tensor_type`.
    rules: Sequence[Mapping[str, object]] | None
    #: A configuration file, which the other options go before.
    config: Path | None
    #: What quantizing each layer alone does to the outputs of the model, for a target size.
    sensitivity: Path | None
    #: A plan of `aq plan` or `search`: what happens to each tensor.
    plan: Path | None
    #: Components of a pipeline to quantize.
    component: str | Sequence[str] | None
    #: One factor per output row that removes the shrinkage of the grid.
    gain: bool | None
    #: Rotate the inputs of each layer.
    rotation: bool | None
    #: `auto`, `off` or a rank.
    low_rank: str | int | bool | None
    #: `auto`, `off`, a formula or an alpha from 0 to 1; by default `auto` with `act_bits` below 8.
    smoothing: str | float | bool | None
    #: The same as smoothing: `auto`, or `off`.
    spatial: bool | None
    #: Move smoothing into the layer before.
    fold_smoothing: bool | None
    #: Quantize the inputs of layers too, to so many bits.
    act_bits: int | None
    #: `token`, `static` or `groups`.
    act_mode: str | None
    #: Inputs of a token that share a range; 0 for all of them.
    act_group_size: int | None
    #: Whether channels of inputs may be shifted before they are quantized.
    act_shift: bool | None
    #: Groups of timesteps.
    time_groups: int | None
    #: Whether ranges may differ by time.
    time_aware: bool | None
    #: Worker threads.
    threads: int | None
    #: Memory that may be used: `"512MiB"`.
    memory_limit: str | int | None
    #: Read the source piece by piece although memory would allow a map.
    streaming: bool | None
    #: Source bytes read at a time.
    block_size: str | int | None
    #: Seed of everything random.
    seed: int | None
    #: The format of the output, where its ending does not say it.
    format: str | None
    #: Element type of dequantized outputs: `f32`, `f16` or `bf16`.
    dtype: str | None
    #: The most bytes of a safetensors file in a folder: `"5GB"`.
    shard_size: str | int | None
    #: Name of the original in the model card of a folder.
    base_model: str | None
    #: A page, a text or an object about the job; its ending, `.html`, `.md` or `.json`, says which.
    report: Path | None
    #: Replace an existing output.
    force: bool | None
    #: Continue a folder that an earlier run left unfinished.
    resume: bool | None
    #: Accept tensors that are quantized already.
    allow_requantize: bool | None
    #: Another name of `component`.
    components: str | Sequence[str] | None
    #: Older name of `profile`.
    deployment_profile: str | None
    #: Older name of `bits`.
    bit_width: int | None
    #: Older name of `threads`.
    num_threads: int | None
    #: Older name of `streaming`.
    streaming_mode: bool | None
    #: Older name of `time_groups`.
    num_time_groups: int | None
    #: Older name of `time_aware`.
    enable_time_aware: bool | None
    #: Older switch of `smoothing`.
    enable_spatial: bool | None


def as_json(options: Mapping[str, object]) -> str:
    """Options as JSON; paths become text."""
    try:
        return json.dumps(dict(options), default=_plain)
    except TypeError as error:
        raise ConfigError(f"an option is neither a number, a text, a switch nor a list: {error}") from None


def _plain(value: object) -> object:
    """A path as text, a scalar of numpy as a number, any other collection as a list."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} {value!r}")
