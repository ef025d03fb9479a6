"""A reader of the native columns in numpy, written from docs/format.md alone.

It takes a pyarrow table with those columns, from a Parquet or an Arrow file.
"""
import json
from pathlib import Path

import numpy as np
import xxhash

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}
PLANES = {2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 8: [8]}
CHUNK = 128
TRELLIS_TABLES = Path(__file__).parents[3] / "aq-codec/src/trellis/tables.json"


def packed_len(bits, n):
    return (n * bits + 7) // 8


def unpack(data, bits, n):
    """Runs of n codes, one in each row of the byte matrix `data`."""
    codes = np.zeros((len(data), n), np.uint8)
    at = 0
    for start in range(0, n, CHUNK):
        count = min(CHUNK, n - start)
        planed = count - count % 8
        shift = 0
        for plane in PLANES[bits]:
            size = planed * plane // 8
            stored = data[:, at:at + size]
            at += size
            for k in range(8 // plane):
                part = (stored >> (k * plane)) & ((1 << plane) - 1)
                codes[:, start + k * size:start + (k + 1) * size] |= part << shift
            shift += plane
        rest = count - planed
        if rest:
            size = packed_len(bits, rest)
            stream = np.unpackbits(data[:, at:at + size], axis=1, bitorder="little")[:, :rest * bits]
            weights = (1 << np.arange(bits)).astype(np.uint8)
            codes[:, start + planed:start + count] = stream.reshape(len(data), rest, bits) @ weights
            at += size
    return codes


def decode_rows(row, cols):
    """The f32 weights of one slab of codec "affine" or "codebook"."""
    rows, bits = row["row_count"], row["bits"]
    group = row["group_size"] or cols
    groups = -(-cols // group)
    codes = np.frombuffer(row["codes"], np.uint8).reshape(rows, packed_len(bits, cols))
    scales = np.frombuffer(row["scales"], "<f2").astype(np.float32).reshape(rows, groups)
    table = np.frombuffer(row["offsets"], "<f2").astype(np.float32) if row["codec"] == "codebook" else None
    f16_offsets = len(row["offsets"]) == rows * groups * 2
    if table is not None:
        offsets = np.zeros((rows, groups), np.float32)
    elif f16_offsets:
        offsets = np.frombuffer(row["offsets"], "<f2").astype(np.float32).reshape(rows, groups)
    else:
        packed = np.frombuffer(row["offsets"], np.uint8).reshape(rows, packed_len(bits, groups))
        offsets = unpack(packed, bits, groups).astype(np.float32)
    out = np.empty((rows, cols), np.float32)
    at = 0
    for g in range(groups):
        start, end = g * group, min((g + 1) * group, cols)
        size = packed_len(bits, end - start)
        code = unpack(codes[:, at:at + size], bits, end - start)
        at += size
        scale, offset = scales[:, g:g + 1], offsets[:, g:g + 1]
        if table is not None:
            out[:, start:end] = table[code] * scale
            continue
        code = code.astype(np.float32)
        out[:, start:end] = code * scale + offset if f16_offsets else (code - offset) * scale
    if row["extra"]:
        exponent = np.frombuffer(row["extra"], np.int8).astype(np.int32)
        out = np.ldexp(out, exponent[:, None]).astype(np.float32)
    return out


def split_side(row):
    """Takes the side data off `extra` and its mark off the codec; the bytes of this slab."""
    size = 4 + int.from_bytes(row["extra"][:4], "little")
    side, row["extra"] = row["extra"][4:size], row["extra"][size:]
    row["codec"] = row["codec"].removesuffix("+transform")
    return side


def negative(block, seed, cols):
    """Whether each column changes its sign: drawn from a seed, or regular where there is none."""
    if not seed:
        digits = np.arange(cols)[:, None] % block // 4 ** np.arange(5) % 4
        return (digits == 3).sum(1) % 2
    x = np.uint64(int.from_bytes(seed, "little")) + np.arange(1, -(-cols // 64) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.unpackbits((x ^ x >> np.uint64(31)).astype("<u8").view(np.uint8), bitorder="little")[:cols]


def undo(w, row_start, side):
    """The weights of decoded rows of one slab."""
    n, cols = w.shape
    while side:
        tag, size = side[0], int.from_bytes(side[1:5], "little")
        body, side = side[5:5 + size], side[5 + size:]
        if tag == 1: block, seed = int.from_bytes(body[:4], "little"), body[4:]
        if tag == 2: smoothing = np.frombuffer(body, "<f2").astype(np.float32)
        if tag == 3: low_rank = body
    if "low_rank" in locals():
        rank = int.from_bytes(low_rank[:2], "little")
        scales = np.frombuffer(low_rank, "<f4", rank, 2)
        left = np.frombuffer(low_rank, np.int8, offset=2 + 4 * rank)
        right, left = left[len(left) - rank * cols:].reshape(rank, cols), left[:len(left) - rank * cols].reshape(-1, rank)
        for k in range(rank):
            w = w + (left[row_start:row_start + n, k:k + 1].astype(np.float32) * scales[k]) * right[k].astype(np.float32)
    if "block" in locals():
        for h in (1 << i for i in range(block.bit_length() - 1)):
            x = w.reshape(n, -1, 2, h)
            w = np.stack((x[:, :, 0] + x[:, :, 1], x[:, :, 0] - x[:, :, 1]), 2).reshape(n, cols)
        w = w * np.float32(1 / np.sqrt(block)) * np.where(negative(block, seed, cols), np.float32(-1), np.float32(1))
    return w / smoothing if "smoothing" in locals() else w


def trellis_tables(bits, state_bits):
    """The two tables of a trellis, as a matrix of two rows."""
    values, size = json.loads(TRELLIS_TABLES.read_text()), 2 << state_bits
    start = (0 if state_bits == 6 else 6 * 64) + (bits - 2) * size
    return np.array(values[start:start + size], np.float32).reshape(2, -1)


def decode_trellis(row, cols):
    """The f32 weights of one slab of codec "trellis"."""
    rows, bits, (state_bits,) = row["row_count"], row["bits"], row["offsets"]
    codes = np.frombuffer(row["codes"], np.uint8).reshape(rows, packed_len(bits, cols))
    scales = np.frombuffer(row["scales"], "<f2").reshape(rows, -(-cols // 256))
    tables = trellis_tables(bits, state_bits)
    out = np.empty((rows, cols), np.float32)
    for i, start in enumerate(range(0, cols, 256)):
        n = min(256, cols - start)
        first = packed_len(bits, start)
        stream = np.unpackbits(codes[:, first:first + packed_len(bits, n)], axis=1, bitorder="little")
        window = (np.arange(n)[:, None] * bits + np.arange(state_bits)) % (n * bits)
        states = stream[:, window] @ (1 << np.arange(state_bits))
        table, scale = np.signbit(scales[:, i]).astype(int), np.abs(scales[:, i]).astype(np.float32)
        out[:, start:start + n] = tables[table[:, None], states] * scale[:, None]
    if row["extra"]:
        exponent = np.frombuffer(row["extra"], np.int8).astype(np.int32)
        out = np.ldexp(out, exponent[:, None]).astype(np.float32)
    return out


def decode_signs(row, cols):
    """The f32 weights of one slab of codec "sign"."""
    rows, bits = row["row_count"], row["bits"]
    group = row["group_size"] or cols
    codes = np.frombuffer(row["codes"], np.uint8).reshape(rows, -1)
    if bits == 1:
        assert codes.shape[1] == -(-cols // 8)
        values = np.unpackbits(codes, axis=1, bitorder="little").astype(np.float32) * 2 - 1
    else:
        assert codes.shape[1] == -(-cols // 5) and codes.max() <= 242
        values = np.stack([codes // 3**k % 3 for k in range(5)], -1).reshape(rows, -1).astype(np.float32) - 1
    scales = np.frombuffer(row["scales"], "<f2").astype(np.float32).reshape(rows, -(-cols // group))
    assert row["offsets"] == b""
    out = values[:, :cols] * np.repeat(scales, group, 1)[:, :cols]
    if row["extra"]:
        exponent = np.frombuffer(row["extra"], np.int8).astype(np.int32)
        out = np.ldexp(out, exponent[:, None]).astype(np.float32)
    return out


DECODERS = {"affine": decode_rows, "codebook": decode_rows, "sign": decode_signs, "trellis": decode_trellis}


def check_sum(row):
    """Whether the stored checksum is that of the payload."""
    payload = b"".join(row[part] for part in ("codes", "scales", "offsets", "extra"))
    return xxhash.xxh3_64_intdigest(payload) == row["xxh3"]


def read(table):
    """{name: array}: f32 for quantized tensors, the source type for the others (BF16 widened to f32)."""
    slabs = {}
    for row in table.to_pylist():
        assert check_sum(row), f"{row['tensor']}: checksum"
        slabs.setdefault(row["tensor"], []).append(row)
    return {name: join(rows) for name, rows in slabs.items()}


def join(rows):
    shape = rows[0]["shape"]
    assert sum(r["row_count"] for r in rows) == (np.prod(shape, dtype=int) if rows[0]["codec"] == "raw" else shape[0])
    if rows[0]["codec"] == "raw":
        array = np.frombuffer(b"".join(r["codes"] for r in rows), DTYPES[rows[0]["src_dtype"]])
        if rows[0]["src_dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
    else:
        cols = int(np.prod(shape[1:], dtype=int))
        if rows[0]["codec"].endswith("+transform"):
            sides = [split_side(row) for row in rows]
            assert sides[0] and not any(sides[1:])
            array = np.concatenate([undo(DECODERS[r["codec"]](r, cols), r["row_start"], sides[0]) for r in rows])
        else:
            array = np.concatenate([DECODERS[r["codec"]](r, cols) for r in rows])
    return array.reshape(shape)
