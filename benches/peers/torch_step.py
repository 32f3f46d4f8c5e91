"""The default model of BigMac in eager PyTorch: the other side of the benchmark `peers`, which starts this script.

Standard input has one line of JSON, the job (see benches/src/bin/peers/torch.rs), then one line per turn: the batches to train on.
Standard output gets one line of JSON after the job, {"torch", "parameters", "layout", "loss": before anything is learned}, and
one per turn, the seconds of each step.

It is written to be fast: the whole batch at once, all images and all drawings batched, scaled_dot_product_attention without an
explicit mask wherever causality or equal lengths allow, logits of positions with a target only, the last block's unread text
stream left out, fused AdamW. Text runs either padded, or packed for everything but attention; both are tried, the faster is kept.
Pictures are random tensors made beforehand: decoding is not timed here.
"""

import json
import math
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

EPS = 1e-6


def rms_norm(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight, EPS)


def weight(*shape):
    return nn.Parameter(torch.randn(shape) * shape[-1] ** -0.5)


class EncoderLayer(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        n, t, d = x.shape
        y = self.norm1(x)
        q, k, v = (f(y).view(n, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d)
        x = x + self.out(y)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class Encoder(nn.Module):
    """SigLIP vision model up to the last layer's states, and LLaVA's projector."""

    def __init__(self, c, llm_width):
        super().__init__()
        self.patch = c["patch"]
        tokens = (c["image_size"] // c["patch"]) ** 2
        self.embed = nn.Linear(3 * c["patch"] ** 2, c["width"])
        self.positions = weight(tokens, c["width"])
        self.layers = nn.ModuleList(EncoderLayer(c["width"], c["heads"], c["mlp"]) for _ in range(c["layers"]))
        self.linear_1, self.linear_2 = nn.Linear(c["width"], llm_width), nn.Linear(llm_width, llm_width)

    def forward(self, pixels):
        x = self.embed(patches(pixels, self.patch)) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.linear_2(F.gelu(self.linear_1(x)))


def patches(pixels, p):
    """[n, 3, s, s] to [n, (s/p)^2, 3 p^2]."""
    n, c, s, _ = pixels.shape
    x = pixels.view(n, c, s // p, p, s // p, p).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(n, (s // p) ** 2, c * p * p)


def rotate_half(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class DecoderLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, self.dim, self.qk_norm = c["width"], c["head_dim"], c["qk_norm"]
        queries, keys = c["heads"] * c["head_dim"], c["kv_heads"] * c["head_dim"]
        self.shared = c["heads"] != c["kv_heads"]
        self.norm1, self.norm2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.q, self.o = nn.Linear(width, queries, bias=False), nn.Linear(queries, width, bias=False)
        self.k, self.v = nn.Linear(width, keys, bias=False), nn.Linear(width, keys, bias=False)
        if self.qk_norm:
            self.q_norm, self.k_norm = nn.Parameter(torch.ones(self.dim)), nn.Parameter(torch.ones(self.dim))
        self.gate, self.up = nn.Linear(width, c["mlp"], bias=False), nn.Linear(width, c["mlp"], bias=False)
        self.down = nn.Linear(c["mlp"], width, bias=False)

    def forward(self, x, text):
        """x [.., width], in the layout of `text`."""
        y = rms_norm(x, self.norm1)
        q, k, v = (f(y).unflatten(-1, (-1, self.dim)) for f in (self.q, self.k, self.v))
        if self.qk_norm:
            q, k = rms_norm(q, self.q_norm), rms_norm(k, self.k_norm)
        q, k = rotate_half(q, text.cos, text.sin), rotate_half(k, text.cos, text.sin)
        q, k, v = (text.pad(t).transpose(1, 2) for t in (q, k, v))
        # Padding is behind each sample, so that no query with a target sees it.
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.shared)
        x = x + self.o(text.unpad(y.transpose(1, 2).flatten(2)))
        y = rms_norm(x, self.norm2)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    def __init__(self, c, vocabulary):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(vocabulary, c["width"]) * 0.02)
        self.head = None if c["tied"] else weight(vocabulary, c["width"])
        self.layers = nn.ModuleList(DecoderLayer(c) for _ in range(c["layers"]))
        self.norm = nn.Parameter(torch.ones(c["width"]))

    def forward(self, batch, images):
        text = batch.text
        x = F.embedding(text.tokens, self.embedding)
        if images is not None:
            flat = x.flatten(0, -2).index_copy(0, text.image_rows, images.flatten(0, 1))
            x = flat.view(x.shape)
        for layer in self.layers:
            x = layer(x, text)
        return rms_norm(x, self.norm).flatten(0, -2)


class Stream(nn.Module):
    """One stream's half of an MMDiT block."""

    def __init__(self, heads, dim):
        super().__init__()
        width = heads * dim
        self.dim = dim
        self.modulation = zero_linear(width, 6 * width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.q_norm, self.k_norm = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def heads(self, x, projection, norm=None):
        y = projection(x).unflatten(-1, (-1, self.dim))
        return y if norm is None else rms_norm(y, norm)

    def finish(self, x, attended, gates):
        gate1, shift2, scale2, gate2 = gates
        x = x + gate1 * self.out(attended)
        y = modulate(x, shift2, scale2)
        return x + gate2 * self.mlp_out(F.gelu(self.mlp_in(y), approximate="tanh"))


def zero_linear(inputs, outputs):
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def modulate(x, shift, scale):
    return torch.addcmul(shift, F.layer_norm(x, (x.shape[-1],), eps=EPS), 1 + scale)


def rotate_pairs(x, rope):
    """x [n, heads, t, dim] as complex numbers, turned: what diffusers does."""
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * rope).flatten(-2)


class Block(nn.Module):
    def __init__(self, heads, dim, last):
        super().__init__()
        self.image, self.text, self.last = Stream(heads, dim), Stream(heads, dim), last

    def forward(self, image, text, time, draws):
        im = [m.unsqueeze(1) for m in self.image.modulation(time).chunk(6, -1)]
        tm = [draws.spread(m) for m in self.text.modulation(time).chunk(6, -1)]
        x, c = modulate(image, im[0], im[1]), modulate(text, tm[0], tm[1])
        s, t = self.image, self.text

        def joint(of_text, of_image):
            return torch.cat((draws.pad(of_text), of_image), 1).transpose(1, 2)

        k = rotate_pairs(joint(t.heads(c, t.k, t.k_norm), s.heads(x, s.k, s.k_norm)), draws.rope)
        v = joint(t.heads(c, t.v), s.heads(x, s.v))
        q = s.heads(x, s.q, s.q_norm)
        longest = draws.longest
        if self.last:
            q = rotate_pairs(q.transpose(1, 2), draws.rope[:, :, longest:])
        else:
            q = rotate_pairs(joint(t.heads(c, t.q, t.q_norm), q), draws.rope)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=draws.mask).transpose(1, 2).flatten(2)
        if self.last:
            return s.finish(image, y, im[2:]), text
        of_text = draws.unpad(y[:, :longest])
        return s.finish(image, y[:, longest:], im[2:]), t.finish(text, of_text, tm[2:])


class Generator(nn.Module):
    """MMDiT as diffusers' QwenImageTransformer2DModel, over patches of pixels."""

    def __init__(self, c, llm_width):
        super().__init__()
        width, self.patch = c["heads"] * c["head_dim"], c["patch"]
        channels = 3 * c["patch"] ** 2
        self.image_in, self.text_in = nn.Linear(channels, width), nn.Linear(llm_width, width)
        self.text_norm = nn.Parameter(torch.ones(llm_width))
        self.time_in, self.time_out = nn.Linear(256, width), nn.Linear(width, width)
        blocks = range(c["layers"])
        self.blocks = nn.ModuleList(Block(c["heads"], c["head_dim"], i == c["layers"] - 1) for i in blocks)
        self.final, self.image_out = zero_linear(width, 2 * width), zero_linear(width, channels)

    def forward(self, latents, time, cond, draws):
        time = F.silu(self.time_out(F.silu(self.time_in(time_features(time)))))
        image, text = self.image_in(latents), self.text_in(rms_norm(cond, self.text_norm))
        for block in self.blocks:
            image, text = block(image, text, time, draws)
        scale, shift = self.final(time).unsqueeze(1).chunk(2, -1)
        return self.image_out(modulate(image, shift, scale))


def time_features(time):
    angle = 1000 * time[:, None] * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
    return torch.cat((angle.cos(), angle.sin()), -1)


class Ragged:
    """Rows of several samples: padded to the longest, or packed behind each other."""

    def __init__(self, lengths, packed):
        self.packed, self.lengths, self.longest = packed, lengths, max(lengths)
        steps = torch.arange(self.longest)
        self.valid = steps < torch.tensor(lengths)[:, None]
        # Of each packed row its place among the padded ones, and of each padded row a packed one (any, after the end).
        self.places = self.valid.flatten().nonzero().squeeze(1)
        starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
        self.sources = (starts[:, None] + steps).clamp(max=sum(lengths) - 1).flatten()
        self.owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))

    def lay(self, rows):
        """Lists per sample as a tensor of this layout."""
        if self.packed:
            return torch.tensor([value for row in rows for value in row])
        return torch.tensor([row + [0] * (self.longest - len(row)) for row in rows])

    def pad(self, x):
        if not self.packed:
            return x
        return x.index_select(0, self.sources).view(len(self.lengths), self.longest, *x.shape[1:])

    def unpad(self, x):
        return x.flatten(0, 1).index_select(0, self.places) if self.packed else x

    def spread(self, per_sample):
        """One row per sample to all of its rows."""
        return per_sample.index_select(0, self.owner) if self.packed else per_sample.unsqueeze(1)

    def rows(self, sample, start, end):
        """Numbers of a sample's rows, all but the last dimension flattened."""
        begin = sum(self.lengths[:sample]) if self.packed else sample * self.longest
        return range(begin + start, begin + end)


class Batch:
    """A step's samples as tensors."""

    def __init__(self, job, samples, packed):
        model = job["model"]
        llm, gen, enc = model["llm"], model["generator"], model["encoder"]
        text = self.text = Ragged([len(s["tokens"]) for s in samples], packed)
        text.tokens = text.lay([s["tokens"] for s in samples])
        positions = text.lay([list(range(n)) for n in text.lengths]).float()
        frequencies = llm["rope_theta"] ** -(torch.arange(0, llm["head_dim"], 2) / llm["head_dim"])
        angle = positions[..., None] * frequencies
        angle = torch.cat((angle, angle), -1).unsqueeze(-2)
        text.cos, text.sin = angle.cos(), angle.sin()
        images = [(i, a, b) for i, s in enumerate(samples) for a, b in s["images"]]
        text.image_rows = torch.tensor([r for i, a, b in images for r in text.rows(i, a, b)], dtype=torch.long)
        side = enc["image_size"]
        self.pixels = torch.rand(len(images), 3, side, side) * 2 - 1 if images else None
        learned = [(r, t) for i, s in enumerate(samples) for r, t in zip(text.rows(i, 0, len(s["targets"])), s["targets"]) if t >= 0]
        self.target_rows = torch.tensor([r for r, _ in learned], dtype=torch.long)
        self.targets = torch.tensor([t for _, t in learned], dtype=torch.long)

        conds = [(i, s["cond"]) for i, s in enumerate(samples) if s["cond"]]
        self.draws = None
        if conds:
            draws = self.draws = Ragged([n for _, n in conds], packed)
            rows = [list(text.rows(i, 0, n)) for i, n in conds]
            self.cond_rows = draws.lay(rows)
            side, grid = gen["image_size"], gen["image_size"] // gen["patch"]
            self.clean = patches(torch.rand(len(conds), 3, side, side) * 2 - 1, gen["patch"])
            valid = torch.cat((draws.valid, torch.ones(len(conds), grid * grid, dtype=torch.bool)), 1)
            draws.mask = None if valid.all() else valid[:, None, None, :]
            draws.rope = generator_rope(gen, grid, draws.longest)


def generator_rope(c, grid, longest):
    """Rotations [1, 1, longest + grid^2, dim / 2] of text (along the diagonal) and patches (from the middle)."""
    text = torch.arange(longest) + grid // 2
    cells = torch.arange(grid) - (grid - grid // 2)
    frame, row, column = torch.zeros(grid * grid), cells.repeat_interleave(grid), cells.repeat(grid)
    parts = []
    for dim, of_image in zip(c["rope_axes"], (frame, row, column)):
        frequencies = 10_000 ** -(torch.arange(0, dim, 2) / dim)
        parts.append(torch.cat((text, of_image))[:, None] * frequencies)
    angle = torch.cat(parts, -1)
    return torch.polar(torch.ones_like(angle), angle)[None, None]


class Model(nn.Module):
    def __init__(self, job):
        super().__init__()
        model = job["model"]
        width = model["llm"]["width"]
        self.encoder = Encoder(model["encoder"], width)
        self.llm = Decoder(model["llm"], model["vocabulary"])
        self.generator = Generator(model["generator"], width)
        self.drawing_weight, self.noise_mean = job["train"]["drawing_weight"], job["train"]["noise_mean"]

    def forward(self, batch):
        images = None if batch.pixels is None else self.encoder(batch.pixels)
        hidden = self.llm(batch, images)
        head = self.llm.embedding if self.llm.head is None else self.llm.head
        loss = F.cross_entropy(hidden.index_select(0, batch.target_rows) @ head.T, batch.targets)
        if batch.draws is None:
            return loss
        time = torch.sigmoid(torch.randn(len(batch.clean)) + self.noise_mean)
        noise = torch.randn_like(batch.clean)
        noised = torch.lerp(batch.clean, noise, time[:, None, None])
        cond = F.embedding(batch.cond_rows, hidden)
        velocity = self.generator(noised, time, cond, batch.draws)
        return loss + self.drawing_weight * F.mse_loss(velocity, noise - batch.clean)


class Trainer:
    def __init__(self, job):
        torch.manual_seed(0)
        self.job, self.model, c = job, Model(job), job["train"]
        parameters = dict(self.model.named_parameters())
        plain = [p for n, p in parameters.items() if p.dim() < 2 or n in ("llm.embedding", "llm.head", "encoder.positions")]
        rest = [p for p in parameters.values() if all(p is not q for q in plain)]
        groups = [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": c["weight_decay"]}]
        self.optimizer = torch.optim.AdamW(groups, lr=c["lr"], betas=(c["beta1"], c["beta2"]), eps=c["epsilon"], fused=True)

    def step(self, batch):
        """Seconds and loss of one step."""
        begin = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model(batch)
        loss.backward()
        if self.job["train"]["clip"] > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.job["train"]["clip"])
        self.optimizer.step()
        value = loss.item()
        return time.perf_counter() - begin, value

    def parameters(self):
        return sum(p.numel() for p in self.model.parameters())


def faster_layout(job, trainer):
    """Whether packed text is the faster layout (three steps to warm up, then the least of six, in turn), and the first loss."""
    batches = {packed: Batch(job, job["trial"], packed) for packed in (True, False)}
    seconds, losses = {packed: [] for packed in batches}, []
    for turn in range(9):
        for packed, batch in batches.items():
            took, loss = trainer.step(batch)
            losses.append(loss)
            if turn >= 3:
                seconds[packed].append(took)
    return min(seconds[True]) < min(seconds[False]), losses[0]


def main():
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(job["threads"])
    trainer = Trainer(job)
    packed, loss = faster_layout(job, trainer)
    layout = "packed" if packed else "padded"
    say({"torch": torch.__version__, "parameters": trainer.parameters(), "layout": layout, "loss": loss})
    for line in sys.stdin:
        batches = [Batch(job, samples, packed) for samples in json.loads(line)]
        say([trainer.step(batch)[0] for batch in batches])


def say(answer):
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
