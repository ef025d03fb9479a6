#!/usr/bin/env python3
"""Public part of the bad-input corpus.  Usage: generate.py OUT [--big] [--base-parquet FILE]"""
import json
import os
import struct

from badfmt import *  # noqa: F401,F403
import badfmt as B

HERE = os.path.dirname(os.path.abspath(__file__))
ONE = {"w": info("F32", [2, 2], 0, 16)}
D16 = w32(4)
TRUNC = ("truncat", "short", "end of file", "eof", "too small", "incomplete", "beyond", "exceed", "length", "size")
HDR = ("header", "json", "length")
OFF = ("offset", "overlap", "hole", "gap", "contiguous", "range", "cover")
SHP = ("shape", "dim", "overflow", "size", "too large", "element")


def safetensors(c):
    def err(cid, b, reason=HDR, note="", **k):
        c.add("safetensors", cid, "error", b, reason, note, **k)

    def ok(cid, b, note="", **k):
        c.add("safetensors", cid, "ok", b, (), note, **k)

    # length field and header framing
    err("empty-file", b"", TRUNC, "0 bytes")
    err("seven-bytes", b"\x10\0\0\0\0\0\0", TRUNC, "shorter than the length field")
    err("length-only", struct.pack("<Q", 60), TRUNC, "length field and nothing else")
    err("length-zero", struct.pack("<Q", 0) + D16, HDR, "header of 0 bytes")
    err("length-one-too-many", st_raw(B._js(ONE), b"", len(B._js(ONE)) + 1), TRUNC)
    err("length-u64-max", st(ONE, D16, (1 << 64) - 1), HDR, "8 + n wraps round")
    err("length-i64-min", st(ONE, D16, 1 << 63), HDR)
    err("length-over-cap", st(ONE, D16, 100_000_001), HDR, "one past the reference cap of 100,000,000")
    err("header-cut-in-name", st_raw('{"blocks.0.wei', b""), HDR)
    err("header-open-brace", st_raw("{"), HDR)
    err("header-not-utf8", st_raw(b'{"\xff\xfe":1}'), HDR + ("utf",))
    err("header-not-json", st_raw("hello, world"), HDR)
    err("header-array", st_raw("[1,2,3]"), HDR)
    err("header-null", st_raw("null"), HDR)
    err("header-nul-padding", st_raw(B._js(ONE).encode() + b"\0\0\0\0", D16), HDR, "padded with NUL, not spaces")
    err("header-two-objects", st_raw(B._js(ONE) + "{}", D16), HDR)
    err("header-nested-1000", st_raw('{"a":' * 1000 + "1" + "}" * 1000), HDR, "recursion")
    # keys and fields
    err("name-twice", st([("w", info("F32", [2, 2], 0, 16)), ("w", info("F32", [2, 2], 16, 32))], D16 * 2),
        ("duplicate", "twice", "repeat"), "the format forbids duplicate keys; the reference keeps the last one")
    err("no-dtype", st({"w": {"shape": [4], "data_offsets": [0, 16]}}, D16), ("dtype",))
    err("no-shape", st({"w": {"dtype": "F32", "data_offsets": [0, 16]}}, D16), ("shape",))
    err("no-offsets", st({"w": {"dtype": "F32", "shape": [4]}}, D16), ("offset",))
    err("dtype-unknown", st({"w": info("F128", [1], 0, 16)}, D16), ("dtype", "type", "variant"))
    err("dtype-lower-case", st({"w": info("f32", [4], 0, 16)}, D16), ("dtype", "type", "variant"))
    err("offsets-three", st({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}}, D16), ("offset", "length"))
    err("entry-is-number", st({"w": 5}, b""), HDR + ("type", "tensor"))
    err("metadata-not-strings", st({"__metadata__": {"step": 7}, "w": info("F32", [4], 0, 16)}, D16), ("metadata", "string"))
    # offsets
    err("same-bytes-ten-times", st({"w%d" % i: info("F32", [2, 2], 0, 16) for i in range(10)}, D16), OFF,
        "recreates the reference's 'json attack' test")
    err("overlap-by-four", st({"a": info("F32", [4], 0, 16), "b": info("F32", [4], 12, 28)}, w32(7)), OFF)
    err("hole-between", st({"a": info("F32", [4], 0, 16), "b": info("F32", [4], 20, 36)}, w32(9)), OFF)
    err("hole-at-start", st({"a": info("F32", [4], 4, 20)}, w32(5)), OFF)
    err("trailing-bytes", st(ONE, D16 + b"PK\x03\x04 extra bytes"), OFF + ("trailing", "extra") + TRUNC, "polyglot tail")
    err("two-bytes-missing", st(ONE, D16[:-2]), TRUNC + OFF)
    err("all-data-missing", st(ONE, b""), TRUNC + OFF)
    err("end-before-begin", st({"a": info("F32", [4], 16, 0)}, D16), OFF)
    err("offsets-past-end", st({"a": info("F32", [4], 1 << 40, (1 << 40) + 16)}, D16), OFF)
    err("size-not-shape", st({"a": info("F32", [2, 2], 0, 4)}, D16[:4]), SHP + OFF)
    # shapes
    err("shape-wraps", st({"a": info("F32", [2, (1 << 64) - 2], 0, 16)}, D16), SHP)
    err("bytes-wrap", st({"a": info("F32", [2, (1 << 63) - 1], 0, 16)}, D16), SHP)
    err("dim-negative", st({"a": info("F32", [-4], 0, 16)}, D16), SHP + ("negative",))
    err("dim-fraction", st({"a": info("F32", [Raw("4.5")], 0, 16)}, D16), SHP)
    err("offset-negative", st({"a": info("F32", [4], -16, 0)}, D16), OFF)
    # good files that must work
    ok("small", st_model(small_model()), "three 16x64 F32 tensors", tensors=3)
    ok("zero-size-tensor", st_model(small_model(5) + [("empty", "F32", [2, 0], b"")]), tensors=4)
    ok("scalar-tensor", st_model([("scale", "F32", [], w32(1))] + small_model(6)), tensors=4)
    ok("space-padding", st_model(small_model(7), pad=b" " * 7), tensors=3)
    ok("keys-not-in-offset-order", st({"z": info("F32", [64], 0, 256), "a": info("F32", [64], 256, 512)}, w32(128)), tensors=2)
    ok("f16-and-bf16", st_model([("h", "F16", [8, 32], f16(floats(256))), ("b", "BF16", [8, 32], bf16(floats(256)))]), tensors=2)
    ok("unicode-names", st_model([("\u6a21\u578b.\u5c42.0", "F32", [8, 32], w32(256)), ("\u00e9l\u00e9ment", "F32", [8, 32], w32(256, 2))]), tensors=2)
    ok("odd-shapes", st_model([("a", "F32", [3, 5, 7], w32(105)), ("b", "F32", [1, 1], w32(1)), ("c", "F32", [17], w32(17))]), tensors=3)
    ok("constant-and-zero", st_model([("z", "F32", [8, 32], f32([0.0] * 256)), ("k", "F32", [8, 32], f32([0.5] * 256))]), tensors=2)
    v = floats(1024)
    v[77] = float("nan")
    c.add("safetensors", "one-nan", "either", st_model([("bad.weight", "F32", [16, 64], f32(v))]), ("nan", "finite"), warn="bad.weight")
    v = floats(1024)
    v[3], v[900] = float("inf"), float("-inf")
    c.add("safetensors", "two-inf", "either", st_model([("bad.weight", "F32", [16, 64], f32(v))]), ("inf", "finite"), warn="bad.weight")


def gguf_cases(c):
    W = w32(256)
    good = [("blk.0.w", [32, 8], T_F32, W), ("blk.1.w", [32, 8], T_F32, w32(256, 2))]
    full = gguf_model(good)
    t0 = ti("w", [32, 8], T_F32, 0)

    def err(cid, b, reason, note="", **k):
        c.add("gguf", cid, "error", b, reason, note, **k)

    G = ("gguf", "magic", "version", "header", "format", "unknown", "recogni")
    CNT = ("count", "tensor", "key", "length", "too", "exceed", "end of file", "truncat", "limit", "size")
    err("empty-file", b"", TRUNC + G)
    err("magic-only", b"GGUF", TRUNC)
    err("bad-magic", gguf(BASE_KV, [t0], W, magic=b"FUGG"), G)
    err("version-0", gguf(BASE_KV, [t0], W, version=0), G)
    err("version-4", gguf(BASE_KV, [t0], W, version=4), G)
    err("tensor-count-max", gguf(BASE_KV, [t0], W, n_t=-1), CNT, "2^64-1 tensors")
    err("kv-count-max", gguf(BASE_KV, [t0], W, n_kv=-1), CNT)
    err("tensor-count-2e9", gguf(BASE_KV, [t0], W, n_t=2_000_000_000), CNT, "count x record size = hundreds of GB if reserved up front")
    err("key-length-max", gguf([kv("k", U32, 1, key_len=-1)], [t0], W), CNT)
    err("string-length-1-gib", gguf([kv("k", STR, None, raw=struct.pack("<Q", 1 << 30) + b"abc")], [t0], W), CNT)
    err("array-count-max", gguf([kv("k", ARR, None, raw=struct.pack("<IQ", U32, (1 << 64) - 1))], [t0], W), CNT)
    err("value-type-99", gguf([kv("k", 99, None, raw=b"\0" * 8)], [t0], W), ("type", "value"))
    err("key-twice", gguf([kv("a", U32, 1), kv("a", U32, 2)], [t0], W), ("duplicate", "twice", "repeat"))
    err("tensor-twice", gguf(BASE_KV, [t0, ti("w", [32, 8], T_F32, 1024)], W * 2), ("duplicate", "twice", "repeat"))
    err("dims-5", gguf(BASE_KV, [ti("w", [2, 2, 2, 2, 2], T_F32, 0)], W), SHP)
    err("dims-4-billion", gguf(BASE_KV, [ti("w", [32], T_F32, 0, n_dims=0xFFFFFFFF)], W), SHP + CNT)
    err("dim-negative", gguf(BASE_KV, [ti("w", [-1], T_F32, 0)], W), SHP)
    err("dim-product-wraps", gguf(BASE_KV, [ti("w", [1 << 33, 1 << 31], T_F32, 0)], W), SHP, "2^64 elements = 0 after the wrap")
    err("tensor-type-77", gguf(BASE_KV, [ti("w", [32, 8], 77, 0)], W), ("type",))
    err("offset-not-aligned", gguf(BASE_KV, [ti("w", [32, 8], T_F32, 4)], b"\0" * 4 + W), OFF + ("align",))
    err("offset-past-end", gguf(BASE_KV, [ti("w", [32, 8], T_F32, 1 << 40)], W), OFF + TRUNC)
    err("alignment-13", gguf(BASE_KV + [kv("general.alignment", U32, 13)], [t0], W), ("align",))
    err("data-cut", full[:-100], TRUNC + OFF)
    c.add("gguf", "small", "ok", full, tensors=2)
    c.add("gguf", "align-64", "ok", gguf_model(good, align=64), tensors=2)
    c.add("gguf", "f16", "ok", gguf_model([("h", [32, 8], T_F16, f16(floats(256)))]), tensors=1)


def parquet_cases(c, base):
    m = [(n, d, s, b) for n, d, s, b in small_model(3)]
    own = pq_model(m)
    base = base or own
    L = ["parquet_layout"]
    FT = ("footer", "parquet", "metadata", "thrift", "magic", "length", "eof", "end of file", "truncat", "corrupt", "size", "small")
    PG = ("page", "size", "length", "corrupt", "column", "decompress", "count", "value", "row", "eof", "end of file", "truncat")

    def err(cid, b, reason=FT, note="", **k):
        c.add("parquet", cid, "error", b, reason, note, **k)

    err("empty-file", b"")
    err("magic-only", b"PAR1")
    err("magic-twice", b"PAR1PAR1")
    err("no-tail-magic", base[:-4] + b"PAR2")
    err("no-head-magic", b"XXXX" + base[4:])
    err("footer-length-past-file", base[:-8] + struct.pack("<I", len(base) * 2) + b"PAR1")
    err("footer-length-max", base[:-8] + struct.pack("<I", 0xFFFFFFFF) + b"PAR1")
    err("footer-length-zero", base[:-8] + struct.pack("<I", 0) + b"PAR1")
    err("footer-zeros", pq_join(pq_split(base)[0], b"\0" * 200))
    err("cut-in-half", base[:len(base) // 2])
    err("text-file", b"name,shape,data\na,1,2\n" * 20)

    def footer_edit(cid, fn, reason=FT + PG, note="", **k):
        body, f = pq_split(base)
        fn(f)
        err(cid, pq_join(body, f), reason, note, **k)

    footer_edit("rows-negative", lambda f: set_in(f, (3,), -5))
    footer_edit("rows-10e12", lambda f: set_in(f, (3,), 10 ** 12), note="num_rows says a million million")
    footer_edit("group-rows-lie", lambda f: set_in(f[4][1][1][0], (3,), 10 ** 9))
    def start_at(f, v):
        md = f[4][1][1][0][1][1][1][0][3][1]
        md[9] = (TI64, v)
        if 11 in md:                         # a file with a dictionary starts there
            md[11] = (TI64, v)
    footer_edit("column-offset-past-end", lambda f: start_at(f, 1 << 40))
    footer_edit("column-offset-negative", lambda f: start_at(f, -8))
    footer_edit("no-schema", lambda f: f.pop(2))
    footer_edit("codec-99", lambda f: set_in(f[4][1][1][0], (1, 0, 3, 4), 99))

    def hook(ci, fn):
        def h(what, obj, ctx):
            if what == "page" and ctx[1] == ci:
                fn(obj)
        return h

    def page(cid, ci, fn, reason=PG, note="", codec=NONE, **k):
        err(cid, pq_model(m, codec, hook(ci, fn)), reason, note, **k)

    page("page-values-negative", B.CODES, lambda p: set_in(p[0][0], (5, 1), -3))
    page("page-size-2-gib", B.CODES, lambda p: set_in(p[0][0], (2,), 0x7FFFFFFF), note="tiny page says 2 GiB", codec=GZIP)
    page("page-body-random", B.CODES, lambda p: p.__setitem__(0, [p[0][0], bytes(len(p[0][1]))]), codec=GZIP)
    page("byte-array-length-lie", B.CODES, lambda p: p[0].__setitem__(1, b"\xff\xff\xff\x7f" + p[0][1][4:]), note="first value says 2 GiB")

    def bomb(p):
        z = zstd_rle(1 << 30)
        p[:] = [[page_header(3, 1 << 30, len(z)), z]]
    cols = pq_model(m, hook=lambda w, o, x: bomb(o) if w == "page" and x[1] == B.CODES else
                    (o.__setitem__(4, (TI32, ZSTD)) if w == "chunk" and x[1] == B.CODES else None))
    err("zstd-bomb-1-gib", cols, PG, "32 KiB that inflate to 1 GiB of zeros")

    one = [elem("schema", kids=1, rep=None), elem("x", P_F64)]
    err("wrong-schema", pq(one, [(4, [Col(["x"], P_F64, f64([1, 2, 3, 4]), 4)])]), ("schema", "column", "missing", "layout"), needs=L)
    err("shape-not-data", pq_model([("w", "F32", [64, 64], w32(16))]), SHP, needs=L)
    err("name-twice", pq_model([m[0], m[0]]), ("duplicate", "twice"), needs=L)
    c.add("parquet", "small", "ok", own, tensors=3, needs=L)
    c.add("parquet", "small-gzip", "ok", pq_model(m, GZIP), tensors=3, needs=L)

    # files kept from apache/parquet-testing (see parquet-testing/NOTICE.md)
    d = os.path.join(HERE, "parquet-testing")
    for f in sorted(os.listdir(d)) if os.path.isdir(d) else []:
        if f.endswith(".parquet"):
            with open(os.path.join(d, f), "rb") as fh:
                c.add("parquet", "pt-" + f[:-8], "error", {f: fh.read()}, (), "no model in it, or corrupt: either way an error",
                      input=f, source="apache/parquet-testing bad_data")


def index_cases(c):
    IDX = "model.safetensors.index.json"
    A, Bn = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    a, b = small_model(11, 2, prefix="a"), small_model(12, 2, prefix="b")
    fa, fb = st_model(a), st_model(b)
    wm = {t[0]: A for t in a}
    wm.update({t[0]: Bn for t in b})
    size = sum(len(t[3]) for t in a + b)

    def idx(m, **k):
        return json.dumps(dict({"metadata": {"total_size": size}, "weight_map": m}, **k)).encode()

    def err(cid, files, reason, note="", names=(IDX,), **k):
        c.add("index", cid, "error", files, reason, note, names=list(names) + [cid], **k)

    c.add("index", "two-shards", "ok", {IDX: idx(wm), A: fa, Bn: fb}, tensors=4, names=[IDX])
    err("missing-shard", {IDX: idx(wm), A: fa}, ("missing", "not found", "no such", "open"), names=(IDX, Bn))
    secret = st_model([(t[0], t[1], t[2], t[3]) for t in b])
    T = ("outside", "path", "shard", "invalid", "not allowed", "escape", "absolute")
    m2 = dict(wm, **{t[0]: "../secret.safetensors" for t in b})
    err("parent-path", {"model/" + IDX: idx(m2), "model/" + A: fa, "secret.safetensors": secret}, T,
        "the file outside is valid, so a reader that follows it exits 0", input="model")
    m3 = dict(wm, **{t[0]: "../../../../../../../../etc/passwd" for t in b})
    err("etc-passwd", {IDX: idx(m3), A: fa}, T)
    err("not-json", {IDX: b"weight_map: {}", A: fa, Bn: fb}, ("json", "index"))
    err("no-weight-map", {IDX: b'{"metadata":{}}', A: fa, Bn: fb}, ("weight_map", "missing", "index"))
    err("tensor-not-in-shard", {IDX: idx(dict(wm, ghost=A)), A: fa, Bn: fb}, ("ghost", "missing", "not found"), names=(IDX, A))
    err("shard-corrupt", {IDX: idx(wm), A: fa, Bn: fb[:-9]}, TRUNC + OFF, names=(Bn,))
    err("empty-folder", {"model": ("dir",)}, ("no ", "empty", "not found", "safetensors"), input="model", names=("model",))


def config_cases(c):
    good = ("deployment_profile: local\nbit_width: 4\nnum_time_groups: 10\ngroup_size: 128\nenable_time_aware: true\n"
            "enable_spatial: true\nstreaming_mode: false\nnum_threads: 2\n")
    model = st_model(small_model(21))

    def add(cid, expect, text, reason=(), note=""):
        t = text if isinstance(text, bytes) else text.encode()
        c.add("config", cid, expect, {"m.safetensors": model, "q.yaml": t}, reason, note, input="m.safetensors",
              config="q.yaml", names=["q.yaml"])
    add("good", "ok", good)
    K = ("config", "yaml", "line", "value", "expected")
    add("bits-3-and-a-half", "error", good.replace("bit_width: 4", "bit_width: 3.5"), ("bit_width",) + K)
    add("bits-0", "error", good.replace("bit_width: 4", "bit_width: 0"), ("bit_width",) + K)
    add("group-size-0", "error", good.replace("group_size: 128", "group_size: 0"), ("group_size",) + K)
    add("not-yaml", "error", "bit_width: [4\n}: :\n", K)
    add("unknown-key", "error", good + "bitwidth: 2\n", ("bitwidth", "unknown") + K, "a typo must not be ignored")
    laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        "%s: &%s [%s]\n" % (chr(98 + i), chr(98 + i), ",".join(["*" + chr(97 + i)] * 10)) for i in range(9))
    add("billion-laughs", "error", laughs, K + ("alias", "repetition", "limit", "unknown"), "10^10 leaves if expanded")


def build(c, base):
    safetensors(c)
    gguf_cases(c)
    parquet_cases(c, base)
    index_cases(c)
    config_cases(c)


if __name__ == "__main__":
    main("bad input, public part", build)
