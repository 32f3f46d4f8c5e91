"""Writes the fixtures of encoder, LLM and their composition: tests/fixtures/{siglip,qwen3,qwen3_llama,llava,llava_multi}.

Each is a directory that transformers wrote (`config.json`, `model.safetensors` with random f32 weights) and
`expected.safetensors`: inputs, loss, outputs, and `grad.NAME` for every parameter, computed in f64 throughout.

    python -m venv venv && venv/bin/pip install torch transformers safetensors
    venv/bin/python tests/parity/make_llm.py

The fixtures in the repository were written with torch 2.15.0 and transformers 5.23.0.
"""

import copy
import pathlib
import shutil
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

# transformers computes norms, rotary tables and softmax in float32 whatever the model's dtype. Here "float32" is to
# mean f64 in its code, so that the reference is exact to f64.
SINGLE = torch.float32
torch.float32 = torch.float = torch.float64
torch.Tensor.float = torch.Tensor.double

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
transformers.logging.set_verbosity_error()

VISION = dict(hidden_size=18, intermediate_size=26, num_attention_heads=3, image_size=12, patch_size=4)
TEXT = dict(
    vocab_size=61, hidden_size=20, intermediate_size=28, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=6, rms_norm_eps=1e-6, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    rope_parameters=dict(rope_type="default", rope_theta=500.0),
)


def randomise(model, seed):
    """Weights at which no gradient is trivial: matrices of moderate size, norms near one, biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator, dtype=SINGLE)
        if parameter.ndim > 1:
            parameter.data = 1.2 * noise * parameter[0].numel() ** -0.5
        else:
            parameter.data = (1.0 if name.endswith("weight") else 0.0) + 0.2 * noise
    return model


def gradients(model):
    """Every gradient, under the name that its parameter has in a checkpoint; zero where there is none."""
    holder = copy.deepcopy(model)
    for copied, parameter in zip(holder.parameters(), model.parameters()):
        copied.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    with tempfile.TemporaryDirectory() as directory:
        holder.save_pretrained(directory)
        return {f"grad.{name}": g for name, g in load_file(f"{directory}/model.safetensors").items()}


def save(name, model, expected):
    directory = FIXTURES / name
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    model.double()
    tensors = expected(model)
    tensors |= gradients(model)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, directory / "expected.safetensors")
    print(name, {k: tuple(v.shape) for k, v in tensors.items() if not k.startswith("grad.")})


def siglip():
    config = transformers.SiglipVisionConfig(num_hidden_layers=2, **VISION)
    model = randomise(transformers.SiglipVisionModel(config), 1)

    def expected(model):
        pixels = torch.rand(3, 12, 12, dtype=torch.float64) * 2 - 1
        weights = torch.randn(9, 18, dtype=torch.float64)
        output = model(pixels[None]).last_hidden_state[0]
        loss = (output * weights).sum()
        loss.backward()
        return dict(pixels=pixels, weights=weights, output=output, loss=loss.reshape(1))

    save("siglip", model, expected)


def losses(model, samples, **inputs):
    """Logits and loss of samples (tokens, targets), each by itself: what packing must not change."""
    count = sum((targets != -100).sum() for _, targets in samples)
    logits, loss = [], 0.0
    for i, (tokens, targets) in enumerate(samples):
        logits.append(model(input_ids=tokens[None], **(inputs if i == 0 else {})).logits[0])
        loss = loss + torch.nn.functional.cross_entropy(logits[-1], targets, reduction="sum") / count
    loss.backward()
    lengths = torch.tensor([0] + [len(tokens) for tokens, _ in samples])
    return dict(
        tokens=torch.cat([t for t, _ in samples]).int(),
        targets=torch.cat([t for _, t in samples]).int(),
        bounds=lengths.cumsum(0).int(),
        logits=torch.cat(logits),
        loss=loss.reshape(1),
    )


def sample(tokens):
    """Next-token targets; the last token has none, and neither has the second one."""
    targets = torch.cat([tokens[1:], torch.tensor([-100])])
    targets[1] = -100
    return tokens, targets


def llm(name, model, seed):
    model = randomise(model, seed)

    def expected(model):
        samples = [sample(torch.randint(0, 61, (n,))) for n in (5, 9)]
        prompt = samples[1][0]
        generated = model.generate(prompt[None], max_new_tokens=12, do_sample=False)[0, len(prompt):]
        return losses(model, samples) | dict(generated=generated.int())

    save(name, model, expected)


def llava(name, seed, layers, tied, **fields):
    model = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            vision_config=transformers.SiglipVisionConfig(num_hidden_layers=layers, vision_use_head=False, **VISION),
            text_config=transformers.Qwen3Config(tie_word_embeddings=tied, **TEXT),
            image_token_index=60,
            **fields,
        )
    )
    model = randomise(model, seed)

    def expected(model):
        pixels = torch.rand(2, 3, 12, 12, dtype=torch.float64) * 2 - 1
        image = torch.full((8 if fields["vision_feature_select_strategy"] == "default" else 9,), 60)
        text = lambda n: torch.randint(0, 60, (n,))
        tokens, targets = sample(torch.cat([text(3), image, text(2), image, text(4)]))
        targets[targets == 60] = -100
        starts = torch.tensor([3, 5 + len(image)]).int()
        result = losses(model, [(tokens, targets), sample(text(6))], pixel_values=pixels)
        return result | dict(pixels=pixels, images=starts)

    save(name, model, expected)


if __name__ == "__main__":
    torch.manual_seed(0)
    siglip()
    llm("qwen3", transformers.Qwen3ForCausalLM(transformers.Qwen3Config(tie_word_embeddings=True, **TEXT)), 2)
    llama = transformers.LlamaConfig(attention_bias=True, mlp_bias=True, tie_word_embeddings=False, **TEXT)
    llm("qwen3_llama", transformers.LlamaForCausalLM(llama), 3)
    llava("llava", 4, 2, True, vision_feature_layer=-2, vision_feature_select_strategy="full")
    llava("llava_multi", 5, 2, False, vision_feature_layer=[-1, 1], vision_feature_select_strategy="default")
