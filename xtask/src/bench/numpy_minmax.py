"""Min-max quantization of a bfloat16 safetensors file to 4 bits in groups of 128, with numpy alone."""

import json
import sys

import numpy as np

with open(sys.argv[1], "rb") as file:
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
data = np.memmap(sys.argv[1], dtype=np.uint8, mode="r", offset=8 + size)
header.pop("__metadata__", None)

with open(sys.argv[2], "wb") as out:
    for entry in header.values():
        start, end = entry["data_offsets"]
        bits = data[start:end].view(np.uint16).astype(np.uint32) << 16
        weights = bits.view(np.float32).reshape(-1, 128)
        low = np.minimum(weights.min(axis=1, keepdims=True), 0)
        high = np.maximum(weights.max(axis=1, keepdims=True), 0)
        scale = np.maximum((high - low) / 15, np.float32(1e-12))
        codes = np.rint((weights - low) / scale).astype(np.uint8)
        out.write((codes[:, ::2] | codes[:, 1::2] << 4).tobytes())
        out.write(scale.astype(np.float16).tobytes())
        out.write(np.rint(-low / scale).astype(np.uint8).tobytes())
