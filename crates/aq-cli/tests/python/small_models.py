"""Reference inference of the small models the tests use. Needs numpy only.

* load_safetensors / save_safetensors: F32, F16, BF16, F64, I64, I32, U16, U8 <-> numpy
* DiT:      adaLN-zero diffusion transformer, DDPM eps-prediction, class conditional
t is the position in time, 0 <= t < 1.
"""
import json, struct
import numpy as np

_DT = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I64": np.int64,
       "I32": np.int32, "I16": np.int16, "U16": np.uint16, "U8": np.uint8, "I8": np.int8, "BOOL": np.bool_}


def load_safetensors(path):
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        head = json.loads(f.read(n))
        buf = f.read()
    out = {}
    for k, v in head.items():
        if k == "__metadata__":
            continue
        a, b = v["data_offsets"]
        raw = buf[a:b]
        if v["dtype"] == "BF16":
            x = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            x = np.frombuffer(raw, _DT[v["dtype"]])
        out[k] = x.reshape(v["shape"])
    return out


def load_metadata(path):
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        return json.loads(f.read(n)).get("__metadata__", {})


def bf16_bits(x):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def save_safetensors(path, tensors, bf16=False, meta=None):
    names = {v: k for k, v in _DT.items()}
    head, blobs, off = {}, [], 0
    if meta:
        head["__metadata__"] = meta
    for k in sorted(tensors):
        x = np.ascontiguousarray(tensors[k])
        if bf16 and x.dtype == np.float32:
            raw, dt = bf16_bits(x).tobytes(), "BF16"
        else:
            raw, dt = x.tobytes(), names[x.dtype.type]
        head[k] = {"dtype": dt, "shape": list(x.shape), "data_offsets": [off, off + len(raw)]}
        off += len(raw)
        blobs.append(raw)
    h = json.dumps(head, separators=(",", ":")).encode()
    h += b" " * (-len(h) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h + b"".join(blobs))


def softmax(a):
    a = a - a.max(-1, keepdims=True)
    np.exp(a, out=a)
    a /= a.sum(-1, keepdims=True)
    return a


def silu(x):
    return x / (1 + np.exp(-x))


class Base:
    def __init__(self, cfg, w):
        self.cfg = cfg
        self.w = {k: np.asarray(v, np.float32) for k, v in w.items()}
        self.actq = None  # called with the name of a layer, its inputs and the time: gives what the layer sees

    def linear(self, name, x, t):
        if self.actq is not None:
            x = self.actq(name, x, t)
        y = x @ self.w[name + ".weight"].T
        b = self.w.get(name + ".bias")
        return y if b is None else y + b


class DiT(Base):
    def ln(self, x):
        m = x.mean(-1, keepdims=True)
        d = x - m
        return d / np.sqrt((d * d).mean(-1, keepdims=True) + np.float32(1e-6))

    def cond(self, step, y):
        f = np.exp(-np.log(10000) * np.arange(128, dtype=np.float32) / 128)
        a = np.float32(step) * f
        e = np.concatenate([np.cos(a), np.sin(a)])[None].astype(np.float32)
        t = step / 1000
        e = self.linear("t_embedder.mlp.0", e, t)
        e = self.linear("t_embedder.mlp.2", silu(e), t)
        return silu(e + self.w["y_embedder.embedding_table.weight"][y])

    def __call__(self, x, step, y):
        """x [B,1,S,S], one integer step for the whole batch, y [B] -> eps."""
        c_, t = self.cfg, step / 1000
        S, p, d, H = c_["image_size"], c_["patch_size"], c_["hidden_size"], c_["num_heads"]
        g, B = S // p, len(x)
        uy, inv = np.unique(y, return_inverse=True)
        h = x.reshape(B, g, p, g, p).transpose(0, 1, 3, 2, 4).reshape(B, g * g, p * p)
        h = h @ self.w["x_embedder.proj.weight"].reshape(d, -1).T + self.w["x_embedder.proj.bias"]
        h = h + self.w["pos_embed"]
        c = self.cond(step, uy)
        for i in range(c_["depth"]):
            n = f"blocks.{i}."
            mod = self.linear(n + "adaLN_modulation.1", c, t)[inv][:, None]
            s1, c1, g1, s2, c2, g2 = np.split(mod, 6, -1)
            q = self.linear(n + "attn.qkv", self.ln(h) * (1 + c1) + s1, t)
            q = q.reshape(B, g * g, 3, H, d // H).transpose(2, 0, 3, 1, 4)
            a = softmax(q[0] @ q[1].transpose(0, 1, 3, 2) * np.float32((d // H) ** -0.5))
            a = (a @ q[2]).transpose(0, 2, 1, 3).reshape(B, g * g, d)
            h = h + g1 * self.linear(n + "attn.proj", a, t)
            m = self.linear(n + "mlp.fc1", self.ln(h) * (1 + c2) + s2, t)
            m = m * 0.5 * (1 + np.tanh(np.float32(0.7978845608) * (m + np.float32(0.044715) * m * m * m)))
            h = h + g2 * self.linear(n + "mlp.fc2", m, t)
        mod = self.linear("final_layer.adaLN_modulation.1", c, t)[inv][:, None]
        s1, c1 = np.split(mod, 2, -1)
        o = self.linear("final_layer.linear", self.ln(h) * (1 + c1) + s1, t)
        return o.reshape(B, g, g, p, p).transpose(0, 1, 3, 2, 4).reshape(B, 1, S, S)


ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def ddim(model, y, noise, steps, on_step=None):
    """Deterministic DDIM (eta = 0), x0 clipped to [-1, 1]."""
    ts = np.round(np.linspace(999, 0, steps)).astype(int)
    x = noise.astype(np.float32)
    for i, s in enumerate(ts):
        e = model(x, int(s), y)
        a = ALPHA_BAR[s]
        x0 = np.clip((x - np.float32(np.sqrt(1 - a)) * e) / np.float32(np.sqrt(a)), -1, 1)
        if i + 1 == steps:
            return x0
        b = ALPHA_BAR[ts[i + 1]]
        e = (x - np.float32(np.sqrt(a)) * x0) / np.float32(np.sqrt(1 - a))
        x = np.float32(np.sqrt(b)) * x0 + np.float32(np.sqrt(1 - b)) * e
