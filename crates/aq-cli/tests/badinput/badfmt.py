"""Low-level writers for deliberately malformed model files.

Needs nothing but the package xxhash, for the checksums of Parquet rows; deterministic: the same call always gives the same
bytes.  Nothing here validates anything; every length, count, type code and
offset can be set to a lie.  Formats: safetensors, GGUF, Parquet (with its own
thrift-compact codec, so no pyarrow is needed to make a file).
"""
import json
import os
import struct
import zlib

# ----------------------------------------------------------------- weights --
_M64 = (1 << 64) - 1


def prng(seed):
    """xorshift64*: a fixed stream, independent of Python's random module."""
    x = (seed * 0x9E3779B97F4A7C15 + 1) & _M64 or 1
    while True:
        x ^= x >> 12
        x ^= (x << 25) & _M64
        x ^= x >> 27
        yield (x * 0x2545F4914F6CDD1D) & _M64


def floats(n, seed=1, scale=0.05):
    """n plausible weights: sum of four uniforms, mean 0."""
    g = prng(seed)
    out = []
    for _ in range(n):
        r = next(g)
        s = sum((r >> (16 * i)) & 0xFFFF for i in range(4)) / 65535.0 - 2.0
        out.append(s * scale)
    return out


def f32(vals):
    return struct.pack("<%df" % len(vals), *vals)


def f16(vals):
    return struct.pack("<%de" % len(vals), *vals)


def f64(vals):
    return struct.pack("<%dd" % len(vals), *vals)


def bf16(vals):
    b = f32(vals)
    return b"".join(b[i + 2:i + 4] for i in range(0, len(b), 4))


def w32(n, seed=1):
    return f32(floats(n, seed))


# ------------------------------------------------------------- safetensors --
class Raw(str):
    """A piece of JSON text to be written as it is."""


def _js(v):
    if isinstance(v, Raw):
        return str(v)
    if isinstance(v, dict):
        return "{" + ",".join(_js(k) + ":" + _js(x) for k, x in v.items()) + "}"
    if isinstance(v, (list, tuple)):
        if v and isinstance(v, list) and isinstance(v[0], tuple):   # pairs: keys may repeat
            return "{" + ",".join(_js(k) + ":" + _js(x) for k, x in v) + "}"
        return "[" + ",".join(_js(x) for x in v) + "]"
    return json.dumps(v, ensure_ascii=False)


def info(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def st_raw(header, data=b"", n=None):
    """header: bytes or str; n: the length field (default: the true one)."""
    if isinstance(header, str):
        header = header.encode("utf-8")
    n = len(header) if n is None else n
    return struct.pack("<Q", n & _M64) + header + data


def st(entries, data=b"", n=None, pad=b""):
    """entries: dict, or a list of (key, value) pairs where keys may repeat."""
    return st_raw(_js(entries).encode("utf-8") + pad, data, n)


SIZES = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2,
         "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}


def st_model(tensors, meta=None, pad=b""):
    """tensors: list of (name, dtype, shape, bytes), laid out with no hole."""
    ent, off, blob = {}, 0, []
    if meta is not None:
        ent["__metadata__"] = meta
    for name, dt, shape, data in tensors:
        ent[name] = info(dt, shape, off, off + len(data))
        off += len(data)
        blob.append(data)
    return st(ent, b"".join(blob), pad=pad)


def small_model(seed=1, k=3, rows=16, cols=64, prefix="blocks"):
    return [("%s.%d.attn.weight" % (prefix, i), "F32", [rows, cols], w32(rows * cols, seed + i))
            for i in range(k)]


# -------------------------------------------------------------------- GGUF --
U8, I8, U16, I16, U32, I32, F32T, BOOL, STR, ARR, U64, I64, F64T = range(13)
T_F32, T_F16, T_Q4_0, T_Q4_1, T_Q5_0, T_Q5_1, T_Q8_0 = 0, 1, 2, 3, 6, 7, 8
T_BF16 = 30
_PK = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32T: "<f",
       BOOL: "<B", U64: "<Q", I64: "<q", F64T: "<d"}


def gstr(s, n=None):
    b = s.encode("utf-8") if isinstance(s, str) else s
    return struct.pack("<Q", (len(b) if n is None else n) & _M64) + b


def kv(key, typ, val, key_len=None, raw=None):
    """raw: bytes that replace the encoded value."""
    out = gstr(key, key_len) + struct.pack("<I", typ & 0xFFFFFFFF)
    if raw is not None:
        return out + raw
    return out + _gval(typ, val)


def _gval(typ, val):
    if typ == STR:
        return gstr(val)
    if typ == ARR:
        et, items = val
        return struct.pack("<IQ", et, len(items)) + b"".join(_gval(et, x) for x in items)
    return struct.pack(_PK[typ], val)


def ti(name, dims, typ, off, n_dims=None, name_len=None):
    return (gstr(name, name_len) + struct.pack("<I", (len(dims) if n_dims is None else n_dims) & 0xFFFFFFFF)
            + b"".join(struct.pack("<Q", d & _M64) for d in dims)
            + struct.pack("<IQ", typ & 0xFFFFFFFF, off & _M64))


BASE_KV = [kv("general.architecture", STR, "dit"), kv("general.name", STR, "tiny")]


def gguf(kvs, tis, data=b"", magic=b"GGUF", version=3, n_t=None, n_kv=None, align=32, pad=None):
    """kvs, tis: lists of encoded pieces; counts default to the true ones."""
    h = magic + struct.pack("<IQQ", version & 0xFFFFFFFF, (len(tis) if n_t is None else n_t) & _M64,
                            (len(kvs) if n_kv is None else n_kv) & _M64)
    h += b"".join(kvs) + b"".join(tis)
    p = (-len(h)) % align if pad is None else pad
    return h + b"\0" * p + data


def gguf_model(tensors, kvs=None, align=32, version=3):
    """tensors: (name, dims in file order, type, bytes); padded as the format asks."""
    kvs = list(BASE_KV if kvs is None else kvs)
    if align != 32:
        kvs.append(kv("general.alignment", U32, align))
    tis, blob, off = [], [], 0
    for name, dims, typ, data in tensors:
        tis.append(ti(name, dims, typ, off))
        p = (-len(data)) % align
        blob.append(data + b"\0" * p)
        off += len(data) + p
    return gguf(kvs, tis, b"".join(blob), version=version, align=align)


# ----------------------------------------------------------- thrift compact --
# A struct is {field id: (type, value)}; a list is (element type, [values]).
TRUE, FALSE, BYTE, TI16, TI32, TI64, DBL, BIN, LIST, SET, MAP, STRUCT = range(1, 13)


def uvar(n):
    n &= _M64
    out = bytearray()
    while True:
        b = n & 0x7F
        n >>= 7
        if n:
            out.append(b | 0x80)
        else:
            out.append(b)
            return bytes(out)


def zz(n):
    return ((n << 1) ^ (n >> 63)) & _M64


def tval(t, v):
    if t in (TRUE, FALSE):
        return b""
    if t == BYTE:
        return struct.pack("<b", v)
    if t in (TI16, TI32, TI64):
        return uvar(zz(v))
    if t == DBL:
        return struct.pack("<d", v)
    if t == BIN:
        v = v.encode() if isinstance(v, str) else v
        return uvar(len(v)) + v
    if t in (LIST, SET):
        et, items = v
        n = len(items)
        head = bytes([(n << 4) | et]) if n < 15 else bytes([0xF0 | et]) + uvar(n)
        if et in (TRUE, FALSE):
            return head + bytes(1 if x else 2 for x in items)
        return head + b"".join(tval(et, x) for x in items)
    if t == STRUCT:
        return tstruct(v)
    raise ValueError(t)


def tstruct(d):
    out, last = bytearray(), 0
    for fid in sorted(d):
        t, v = d[fid]
        delta = fid - last
        if 0 < delta < 16:
            out.append((delta << 4) | t)
        else:
            out.append(t)
            out += uvar(zz(fid))
        out += tval(t, v)
        last = fid
    out.append(0)
    return bytes(out)


def _ruvar(b, p):
    n = s = 0
    while True:
        c = b[p]
        p += 1
        n |= (c & 0x7F) << s
        s += 7
        if not c & 0x80:
            return n, p


def _rzz(b, p):
    n, p = _ruvar(b, p)
    return (n >> 1) ^ -(n & 1), p


def rval(t, b, p):
    if t in (TRUE, FALSE):
        return t == TRUE, p
    if t == BYTE:
        return struct.unpack_from("<b", b, p)[0], p + 1
    if t in (TI16, TI32, TI64):
        return _rzz(b, p)
    if t == DBL:
        return struct.unpack_from("<d", b, p)[0], p + 8
    if t == BIN:
        n, p = _ruvar(b, p)
        return b[p:p + n], p + n
    if t in (LIST, SET):
        h = b[p]
        p += 1
        et, n = h & 15, h >> 4
        if n == 15:
            n, p = _ruvar(b, p)
        out = []
        for _ in range(n):
            if et in (TRUE, FALSE):
                out.append(b[p] == 1)
                p += 1
            else:
                v, p = rval(et, b, p)
                out.append(v)
        return (et, out), p
    if t == STRUCT:
        return rstruct(b, p)
    raise ValueError("thrift type %d" % t)


def rstruct(b, p=0):
    d, last = {}, 0
    while True:
        h = b[p]
        p += 1
        if h == 0:
            return d, p
        t = h & 15
        if h >> 4:
            last += h >> 4
        else:
            last, p = _rzz(b, p)
        v, p = rval(t, b, p)
        d[last] = (t, v)


# ------------------------------------------------------------------ Parquet --
P_BOOL, P_I32, P_I64, P_I96, P_F32, P_F64, P_BA, P_FLBA = range(8)
REQ, OPT, REP = 0, 1, 2
NONE, SNAPPY, GZIP, LZO, BROTLI, LZ4, ZSTD, LZ4_RAW = range(8)
PLAIN, RLE, RLE_DICT = 0, 3, 8


def elem(name, typ=None, rep=REQ, kids=None, conv=None, tlen=None):
    d = {}
    if typ is not None:
        d[1] = (TI32, typ)
    if tlen is not None:
        d[2] = (TI32, tlen)
    if rep is not None:
        d[3] = (TI32, rep)
    d[4] = (BIN, name)
    if kids is not None:
        d[5] = (TI32, kids)
    if conv is not None:
        d[6] = (TI32, conv)
    return d


def rle_levels(levels):
    """RLE runs, bit width 1, with the 4-byte length in front (data page v1)."""
    out, i = b"", 0
    while i < len(levels):
        j = i
        while j < len(levels) and levels[j] == levels[i]:
            j += 1
        out += uvar((j - i) << 1) + bytes([levels[i]])
        i = j
    return struct.pack("<I", len(out)) + out


def ba(vals):
    out = b""
    for v in vals:
        v = v.encode() if isinstance(v, str) else v
        out += struct.pack("<I", len(v)) + v
    return out


def snappy_literal(b):
    """Snappy block made of literals only."""
    out, i = uvar(len(b)), 0
    while i < len(b):
        c = b[i:i + 60000]
        out += b"\xf4" + struct.pack("<H", len(c) - 1) + c
        i += len(c)
    return out


def snappy_zeros(n):
    """n zero bytes as a Snappy block: one literal, then 64-byte back-references."""
    out, left = bytearray(uvar(n) + b"\x00\x00"), n - 1
    k, r = divmod(left, 64)
    out += b"\xfe\x01\x00" * k
    if r:
        out += bytes([((r - 1) << 2) | 2, 1, 0])
    return bytes(out)


def zstd_rle(n, byte=0):
    """A zstd frame of n equal bytes in 128 KiB RLE blocks: 4 bytes a block."""
    out, left = bytearray(b"\x28\xb5\x2f\xfd\x00\x58"), n   # no content size, 2 MiB window
    while True:
        c = min(left, 128 * 1024)
        left -= c
        out += struct.pack("<I", (1 if left == 0 else 0) | (1 << 1) | (c << 3))[:3] + bytes([byte])
        if left == 0:
            return bytes(out)


def gzip_zeros(n):
    c = zlib.compressobj(9, zlib.DEFLATED, 31)
    out, z = [], b"\0" * (1 << 20)
    while n:
        k = min(n, 1 << 20)
        out.append(c.compress(z[:k]))
        n -= k
    out.append(c.flush())
    b = bytearray(b"".join(out))
    b[4:8] = b"\0\0\0\0"
    return bytes(b)


def compress(codec, b):
    if codec == NONE:
        return b
    if codec == GZIP:
        c = zlib.compressobj(6, zlib.DEFLATED, 31)
        return c.compress(b) + c.flush()
    if codec == SNAPPY:
        return snappy_literal(b)
    raise ValueError(codec)


def page_header(n, ulen, clen, enc=PLAIN, typ=0, **ov):
    h = {1: (TI32, typ), 2: (TI32, ulen), 3: (TI32, clen)}
    if typ == 0:
        h[5] = (STRUCT, {1: (TI32, n), 2: (TI32, enc), 3: (TI32, RLE), 4: (TI32, RLE)})
    elif typ == 2:
        h[7] = (STRUCT, {1: (TI32, n), 2: (TI32, enc)})
    return h


def set_in(d, path, val):
    """set_in(header, (5, 1), -1): keeps the thrift type of the field."""
    for k in path[:-1]:
        d = d[k][1] if isinstance(d, dict) else d[1][k]
    if isinstance(d, dict):
        d[path[-1]] = (d[path[-1]][0], val)
    else:
        d[1][path[-1]] = val


class Col:
    """One leaf column.  levels: (repetition, definition) lists or None."""

    def __init__(self, path, typ, plain, n, levels=None, codec=NONE):
        self.path, self.typ, self.plain, self.n, self.codec = path, typ, plain, n, codec
        self.levels = levels


def pq(schema, groups, rows=None, hook=None, magic=b"PAR1", created="badfmt", pairs=()):
    """groups: list of (n_rows, [Col]).  hook(what, obj, ctx) may change, in place,
    'page' (ctx: column, list [header, body]), 'chunk' (metadata struct) and
    'footer' (FileMetaData struct)."""
    hook = hook or (lambda *a: None)
    out, rgs, total = bytearray(magic), [], 0
    for gi, (n_rows, cols) in enumerate(groups):
        total += n_rows
        ccs, size = [], 0
        for ci, c in enumerate(cols):
            lv = b""
            if c.levels:
                if c.levels[0] is not None:
                    lv += rle_levels(c.levels[0])
                if c.levels[1] is not None:
                    lv += rle_levels(c.levels[1])
            raw = lv + c.plain
            body = compress(c.codec, raw)
            pages = [[page_header(c.n, len(raw), len(body)), body]]
            hook("page", pages, (gi, ci, c))
            start = len(out)
            dict_off = data_off = None
            usz = 0
            for h, b in pages:
                t = h.get(1, (0, 0))[1] if isinstance(h, dict) else 0
                if t == 2 and dict_off is None:
                    dict_off = len(out)
                if t != 2 and data_off is None:
                    data_off = len(out)
                hb = tstruct(h) if isinstance(h, dict) else h
                out += hb + b
                usz += len(hb) + (h[2][1] if isinstance(h, dict) and 2 in h else len(b))
            md = {1: (TI32, c.typ), 2: (LIST, (TI32, [PLAIN, RLE])), 3: (LIST, (BIN, list(c.path))),
                  4: (TI32, c.codec), 5: (TI64, c.n), 6: (TI64, usz), 7: (TI64, len(out) - start),
                  9: (TI64, data_off if data_off is not None else start)}
            if dict_off is not None:
                md[11] = (TI64, dict_off)
            hook("chunk", md, (gi, ci, c))
            size += md[7][1] if 7 in md else 0
            ccs.append({2: (TI64, start), 3: (STRUCT, md)})
        rgs.append({1: (LIST, (STRUCT, ccs)), 2: (TI64, size), 3: (TI64, n_rows)})
    fm = {1: (TI32, 1), 2: (LIST, (STRUCT, schema)), 3: (TI64, total if rows is None else rows),
          4: (LIST, (STRUCT, rgs)), 6: (BIN, created)}
    if pairs:
        fm[5] = (LIST, (STRUCT, [{1: (BIN, k), 2: (BIN, v)} for k, v in pairs]))
    hook("footer", fm, None)
    f = tstruct(fm)
    return bytes(out) + f + struct.pack("<I", len(f)) + magic


def pq_split(b):
    """A well-formed Parquet file -> (bytes before the footer, footer struct)."""
    n = struct.unpack("<I", b[-8:-4])[0]
    return b[:-8 - n], rstruct(b[-8 - n:-8])[0]


def pq_join(body, footer, n=None, magic=b"PAR1"):
    f = tstruct(footer) if isinstance(footer, dict) else footer
    return body + f + struct.pack("<I", (len(f) if n is None else n) & 0xFFFFFFFF) + magic


# The native layout (docs/format.md): every tensor one slab of codec "raw", whose rows are single elements.
COLUMNS = [("tensor", P_BA, 0), ("row_start", P_I64, None), ("row_count", P_I64, None), ("shape", None, None),
           ("src_dtype", P_BA, 0), ("codec", P_BA, 0), ("bits", P_I32, 11), ("group_size", P_I32, None),
           ("codes", P_BA, None), ("scales", P_BA, None), ("offsets", P_BA, None), ("extra", P_BA, None),
           ("xxh3", P_I64, 14)]
CODES = 8                                    # index of the column with the data
KEY_VALUES = [("aq.format_version", "1"), ("aq.model", "unknown")]


def _layout():
    out = [elem("schema", kids=len(COLUMNS), rep=None)]
    for name, typ, conv in COLUMNS:
        if typ is None:
            out += [elem(name, None, REQ, kids=1, conv=3), elem("list", None, REP, kids=1), elem("item", P_I64, REQ)]
        else:
            out.append(elem(name, typ, REQ, conv=conv))
    return out


LAYOUT = _layout()


def tensor_cols(tensors, codec=NONE):
    """tensors: (name, dtype, shape, bytes)"""
    import math
    import xxhash
    rl, dl, dims = [], [], []
    for _, _, shape, _ in tensors:
        if not shape:
            rl.append(0)
            dl.append(0)
        for i, d in enumerate(shape):
            rl.append(0 if i == 0 else 1)
            dl.append(1)
            dims.append(d)
    n = len(tensors)

    def ints(fmt, vals):
        return b"".join(struct.pack(fmt, v) for v in vals)
    plain = {"tensor": ba([t[0] for t in tensors]), "row_start": ints("<q", [0] * n),
             "row_count": ints("<q", [math.prod(t[2]) for t in tensors]), "src_dtype": ba([t[1] for t in tensors]),
             "codec": ba(["raw"] * n), "bits": ints("<i", [8 * SIZES[t[1]] for t in tensors]),
             "group_size": ints("<i", [0] * n), "codes": ba([t[3] for t in tensors]), "scales": ba([b""] * n),
             "offsets": ba([b""] * n), "extra": ba([b""] * n),
             "xxh3": ints("<Q", [xxhash.xxh3_64_intdigest(t[3]) for t in tensors])}
    shape = Col(["shape", "list", "item"], P_I64, ints("<Q", [d & _M64 for d in dims]), len(rl), (rl, dl), codec)
    return [shape if typ is None else Col([name], typ, plain[name], n, None, codec) for name, typ, _ in COLUMNS]


def pq_model(tensors, codec=NONE, hook=None, per_group=None, schema=None):
    k = per_group or max(1, len(tensors))
    parts = [tensors[i:i + k] for i in range(0, len(tensors), k)] or [[]]
    import copy
    return pq(copy.deepcopy(schema or LAYOUT), [(len(p), tensor_cols(p, codec)) for p in parts], hook=hook,
              pairs=KEY_VALUES)


# --------------------------------------------------------------- the corpus --
RULES = {
    "wall_seconds": 10, "rss_mib": 512,
    "ok": "exit 0 within the limits; the destination exists and is not empty",
    "error": "exit status 1 to 125 but not 101, within the limits; one clear message on stderr that names the "
             "file and the reason (at most 20 lines, 4 KiB, no raw control characters); no panic, backtrace or "
             "traceback; nothing left at or beside the destination; nothing outside the model folder touched",
    "either": "the format leaves it open: 'ok' or 'error' as above.  Where 'warn' is set, exit 0 must come with "
              "a warning that holds that text; silence is a failure",
}


class Corpus:
    def __init__(self, out, big=False):
        self.out, self.big, self.cases = out, big, []
        self.seen = set()

    def add(self, fmt, cid, expect, files, reason=(), note="", names=None, input=None, source="", needs=(),
            config=None, warn=None, big=False, tensors=None, post=None):
        """files: bytes (one file, named after the case), or {relative name: bytes}.
        A value may also be ('symlink', target), ('sparse', size, head bytes), ('dir',) or ('fifo',)."""
        assert expect in ("ok", "error", "either"), cid
        key = fmt + "/" + cid
        assert key not in self.seen, "twice: " + key
        self.seen.add(key)
        ext = {"safetensors": ".safetensors", "gguf": ".gguf", "parquet": ".parquet"}.get(fmt, "")
        if isinstance(files, (bytes, tuple)) or callable(files):
            files = {cid + ext: files}
            input = input or cid + ext
        case = {"id": key, "format": fmt, "expect": expect, "input": key + "/" + input if input else key,
                "names": names or [os.path.basename(input) if input else cid], "note": note}
        if reason:
            case["reason_any"] = list(reason)
        if needs:
            case["needs"] = list(needs)
        if config:
            case["config"] = key + "/" + config
        if warn:
            case["warn"] = warn
        if source:
            case["source"] = source
        if tensors is not None:
            case["tensors"] = tensors
        if big:
            case["big"] = True
        self.cases.append(case)
        if big and not self.big:
            return
        if self.out is None:
            return
        import hashlib
        h = hashlib.sha256()
        for rel in files:
            v = files[rel]
            v = v() if callable(v) else v
            p = os.path.join(self.out, key, rel)
            os.makedirs(os.path.dirname(p), exist_ok=True)
            if isinstance(v, tuple):
                h.update(repr((rel, v)).encode())
                if v[0] == "symlink":
                    if os.path.lexists(p):
                        os.unlink(p)
                    os.symlink(v[1], p)
                elif v[0] == "dir":
                    os.makedirs(p, exist_ok=True)
                elif v[0] == "fifo":
                    if not os.path.exists(p):
                        os.mkfifo(p)
                elif v[0] == "sparse":
                    with open(p, "wb") as f:
                        f.write(v[2])
                        f.truncate(v[1])
                continue
            h.update(rel.encode() + b"\0" + v)
            with open(p, "wb") as f:
                f.write(v)
        case["sha256"] = h.hexdigest()

    def manifest(self, title):
        counts = {}
        for c in self.cases:
            k = counts.setdefault(c["format"], {"ok": 0, "error": 0, "either": 0})
            k[c["expect"]] += 1
        return {"title": title, "rules": RULES, "counts": counts, "total": len(self.cases), "cases": self.cases}


def main(title, build):
    import argparse
    import shutil
    ap = argparse.ArgumentParser(description=title)
    ap.add_argument("out", help="folder for the generated files (made anew)")
    ap.add_argument("--big", action="store_true", help="also write the cases of 64 MiB and more")
    ap.add_argument("--base-parquet", help="a valid Parquet checkpoint written by the engine, to mutate instead of "
                                           "the assumed layout")
    ap.add_argument("--manifest", help="where to put manifest.json (default: OUT/manifest.json)")
    a = ap.parse_args()
    mark = os.path.join(a.out, ".badinput")
    if os.path.isdir(a.out) and os.listdir(a.out):
        if not os.path.exists(mark):
            ap.error("%s is not empty and was not made by this script" % a.out)
        shutil.rmtree(a.out)
    os.makedirs(a.out, exist_ok=True)
    open(mark, "w").close()
    c = Corpus(a.out, a.big)
    base = None
    if a.base_parquet:
        with open(a.base_parquet, "rb") as f:
            base = f.read()
    build(c, base)
    m = c.manifest(title)
    with open(a.manifest or os.path.join(a.out, "manifest.json"), "w") as f:
        json.dump(m, f, indent=1, sort_keys=True, ensure_ascii=True)
        f.write("\n")
    print("%d cases: %s" % (m["total"], json.dumps(m["counts"], sort_keys=True)))
