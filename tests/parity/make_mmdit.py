"""Writes tests/fixtures/mmdit: a tiny QwenImageTransformer2DModel of diffusers, its inputs, outputs and gradients.

    python tests/parity/make_mmdit.py        # needs torch and diffusers (written with 2.15 and 0.42)

`config.json` and `model.safetensors` are a model directory as users have it. `wide.safetensors` holds a picture of 3 x 5
patches with 4 text tokens: inputs, prediction, loss, the gradient of the text's embeddings and of every parameter that
has one. `single.safetensors` holds a picture of 4 x 3 patches with a single text token: inputs, prediction, and the gradients
of inputs only. `time.safetensors` and `rope.safetensors` hold the sinusoidal time features and the rotations alone.
"""

import pathlib

import torch
from diffusers import QwenImageTransformer2DModel
from safetensors.torch import save_file

CONFIG = dict(
    patch_size=2,
    in_channels=12,
    out_channels=3,
    num_layers=2,
    attention_head_dim=8,
    num_attention_heads=2,
    joint_attention_dim=10,
    axes_dims_rope=(2, 2, 4),
)
LOSS_SCALE = 0.37


def make_model() -> QwenImageTransformer2DModel:
    """Every parameter random and of a size at which it matters: nothing starts at zero, as it would in training."""
    torch.manual_seed(0)
    model = QwenImageTransformer2DModel(**CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and parameter.dim() == 1 and "linear" not in name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif parameter.dim() == 1:
                parameter.copy_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[1] ** -0.5)
    return model


def run(model, height: int, width: int, text: int, time: float, seed: int) -> dict:
    """One picture forward and backward; leaves the parameters' gradients in the model."""
    generator = torch.Generator().manual_seed(seed)
    patches = height * width
    latents = torch.randn(1, patches, CONFIG["in_channels"], generator=generator, requires_grad=True)
    cond = torch.randn(1, text, CONFIG["joint_attention_dim"], generator=generator, requires_grad=True)
    target = torch.randn(1, patches, CONFIG["in_channels"], generator=generator)
    model.zero_grad(set_to_none=True)
    prediction = model(
        hidden_states=latents,
        encoder_hidden_states=cond,
        timestep=torch.tensor([time]),
        img_shapes=[[(1, height, width)]],
        return_dict=False,
    )[0]
    loss = LOSS_SCALE * (prediction - target).square().sum()
    loss.backward()
    return {
        "latents": latents.detach()[0],
        "cond": cond.detach()[0],
        "target": target[0],
        # diffusers takes the sines of F32 angles, which are off by more than the rest of the model;
        # `time.safetensors` tests them alone.
        "time_features": model.time_text_embed.time_proj(torch.tensor([time]))[0],
        "grid": torch.tensor([height, width], dtype=torch.int32),
        "loss_scale": torch.tensor([LOSS_SCALE]),
        "prediction": prediction.detach()[0],
        "loss": loss.detach()[None],
        "latents_grad": latents.grad[0],
        "cond_grad": cond.grad[0],
    }


def save(tensors: dict, path: pathlib.Path) -> None:
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)


def main() -> None:
    out = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "mmdit"
    out.mkdir(parents=True, exist_ok=True)
    model = make_model()
    model.save_config(out)
    save(model.state_dict(), out / "model.safetensors")

    wide = run(model, height=3, width=5, text=4, time=0.31, seed=1)
    gradients = {f"grad.{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    save(wide | gradients, out / "wide.safetensors")
    save(run(model, height=4, width=3, text=1, time=0.87, seed=2), out / "single.safetensors")

    times = torch.tensor([0.0, 0.001, 0.31, 0.87, 1.0])
    save({"times": times, "features": model.time_text_embed.time_proj(times)}, out / "time.safetensors")

    rotations = {}
    for height, width, text in [(3, 5, 4), (4, 3, 1), (1, 1, 2)]:
        image_turns, text_turns = model.pos_embed([(1, height, width)], max_txt_seq_len=text)
        turns = torch.cat([text_turns, image_turns])
        rotations[f"{height}.{width}.{text}.cos"] = turns.real
        rotations[f"{height}.{width}.{text}.sin"] = turns.imag
    save(rotations, out / "rope.safetensors")


if __name__ == "__main__":
    main()
