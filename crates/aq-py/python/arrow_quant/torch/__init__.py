"""Quantized models in torch: calibrating, loading, running.

    import arrow_quant.torch as aqt
    aqt.calibrate(model, lambda m: sample(m), out="calib.safetensors")
    arrow_quant.quantize("model/", "model.parquet", bits=4, calibration="calib.safetensors")
    aqt.load_into(model, "model.parquet")
"""
from ._activations import Activations, read_activations
from ._calibrate import CalibrationReport, calibrate
from ._form import Form
from ._layers import QuantConv1d, QuantConv2d, QuantConv3d, QuantLinear
from ._load import LoadReport, load_into, memory_bytes
from ._masked import masked_inputs
from ._replaced import replaced
from ._time import current_time, timestep
from ._weight import PackedWeight

__all__ = [
    "Activations", "CalibrationReport", "Form", "LoadReport", "PackedWeight", "QuantConv1d", "QuantConv2d", "QuantConv3d",
    "QuantLinear", "calibrate", "current_time", "load_into", "masked_inputs", "memory_bytes", "read_activations", "replaced", "timestep",
]
