"""Training steps of the models of `bigmac-bench step` in PyTorch: the other side of that benchmark, run by itself.

    python torch_train.py --model qwen3-1.7b --tokens 8192 --compile --json
    python torch_train.py --model mmdit-1b --small --device cpu --eager

The same shapes from the same TOML files, the same random data and counting of operations, the same keys in JSON where they apply. It is
written as one would write it to be fast: scaled_dot_product_attention on a batch of equal sequences, fused AdamW, no wait for the device
inside a step, and torch.compile of forward, loss and backward with --compile.

In bf16, `--precision master` (the default) is Megatron's way: weights and activations in bf16, gradients added to fp32 ones after every
microbatch, and AdamW on fp32 copies that are rounded back. `--precision autocast` keeps fp32 weights under torch.autocast.
"""

import argparse
import contextlib
import datetime
import json
import math
import pathlib
import sys
import time
import tomllib

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

EPS = 1e-6
RATE, BETAS, ADAM_EPS, DECAY, CLIP = 1e-4, (0.9, 0.98), 1e-8, 0.05, 1.0
TIME_FEATURES = 256
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
MODELS = pathlib.Path(__file__).resolve().parents[2] / "configs" / "plan" / "models"
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


# Sizes: what bigmac-bench/step/sizes.rs does.


class Sizes:
    """A described model, shrunk as the command line says, and how a microbatch is made up."""

    def __init__(self, args):
        path = pathlib.Path(args.model)
        path = path if path.suffix == ".toml" else MODELS / f"{args.model}.toml"
        if not path.is_file():
            sys.exit(f"there is no model `{args.model}`: {path} is not a file")
        self.name, described = path.stem, tomllib.loads(path.read_text())
        self.llm, self.generator = described.get("llm"), described.get("generator")
        if "encoder" in described or (self.llm is None) == (self.generator is None):
            sys.exit("a step is measured of an LLM or of a generator alone")
        tokens, sequence = (64, 32) if args.small else (8192, 4096)
        self.tokens = args.tokens or tokens
        self.sequence = args.sequence or min(sequence, self.tokens)
        self.microbatches = args.microbatches
        if self.tokens % self.sequence:
            sys.exit(f"--tokens {self.tokens} is not a multiple of --sequence {self.sequence}: give whole sequences")
        self.sequences = self.tokens // self.sequence
        if self.llm is not None:
            self.shrink_llm(args)
        else:
            self.shrink_generator(args)

    def shrink_llm(self, args):
        c = {"qk_norm": True, "tied": False} | self.llm
        if "experts" in c:
            sys.exit("experts are not part of this benchmark")
        if args.small:
            c["mlp"], c["heads"] = 64 * c["mlp"] // c["width"], 2 * c["heads"] // c["kv_heads"]
            c |= {"width": 64, "kv_heads": 2, "head_dim": 16}
            c["layers"], c["vocabulary"] = min(c["layers"], 2), min(c["vocabulary"], 256)
        self.llm = c | {"layers": args.layers or c["layers"], "vocabulary": args.vocabulary or c["vocabulary"]}

    def shrink_generator(self, args):
        c = dict(self.generator)
        if args.vocabulary:
            sys.exit(f"--vocabulary is of an LLM, and {args.model} has none")
        if args.small:
            c |= {"heads": 2, "head_dim": 16, "channels": 16, "layers": min(c["layers"], 2), "text_width": 32}
        c["layers"] = args.layers or c["layers"]
        text = max(1, self.sequence * c["text"] // (c["text"] + c["latents"]))
        self.generator = c | {"text": text, "latents": self.sequence - text}

    def flops(self):
        """Of a step: forward and both gradients of every product, nothing twice; attention where queries see keys."""
        return self.microbatches * self.sequences * (self.llm_flops() if self.llm else self.generator_flops())

    def llm_flops(self):
        c, rows = self.llm, self.sequence
        queries, keys = c["heads"] * c["head_dim"], c["kv_heads"] * c["head_dim"]
        layer = 2 * c["width"] * (queries + keys) + 3 * c["width"] * c["mlp"]
        pairs = rows * (rows + 1) / 2
        products = 6 * rows * (c["layers"] * layer + c["width"] * c["vocabulary"])
        return products + c["layers"] * 12 * pairs * queries

    def generator_flops(self):
        c = self.generator
        width, latents, text, last = c["heads"] * c["head_dim"], c["latents"], c["text"], c["layers"] - 1
        tokens = latents + text
        # Queries, output and MLP of ten squares of the width are not computed for the text of the last block.
        products = (latents + text) * 12 * width**2 * last + (latents * 12 + text * 2) * width**2
        products += c["layers"] * 2 * 6 * width**2
        pairs = last * tokens**2 + latents * tokens
        ends = text * c["text_width"] * width + 3 * width**2 + latents * width * c["channels"]
        # Nothing below latents and times learns: no gradient of them.
        data = latents * c["channels"] * width + TIME_FEATURES * width
        return 6 * (products + ends) + 4 * data + 12 * pairs * width


# Models.


def rms_norm(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), EPS)


def linear(inputs, outputs, bias, branches=1):
    """Normal with 1 / sqrt(inputs), the last of each residual branch divided by the root of their number; biases zero."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=(inputs * branches) ** -0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def zero_linear(inputs, outputs):
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def rotate_half(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class DecoderLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, mlp, self.dim, self.qk_norm = c["width"], c["mlp"], c["head_dim"], c["qk_norm"]
        queries, keys, branches = c["heads"] * self.dim, c["kv_heads"] * self.dim, 2 * c["layers"]
        self.shared = c["heads"] != c["kv_heads"]
        self.norm1, self.norm2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.q, self.o = linear(width, queries, False), linear(queries, width, False, branches)
        self.k, self.v = linear(width, keys, False), linear(width, keys, False)
        if self.qk_norm:
            self.q_norm, self.k_norm = nn.Parameter(torch.ones(self.dim)), nn.Parameter(torch.ones(self.dim))
        self.gate, self.up = linear(width, mlp, False), linear(width, mlp, False)
        self.down = linear(mlp, width, False, branches)

    def forward(self, x, cos, sin):
        y = rms_norm(x, self.norm1)
        q, k, v = (f(y).unflatten(-1, (-1, self.dim)) for f in (self.q, self.k, self.v))
        if self.qk_norm:
            q, k = rms_norm(q, self.q_norm), rms_norm(k, self.k_norm)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        q, k = rotate_half(q, cos, sin).to(v.dtype), rotate_half(k, cos, sin).to(v.dtype)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.shared)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = rms_norm(x, self.norm2)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    """Qwen3, and without qk_norm Llama: the mean cross-entropy of targets."""

    def __init__(self, sizes):
        super().__init__()
        c = sizes.llm
        self.embedding = nn.Parameter(torch.randn(c["vocabulary"], c["width"]) * 0.02)
        self.head = None
        if not c["tied"]:
            self.head = nn.Parameter(torch.randn(c["vocabulary"], c["width"]) * c["width"] ** -0.5)
        self.layers = nn.ModuleList(DecoderLayer(c) for _ in range(c["layers"]))
        self.norm = nn.Parameter(torch.ones(c["width"]))
        frequencies = 10_000.0 ** -(torch.arange(0, c["head_dim"], 2) / c["head_dim"])
        angle = torch.arange(sizes.sequence)[:, None] * frequencies
        angle = torch.cat((angle, angle), -1)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, tokens, targets):
        x = F.embedding(tokens, self.embedding)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        x = rms_norm(x, self.norm).flatten(0, 1)
        logits = F.linear(x, self.embedding if self.head is None else self.head)
        return F.cross_entropy(logits.float(), targets.flatten())


class Stream(nn.Module):
    """One stream's half of an MMDiT block."""

    def __init__(self, heads, dim):
        super().__init__()
        width = heads * dim
        self.dim = dim
        self.modulation = zero_linear(width, 6 * width)
        self.q, self.k, self.v, self.out = (linear(width, width, True) for _ in range(4))
        self.q_norm, self.k_norm = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))
        self.mlp_in, self.mlp_out = linear(width, 4 * width, True), linear(4 * width, width, True)

    def heads(self, x, projection, norm=None):
        y = projection(x).unflatten(-1, (-1, self.dim))
        return y if norm is None else rms_norm(y, norm)

    def finish(self, x, attended, gates):
        gate1, shift2, scale2, gate2 = gates
        x = x + gate1 * self.out(attended)
        y = modulate(x, shift2, scale2)
        return x + gate2 * self.mlp_out(F.gelu(self.mlp_in(y), approximate="tanh"))


def modulate(x, shift, scale):
    return F.layer_norm(x, (x.shape[-1],), eps=EPS) * (1 + scale) + shift


def rotate_pairs(x, cos, sin):
    """x [n, heads, t, dim]: channels 2i and 2i + 1 are turned together."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


class Block(nn.Module):
    def __init__(self, heads, dim, last):
        super().__init__()
        self.image, self.text, self.last = Stream(heads, dim), Stream(heads, dim), last

    def forward(self, image, text, time, cos, sin):
        im = [m.unsqueeze(1) for m in self.image.modulation(time).chunk(6, -1)]
        tm = [m.unsqueeze(1) for m in self.text.modulation(time).chunk(6, -1)]
        x, c = modulate(image, im[0], im[1]), modulate(text, tm[0], tm[1])
        s, t, words = self.image, self.text, text.shape[1]

        def joint(of_text, of_image):
            return torch.cat((of_text, of_image), 1).transpose(1, 2)

        k = rotate_pairs(joint(t.heads(c, t.k, t.k_norm), s.heads(x, s.k, s.k_norm)), cos, sin)
        v = joint(t.heads(c, t.v), s.heads(x, s.v))
        q = s.heads(x, s.q, s.q_norm)
        if self.last:
            q = rotate_pairs(q.transpose(1, 2), cos[words:], sin[words:])
        else:
            q = rotate_pairs(joint(t.heads(c, t.q, t.q_norm), q), cos, sin)
        y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v).transpose(1, 2).flatten(2)
        if self.last:
            return s.finish(image, y, im[2:]), text
        return s.finish(image, y[:, words:], im[2:]), t.finish(text, y[:, :words], tm[2:])


class Generator(nn.Module):
    """MMDiT as diffusers' QwenImageTransformer2DModel: the mean square of the error of the flow's velocity."""

    def __init__(self, sizes):
        super().__init__()
        c = sizes.generator
        heads, dim, channels = c["heads"], c["head_dim"], c["channels"]
        width = heads * dim
        self.image_in, self.text_in = linear(channels, width, True), linear(c["text_width"], width, True)
        self.text_norm = nn.Parameter(torch.ones(c["text_width"]))
        self.time_in, self.time_out = linear(TIME_FEATURES, width, True), linear(width, width, True)
        self.blocks = nn.ModuleList(Block(heads, dim, i == c["layers"] - 1) for i in range(c["layers"]))
        self.final, self.image_out = zero_linear(width, 2 * width), zero_linear(width, channels)
        angle = generator_angles(c)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, latents, time, cond, target):
        time = F.silu(self.time_out(F.silu(self.time_in(time))))
        image, text = self.image_in(latents), self.text_in(rms_norm(cond, self.text_norm))
        for block in self.blocks:
            image, text = block(image, text, time, self.cos, self.sin)
        scale, shift = self.final(time).unsqueeze(1).chunk(2, -1)
        return F.mse_loss(self.image_out(modulate(image, shift, scale)).float(), target.float())


def generator_angles(c):
    """Rotations [text + latents, dim / 2] of text (along the diagonal) and latents (from the middle)."""
    head, latents, text = c["head_dim"], c["latents"], c["text"]
    frame = min((f for f in range(2, head, 2) if (head - f) % 4 == 0), key=lambda f: abs(f - head // 8))
    rows = next(r for r in range(math.isqrt(latents), 0, -1) if latents % r == 0)
    columns = latents // rows
    words = torch.arange(text) + max(rows // 2, columns // 2)
    row = (torch.arange(rows) - (rows - rows // 2)).repeat_interleave(columns)
    column = (torch.arange(columns) - (columns - columns // 2)).repeat(rows)
    parts = []
    for dim, of_image in zip((frame, (head - frame) // 2, (head - frame) // 2), (torch.zeros(latents), row, column)):
        frequencies = 10_000.0 ** -(torch.arange(0, dim, 2) / dim)
        parts.append(torch.cat((words, of_image))[:, None] * frequencies)
    return torch.cat(parts, -1)


# Data.


def random_data(sizes, device, dtype):
    """The arguments of the model for each microbatch."""
    n, s = sizes.sequences, sizes.sequence
    data = []
    for _ in range(sizes.microbatches):
        if sizes.llm is not None:
            ids = [torch.randint(sizes.llm["vocabulary"], (n, s), device=device) for _ in range(2)]
            data.append(ids)
            continue
        c = sizes.generator
        clean, noise = (torch.randn(n, c["latents"], c["channels"], device=device) for _ in range(2))
        time = torch.sigmoid(torch.randn(n, device=device) + 0.8)
        angle = 1000 * time[:, None] * torch.exp(-math.log(10_000) * torch.arange(128, device=device) / 128)
        features = torch.cat((angle.cos(), angle.sin()), -1)
        noised = torch.lerp(clean, noise, time[:, None, None])
        cond = torch.randn(n, c["text"], c["text_width"], device=device)
        data.append([x.to(dtype) for x in (noised, features, cond, noise - clean)])
    return data


# Training.


class Trainer:
    def __init__(self, args, sizes):
        self.device, dtype = args.device, DTYPES[args.dtype]
        torch.manual_seed(0)
        with self.device:
            self.model = (Decoder if sizes.llm is not None else Generator)(sizes)
        self.master = dtype == torch.bfloat16 and args.precision == "master"
        self.autocast = dtype == torch.bfloat16 and not self.master
        named = dict(self.model.named_parameters())
        self.weights = list(named.values())
        copies = [p.detach().clone() for p in self.weights] if self.master else self.weights
        if self.master:
            self.model.to(dtype)
        self.learned = copies
        plain = [p for (name, w), p in zip(named.items(), copies) if w.dim() < 2 or name in ("embedding", "head")]
        rest = [p for p in copies if all(p is not q for q in plain)]
        groups = [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": DECAY}]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=ADAM_EPS, fused=True)
        self.run = torch.compile(self.model) if args.compile else self.model
        self.data = random_data(sizes, self.device, torch.float32 if self.autocast else dtype)
        self.backends = [BACKENDS[args.attention]] if args.attention in BACKENDS else None

    def loss(self, batch):
        chosen = sdpa_kernel(self.backends) if self.backends else contextlib.nullcontext()
        cast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)
        with chosen, cast:
            return self.run(*batch) / len(self.data)

    def step(self):
        """Loss and norm of the gradient, on the device."""
        losses = []
        for number, batch in enumerate(self.data):
            loss = self.loss(batch)
            loss.backward()
            losses.append(loss.detach())
            if self.master:
                self.gather(number == 0)
        norm = nn.utils.clip_grad_norm_(self.learned, CLIP)
        self.optimizer.step()
        if self.master:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, self.learned)
        else:
            self.optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).sum(), norm

    @torch.no_grad()
    def gather(self, first):
        """Gradients of a microbatch to the fp32 ones. Weights that nothing depends on have none."""
        pairs = [(c, w) for c, w in zip(self.learned, self.weights) if w.grad is not None]
        if pairs[0][0].grad is None:
            for copy, _ in pairs:
                copy.grad = torch.empty_like(copy)
        grads, fresh = [c.grad for c, _ in pairs], [w.grad for _, w in pairs]
        if first:
            torch._foreach_copy_(grads, fresh)
        else:
            torch._foreach_add_(grads, fresh)
        for weight in self.weights:
            weight.grad = None

    def moment(self):
        """The end of all work so far."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, a, b):
        return b - a if isinstance(a, float) else a.elapsed_time(b) / 1e3

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def measure(self, warmup, steps):
        for _ in range(warmup):
            self.step()
        self.wait()
        results, issued, moments = [], [], [self.moment()]
        for _ in range(steps):
            begin = time.perf_counter()
            results.append(self.step())
            moments.append(self.moment())
            issued.append(time.perf_counter() - begin)
        self.wait()
        seconds = [self.between(a, b) for a, b in zip(moments, moments[1:])]
        return seconds, issued, [loss.item() for loss, _ in results], [norm.item() for _, norm in results]


def spread(values):
    q = torch.quantile(torch.tensor(values, dtype=torch.float64), torch.tensor([0.5, 0.25, 0.75, 0.0, 1.0], dtype=torch.float64))
    return dict(zip(("median", "lower", "upper", "least", "most"), q.tolist()))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="qwen3-1.7b", help="qwen3-1.7b, llama-1b or mmdit-1b, or a file as configs/plan/models has them")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda:0"))
    parser.add_argument("--tokens", type=int, help="tokens of a microbatch [default: 8192; 64 with --small]")
    parser.add_argument("--sequence", type=int, help="tokens of each sequence [default: 4096, or all of --tokens; 32 with --small]")
    parser.add_argument("--microbatches", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--small", action="store_true", help="shrink every extent, as bigmac-bench step does")
    parser.add_argument("--dtype", choices=DTYPES, help="[default: bf16 on a GPU, f32 on the CPU]")
    parser.add_argument("--precision", choices=("master", "autocast"), default="master", help="how bf16 is trained (see above)")
    parser.add_argument("--attention", choices=("default", *BACKENDS), default="default", help="backend of attention")
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s that MFU is a share of")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--compile", action="store_true", help="torch.compile")
    way.add_argument("--eager", action="store_true", help="no compilation [default]")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("this PyTorch finds no CUDA device")
    if min(args.microbatches, args.steps) < 1:
        parser.error("--microbatches and --steps are at least 1")
    args.dtype = args.dtype or ("f32" if args.device.type == "cpu" else "bf16")
    return args


def main():
    args = arguments()
    if args.device.type == "cuda":
        torch.cuda.set_device(args.device)
    sizes = Sizes(args)
    trainer = Trainer(args, sizes)
    seconds, issued, losses, norms = trainer.measure(args.warmup, args.steps)
    times, flops = spread(seconds), sizes.flops()
    name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else "the CPU"
    row = {
        "model": sizes.name,
        "framework": "pytorch",
        "way": "compile" if args.compile else "eager",
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "device": name,
        "dtype": args.dtype,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "torch": torch.__version__,
        "precision": args.precision if args.dtype == "bf16" else "f32",
        "attention": args.attention,
        "tokens": sizes.tokens,
        "sequence": sizes.sequence,
        "microbatches": sizes.microbatches,
        "steps": args.steps,
        "seconds": times,
        "tokens_per_second": sizes.tokens * sizes.microbatches / times["median"],
        "peak": args.peak * 1e12,
        "mfu": flops / times["median"] / (args.peak * 1e12),
        "flops": flops,
        "issue_seconds": spread(issued)["median"],
        "losses": losses,
        "gradient_norms": norms,
    }
    if args.json:
        print(json.dumps(row))
        return
    print(f"{row['model']} ({row['parameters'] / 1e9:.3f}B parameters), {row['dtype']} on {name}, PyTorch {row['torch']} {row['way']}")
    print(f"step      {times['median'] * 1e3:.2f} ms (quartiles {times['lower'] * 1e3:.2f} to {times['upper'] * 1e3:.2f})")
    print(f"tokens/s  {row['tokens_per_second']:.0f}\nMFU       {100 * row['mfu']:.1f} % of {args.peak:.0f} TFLOP/s")
    print(f"loss      {losses[0]:.4f} to {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
