"""Checkpoints with the tensor names and shapes of published models, cut to one block and narrowed."""
import subprocess
import sys

import pytest

from conftest import SHARED, aq, aq_json
from small_models import load_safetensors

MAKER = SHARED / "layouts" / "make_checkpoint.py"
SCALES = {"sdxl-unet": 0.0625}
LAYOUTS = sorted(p.name.removesuffix(".json.gz") for p in MAKER.parent.glob("*.json.gz")) or ["none"]
ARCHITECTURES = {
    "dit-xl-2-256": "dit-diffusers", "dream-7b": "dream", "flux.1-dev": "flux-diffusers", "mdlm-owt": "mdlm",
    "pixart-alpha-xl-2-1024": "pixart-diffusers", "sd-vae": "vae-diffusers", "sd3-medium": "sd3-diffusers",
    "sdxl-unet": "sd-unet-diffusers", "sedd-medium": "mdlm", "sedd-small": "mdlm", "wavegrad-base": "wavegrad",
}

pytestmark = pytest.mark.skipif(not MAKER.is_file(), reason="../shared/layouts/make_checkpoint.py is not there")


@pytest.fixture(scope="module", params=LAYOUTS)
def checkpoint(request, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    scale = SCALES.get(request.param, 0.125)
    argv = [sys.executable, MAKER, request.param, out, "--layers", "1", "--scale", str(scale), "--dtype", "bf16"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return request.param, out


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_every_width_and_format(checkpoint, bits, tmp_path):
    layout, folder = checkpoint
    shapes = {k: v.shape for file in folder.glob("*.safetensors") for k, v in load_safetensors(file).items()}
    stored = []
    for suffix in (".parquet", ".arrow", ""):
        out, back = tmp_path / f"out{suffix}", tmp_path / f"back{suffix or '.folder'}.safetensors"
        report = aq_json("quantize", folder, "-o", out, "--bits", bits)
        assert report["input"]["architecture"] == ARCHITECTURES.get(layout), layout
        assert any(t["kept_reason"] is None for t in report["tensors"])
        aq("dequantize", out, "-o", back, "--dtype", "bf16")
        assert {k: v.shape for k, v in load_safetensors(back).items()} == shapes
        stored.append(back.read_bytes())
    assert stored[0] == stored[1] == stored[2], "the formats hold different weights"


@pytest.mark.parametrize("profile", ["edge", "local", "cloud"])
def test_every_profile_needs_no_other_option(checkpoint, profile, tmp_path):
    layout, folder = checkpoint
    out = tmp_path / "out.parquet"
    report = aq_json("quantize", folder, "-o", out, "--profile", profile)
    assert report["settings"]["profile"] == profile
    bits, cosine = {"edge": (2, 0.65), "local": (4, 0.85), "cloud": (8, 0.95)}[profile]
    assert report["settings"]["bits"] == bits and report["settings"]["gate"]["min_cosine"] == cosine
    quantized = [t for t in report["tensors"] if t["kept_reason"] is None]
    assert quantized and all(t["cosine"] >= cosine for t in quantized), layout
    assert report["fallbacks"] == [], "random weights of a public layout need no step down"
    aq("verify", out)
