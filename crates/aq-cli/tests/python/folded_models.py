"""Small models of random weights with the tensor names and the arithmetic of diffusers' DiT, MDLM and Dream, in numpy.

Each is a function of its weights, tokens `[batch, length, size]` (before the first block) and a time, and calls `see(layer, inputs)` for
each linear layer. Normalization, attention and gating are those of the models; embedders and last layers are left out, as nothing is
folded into or out of them.
"""
import numpy as np

SIZE, HEADS, DEPTH, LENGTH = 64, 4, 2, 12


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x ** 3)))


def layer_norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def rms_norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight


def rotated(x):
    """Rotary positions, `[batch, heads, length, head]`."""
    half, positions = x.shape[-1] // 2, np.arange(x.shape[-2])[:, None]
    angle = positions / 10000 ** (np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)


def attention(q, k, v, heads, rotate=False):
    """Heads of `k` and `v` may be fewer; each then serves several of `q`."""
    split = lambda x: x.reshape(*x.shape[:2], -1, q.shape[-1] // heads).transpose(0, 2, 1, 3)
    q, k, v = split(q), split(k), split(v)
    if rotate:
        q, k = rotated(q), rotated(k)
    k, v = (np.repeat(x, heads // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    y = scores / scores.sum(-1, keepdims=True) @ v
    return y.transpose(0, 2, 1, 3).reshape(*y.shape[:1], y.shape[2], -1)


class Model:
    """Weights by name, and the layers of a block with their shapes."""

    def __init__(self, shapes, seed):
        random = np.random.default_rng(seed)
        self.weights = {}
        for name, shape in shapes.items():
            if name.endswith("norm.weight") or ".norm" in name and len(shape) == 1:
                value = 1 + 0.3 * random.standard_normal(shape)
            elif len(shape) == 1:
                value = 0.3 * random.standard_normal(shape)
            else:
                # Some outputs are large, so that the inputs of what comes after differ by channel.
                value = random.standard_normal(shape) * np.exp(0.8 * random.standard_normal((shape[0], 1))) / shape[1] ** 0.5
            self.weights[name] = value.astype(np.float32)

    def linear(self, weights, see):
        def apply(name, x):
            see(name, x)
            bias = weights.get(f"{name}.bias")
            y = x @ weights[f"{name}.weight"].T.astype(np.float64)
            return y if bias is None else y + bias
        return apply

    def __call__(self, weights, x, time, see=lambda layer, inputs: None):
        condition = np.sin(time * np.arange(1, SIZE + 1) * 0.37)[None]
        linear = self.linear(weights, see)
        for block in range(DEPTH):
            x = self.block(weights, linear, block, x.astype(np.float64), condition)
        return x


def linears(prefix, layers, bias):
    """Shapes of the weights and, with `bias`, biases of layers given as name to (outputs, inputs)."""
    found = {}
    for name, (rows, cols) in layers.items():
        found[f"{prefix}.{name}.weight"] = (rows, cols)
        if bias:
            found[f"{prefix}.{name}.bias"] = (rows,)
    return found


class DiffusersDiT(Model):
    """`DiTTransformer2DModel` of diffusers: `BasicTransformerBlock` with `ada_norm_zero` and `gelu-approximate`."""

    def __init__(self):
        layers = {"norm1.linear": (6 * SIZE, SIZE), "attn1.to_q": (SIZE, SIZE), "attn1.to_k": (SIZE, SIZE),
                  "attn1.to_v": (SIZE, SIZE), "attn1.to_out.0": (SIZE, SIZE),
                  "ff.net.0.proj": (4 * SIZE, SIZE), "ff.net.2": (SIZE, 4 * SIZE)}
        shapes = {"proj_out_1.weight": (2 * SIZE, SIZE)}
        for i in range(DEPTH):
            shapes |= linears(f"transformer_blocks.{i}", layers, True)
            shapes[f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight"] = (11, SIZE)
        super().__init__(shapes, 1)

    def block(self, weights, linear, i, x, condition):
        at = f"transformer_blocks.{i}"
        parts = np.split(linear(f"{at}.norm1.linear", silu(condition))[:, None], 6, -1)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
        h = layer_norm(x) * (1 + scale) + shift
        q, k, v = (linear(f"{at}.attn1.to_{n}", h) for n in "qkv")
        x = x + gate * linear(f"{at}.attn1.to_out.0", attention(q, k, v, HEADS))
        h = layer_norm(x) * (1 + mlp_scale) + mlp_shift
        return x + mlp_gate * linear(f"{at}.ff.net.2", gelu(linear(f"{at}.ff.net.0.proj", h)))


class MDLM(Model):
    """`DDiTBlock` of MDLM and SEDD: norms with a weight, one linear layer for queries, keys and values, rotary positions."""

    def __init__(self):
        shapes = {"vocab_embed.embedding": (50, SIZE), "output_layer.linear.weight": (50, SIZE)}
        for i in range(DEPTH):
            at = f"blocks.{i}"
            shapes |= linears(at, {"adaLN_modulation": (6 * SIZE, SIZE), "mlp.0": (4 * SIZE, SIZE), "mlp.2": (SIZE, 4 * SIZE)}, True)
            shapes |= linears(at, {"attn_qkv": (3 * SIZE, SIZE), "attn_out": (SIZE, SIZE)}, False)
            shapes |= {f"{at}.norm1.weight": (SIZE,), f"{at}.norm2.weight": (SIZE,)}
        super().__init__(shapes, 2)

    def block(self, weights, linear, i, x, condition):
        at = f"blocks.{i}"
        parts = np.split(linear(f"{at}.adaLN_modulation", condition)[:, None], 6, -1)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
        h = layer_norm(x) * weights[f"{at}.norm1.weight"] * (1 + scale) + shift
        q, k, v = np.split(linear(f"{at}.attn_qkv", h), 3, -1)
        x = x + gate * linear(f"{at}.attn_out", attention(q, k, v, HEADS, rotate=True))
        h = layer_norm(x) * weights[f"{at}.norm2.weight"] * (1 + mlp_scale) + mlp_shift
        return x + mlp_gate * linear(f"{at}.mlp.2", gelu(linear(f"{at}.mlp.0", h)))


class Dream(Model):
    """`DreamDecoderLayer`, that of Qwen2: RMS norms, biases of queries, keys and values, a gated MLP; no time."""

    def __init__(self, kv_heads=HEADS):
        kv = SIZE * kv_heads // HEADS
        shapes = {"model.embed_tokens.weight": (50, SIZE), "lm_head.weight": (50, SIZE)}
        for i in range(DEPTH):
            at = f"model.layers.{i}"
            shapes |= linears(f"{at}.self_attn", {"q_proj": (SIZE, SIZE), "k_proj": (kv, SIZE), "v_proj": (kv, SIZE)}, True)
            shapes |= linears(at, {"self_attn.o_proj": (SIZE, SIZE), "mlp.gate_proj": (2 * SIZE, SIZE),
                                   "mlp.up_proj": (2 * SIZE, SIZE), "mlp.down_proj": (SIZE, 2 * SIZE)}, False)
            shapes |= {f"{at}.input_layernorm.weight": (SIZE,), f"{at}.post_attention_layernorm.weight": (SIZE,)}
        super().__init__(shapes, 3)

    def block(self, weights, linear, i, x, _):
        at = f"model.layers.{i}"
        h = rms_norm(x, weights[f"{at}.input_layernorm.weight"])
        q, k, v = (linear(f"{at}.self_attn.{n}_proj", h) for n in "qkv")
        x = x + linear(f"{at}.self_attn.o_proj", attention(q, k, v, HEADS, rotate=True))
        h = rms_norm(x, weights[f"{at}.post_attention_layernorm.weight"])
        h = silu(linear(f"{at}.mlp.gate_proj", h)) * linear(f"{at}.mlp.up_proj", h)
        return x + linear(f"{at}.mlp.down_proj", h)
