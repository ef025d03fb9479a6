"""Small models of diffusers with random weights, and what to call them with."""
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel, UNet2DConditionModel


def dit(labels=10):
    config = dict(num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2, sample_size=8)
    return DiTTransformer2DModel(**config, num_embeds_ada_norm=labels).eval()


def unet():
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        cross_attention_dim=32, attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def vae():
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 64), norm_num_groups=8, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()


def pipeline():
    labels = {i: f"class {i}" for i in range(10)}
    # The pipeline takes label 1000 for none.
    return DiTPipeline(dit(1000), vae(), DDIMScheduler(num_train_timesteps=20), id2label=labels)


INPUTS = {
    dit: dict(hidden_states=torch.randn(2, 4, 8, 8), timestep=torch.tensor([500, 500]), class_labels=torch.tensor([1, 2])),
    unet: dict(sample=torch.randn(2, 4, 16, 16), timestep=500, encoder_hidden_states=torch.randn(2, 5, 32)),
    vae: dict(sample=torch.randn(1, 3, 32, 32)),
}


def output(model, make):
    """What the model makes of its inputs."""
    with torch.no_grad():
        return model(**{k: v.to(model.dtype) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in INPUTS[make].items()}).sample
