"""Packages that quantize with torch: bitsandbytes, hqq, optimum-quanto, sdnq. Each is optional.

Every function takes `layers` of peers.py. Scales and zero points are counted at 16 bits, as these packages keep them
for a model in half precision, although they are computed here in float32.
"""
import os
import sys

SIDE = 16


def measure(layers, attempt):
    # quanto builds an extension with the ninja that lies beside its Python.
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    for package, run in (("bitsandbytes", bitsandbytes), ("hqq", hqq), ("optimum-quanto", quanto), ("sdnq", sdnq)):
        attempt(package, run, layers)


def tensor(w):
    import torch
    torch.set_num_threads(1)
    return torch.from_numpy(w.copy())


def bitsandbytes(layers):
    from bitsandbytes import functional
    for kind in ("nf4", "fp4"):
        def one(_, w):
            codes, state = functional.quantize_4bit(tensor(w), quant_type=kind, blocksize=64)
            return functional.dequantize_4bit(codes, state).numpy(), 4 * w.size + SIDE * state.absmax.numel()
        layers.quantize(f"bitsandbytes {kind}", "4", one)


def hqq(layers):
    from hqq.core.quantize import Quantizer
    import torch
    for bits in (2, 3, 4):
        for optimize in (False, True):
            def one(_, w):
                codes, meta = Quantizer.quantize(tensor(w), nbits=bits, group_size=64, axis=1, optimize=optimize,
                                                 compute_dtype=torch.float32, device="cpu")
                side = meta["scale"].numel() + meta["zero"].numel()
                return Quantizer.dequantize(codes, meta).numpy(), bits * w.size + SIDE * side
            layers.quantize("hqq" if optimize else "hqq without search", str(bits), one)


def quanto(layers):
    from optimum.quanto import HqqOptimizer, MaxOptimizer, qint2, qint4, quantize_weight
    for name, optimizer in (("quanto max", MaxOptimizer()), ("quanto hqq", HqqOptimizer())):
        for kind in (qint2, qint4):
            def one(_, w):
                scale, shift = optimizer(tensor(w), kind, 0, 128)
                q = quantize_weight(tensor(w), kind, 0, scale, shift, 128, optimized=False)
                return q.dequantize().numpy(), kind.bits * w.size + SIDE * (scale.numel() + shift.numel())
            layers.quantize(name, str(kind.bits), one)


def sdnq(layers):
    from sdnq.quantizer import sdnq_quantize_layer_weight
    import torch
    modes = [(kind, {}) for kind in ("uint2", "uint3", "uint4", "int4", "int5", "int6", "int8")]
    modes += [("uint4", {"use_hadamard": True}), ("uint4", {"use_svd": True}), ("uint2", {"use_codebook": True})]
    for kind, options in modes:
        def one(_, w):
            dequantize, parts = sdnq_quantize_layer_weight(tensor(w), layer_class_name="Linear", weights_dtype=kind,
                                                           torch_dtype=torch.float32, **options)
            sizes = {key: part.numel() for key, part in parts.items() if part is not None}
            codes = 8 * sizes.pop("weight") * parts["weight"].element_size()
            return dequantize(**parts).numpy(), codes + SIDE * sum(sizes.values())
        label = " ".join(["sdnq", kind, *(option.removeprefix("use_") for option in options)])
        layers.quantize(label, "".join(c for c in kind if c.isdigit()), one)
