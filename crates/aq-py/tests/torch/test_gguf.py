"""diffusers loads the GGUF files of `aq` and runs them."""
import os
import subprocess
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel, GGUFQuantizationConfig
from safetensors.torch import load_file

from conftest import error

ROOT = Path(__file__).resolve().parents[4]
AQ = Path(os.environ.get("AQ_BIN", ROOT / "target" / "release" / "aq"))

pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(not AQ.is_file(), reason=f"{AQ} is missing: cargo build --release, or set AQ_BIN")


def aq(*arguments):
    subprocess.run([AQ, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    """A small FLUX of random weights, and the folder it is saved in."""
    torch.manual_seed(0)
    model = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=64, num_attention_heads=4,
        joint_attention_dim=256, pooled_projection_dim=64, guidance_embeds=False, axes_dims_rope=(16, 24, 24)).eval()
    folder = tmp_path_factory.mktemp("flux")
    model.save_pretrained(folder)
    return model, folder


def run(model):
    random = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=random)

    with torch.no_grad():
        return model(hidden_states=normal(1, 16, 64), encoder_hidden_states=normal(1, 8, 256),
                     pooled_projections=normal(1, 64), timestep=torch.tensor([0.5]), img_ids=torch.zeros(16, 3),
                     txt_ids=torch.zeros(8, 3)).sample


# Those that diffusers 0.42 runs; it has no IQ4_NL and IQ4_XS.
@pytest.mark.parametrize("method", ["q2_k", "q3_k_m", "q4_0", "q4_1", "q4_k_m", "q5_0", "q5_1", "q5_k", "q6_k", "q8_0"])
def test_a_model_gives_the_outputs_of_its_dequantized_weights(method, flux, tmp_path):
    model, folder = flux
    file, plain = tmp_path / "flux.gguf", tmp_path / "plain.safetensors"
    aq("quantize", folder / "diffusion_pytorch_model.safetensors", "-o", file, "--method", method, "--quiet")
    aq("dequantize", file, "-o", plain)
    loaded = FluxTransformer2DModel.from_single_file(
        str(file), config=str(folder), torch_dtype=torch.float32,
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32)).eval()
    quantized = [p for p in loaded.parameters() if type(p).__name__ == "GGUFParameter"]
    assert len(quantized) > 10
    reference = FluxTransformer2DModel.from_config(model.config).eval()
    reference.load_state_dict(load_file(plain))
    assert error(run(loaded), run(reference)) < 1e-4
    assert error(run(reference), run(model)) < 1
