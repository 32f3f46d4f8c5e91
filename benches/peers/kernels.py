"""BigMac's operators through PyTorch: the other side of `bigmac-bench kernels`, which starts this script.

    python kernels.py [--device cuda:0|cpu]

One line of JSON to a question on standard input, one to its answer on standard output:

    {"op": "hello"}                                  -> {"torch": version, "device": name}
    {"op": ..., "pass": "forward" | "backward" | ..., "shape": {name: extent}, "dtype": "bf16" | "f32",
     "more": {...}, "sets": n, "repeats": r}         -> {"seconds": s of one run}  or  {"missing": why}
    {"op": "free"}                                   -> null

The mean of `repeats` runs between CUDA events; with 0, of as many as take 20 ms, after a warm-up. Data is random, in `sets` sets of
buffers that runs rotate over, and is kept until another case is asked for. `backward` is all gradients; where PyTorch has
several ways (attention, cross-entropy), the fastest of those that run is kept. Everything else is eager PyTorch as one would
write it: a fused kernel of its own where it has one, and a line of operators where it has not.
"""

import argparse
import gc
import json
import sys
import time

import torch
from torch.nn import functional as F

EPS = 1e-6
SAMPLE = 0.02
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
TWINS = {}


class Missing(Exception):
    """PyTorch has nothing like the case."""


def twin(*names):
    """Registers a function of an `Ask` that makes a set of buffers and returns a function that runs once."""

    def add(make):
        TWINS.update({name: make for name in names})
        return make

    return add


class Ask:
    """A case: extents as attributes, and makers of random data."""

    def __init__(self, question, device):
        self.op, self.way, self.more = question["op"], question["pass"], question.get("more") or {}
        self.device, self.dtype = device, DTYPES[question["dtype"]]
        self.__dict__.update(question["shape"])
        self.extents = list(question["shape"].values())

    def normal(self, *shape, dtype=None, factor=1.0, grad=False):
        made = torch.randn(shape, device=self.device, dtype=torch.float32).mul_(factor).to(dtype or self.dtype)
        return made.requires_grad_() if grad else made

    def ids(self, count, below):
        return torch.randint(below, (count,), device=self.device)

    def passes(self, function, *arguments):
        """Runs `function` on the arguments, forward, or backward from a random gradient to every argument that wants one."""
        if self.way == "forward":
            return lambda: function(*arguments)
        y = function(*arguments)
        dy = torch.randn_like(y)
        wanted = [x for x in arguments if x.requires_grad]
        return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)


@twin("linear", "gemm")
def product(a):
    if a.op == "gemm":
        m, n, k, layout = a.m, a.n, a.k, a.more["layout"]
    else:
        m, n, k, layout = {
            "forward": (a.tokens, a.out, getattr(a, "in"), "nt"),
            "dgrad": (a.tokens, getattr(a, "in"), a.out, "nn"),
            "wgrad": (a.out, getattr(a, "in"), a.tokens, "tn"),
        }[a.way]
    left = a.normal(m, k) if layout[0] == "n" else a.normal(k, m).t()
    right = a.normal(k, n) if layout[1] == "n" else a.normal(n, k).t()
    out = torch.empty(m, n, device=a.device, dtype=a.dtype)
    return lambda: torch.matmul(left, right, out=out)


@twin("attention")
def attention(a):
    def tensor(heads):
        return a.normal(a.sequences, heads, a.tokens, a.head, grad=True)

    q, k, v = tensor(a.heads), tensor(a.kv_heads), tensor(a.kv_heads)
    more = {"enable_gqa": True} if a.heads != a.kv_heads else {}

    def run(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=bool(a.causal), **more)

    if a.device.type != "cuda":
        return a.passes(run, q, k, v)
    from torch.nn.attention import SDPBackend, sdpa_kernel

    ways = []
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):

        def chosen(q, k, v, backend=backend):
            with sdpa_kernel(backend):
                return run(q, k, v)

        try:
            once = a.passes(chosen, q, k, v)
            once()
            ways.append((measure(once, a.device, 10), once))
        except RuntimeError:
            continue
    return min(ways, key=lambda way: way[0])[1] if ways else a.passes(run, q, k, v)


@twin("linear_cross_entropy")
def cross_entropy(a):
    """Chunks of tokens, as Liger Kernel cuts them; gradients are made with the loss, so there is no backward by itself."""
    h, w, targets = a.normal(a.tokens, a.width), a.normal(a.words, a.width, factor=a.width**-0.5), a.ids(a.tokens, a.words)
    dw, dh = torch.zeros(a.words, a.width, device=a.device, dtype=torch.float32), torch.empty_like(h)
    chunk = max(1, min(a.tokens, (a.tokens * a.width + a.words - 1) // a.words))

    def forward():
        losses = []
        for start in range(0, a.tokens, chunk):
            logits = h[start : start + chunk] @ w.t()
            losses.append(F.cross_entropy(logits.float(), targets[start : start + chunk], reduction="sum"))
        return torch.stack(losses).sum() / a.tokens

    def backward():
        for start in range(0, a.tokens, chunk):
            part, wanted = h[start : start + chunk], targets[start : start + chunk]
            p = torch.softmax((part @ w.t()).float(), -1)
            p[torch.arange(len(wanted), device=a.device), wanted] -= 1
            p = (p / a.tokens).to(a.dtype)
            dh[start : start + chunk] = p @ w
            dw.add_(p.t() @ part)

    return forward if a.way == "forward" else backward


@twin("rms_norm")
def rms_norm(a):
    x, w = a.normal(a.rows, a.width, grad=True), a.normal(a.width, grad=True)
    return a.passes(lambda x, w: F.rms_norm(x, (a.width,), w, EPS), x, w)


@twin("layer_norm")
def layer_norm(a):
    x, w, b = a.normal(a.rows, a.width, grad=True), a.normal(a.width, grad=True), a.normal(a.width, grad=True)
    return a.passes(lambda x, w, b: F.layer_norm(x, (a.width,), w, b, EPS), x, w, b)


@twin("ada_layer_norm")
def ada_layer_norm(a):
    x, shift, scale = (a.normal(*shape, grad=True) for shape in ((a.rows, a.width), (a.width,), (a.width,)))
    return a.passes(lambda x, shift, scale: F.layer_norm(x, (a.width,), None, None, EPS) * (1 + scale) + shift, x, shift, scale)


@twin("gated_add")
def gated_add(a):
    x, gate, y = (a.normal(*shape, grad=True) for shape in ((a.rows, a.width), (a.width,), (a.rows, a.width)))
    return a.passes(lambda x, gate, y: x + gate * y, x, gate, y)


@twin("rope", "rope, interleaved")
def rope(a):
    x = a.normal(a.tokens, a.heads, a.head, grad=True)
    cos, sin = (a.normal(a.tokens, 1, a.head // 2) for _ in range(2))

    def halves(x):
        left, right = x.chunk(2, -1)
        return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)

    def pairs(x):
        left, right = x[..., ::2], x[..., 1::2]
        return torch.stack((left * cos - right * sin, right * cos + left * sin), -1).flatten(-2)

    return a.passes(pairs if a.more["interleaved"] else halves, x)


def elementwise(function, count):
    def make(a):
        return a.passes(lambda *x: function(a, *x), *(a.normal(*a.extents, grad=True) for _ in range(count)))

    return make


twin("gelu", "gelu, tanh")(elementwise(lambda a, x: F.gelu(x, approximate="tanh" if a.more["tanh"] else "none"), 1))
twin("silu")(elementwise(lambda a, x: F.silu(x), 1))
twin("swiglu")(elementwise(lambda a, gate, up: F.silu(gate) * up, 2))
twin("add")(elementwise(lambda a, x, y: x + y, 2))
twin("scale")(elementwise(lambda a, x: x * 0.5, 1))
twin("sum")(elementwise(lambda a, x: x.sum(dtype=torch.float32), 1))
twin("cast to f32")(elementwise(lambda a, x: x.float(), 1))
twin("cast to bf16")(elementwise(lambda a, x: x.bfloat16(), 1))


@twin("mean_squared_error")
def mean_squared_error(a):
    x, target = a.normal(*a.extents, grad=True), a.normal(*a.extents)
    return a.passes(lambda x, target: F.mse_loss(x, target, reduction="sum") * 1e-3, x, target)


@twin("add_weight")
def add_weight(a):
    x, w = a.normal(*a.extents), a.normal(a.extents[-1])
    return (lambda: x + w) if a.way == "forward" else (lambda: x.sum(0, dtype=torch.float32))


def picked(a):
    return torch.tensor([row for row in range(a.rows) if row // 4 % 2], device=a.device, dtype=torch.long)


@twin("gather_rows")
def gather_rows(a):
    x, rows = a.normal(a.rows, a.width, grad=True), picked(a)
    return a.passes(lambda x: x.index_select(0, rows), x)


@twin("replace_rows")
def replace_rows(a):
    x, rows = a.normal(a.rows, a.width), picked(a)
    e = a.normal(len(rows), a.width)
    return lambda: x.index_copy(0, rows, e)


@twin("concat")
def concat(a):
    x = a.normal(a.rows, a.width)
    e = a.normal(len(picked(a)), a.width)
    return lambda: torch.cat((x, e))


@twin("patchify")
def patchify(a):
    p, side = a.more["patch"], max(1, int(a.rows**0.5))
    x = a.normal(3, side, p, side, p)
    return lambda: x.permute(1, 3, 0, 2, 4).reshape(side * side, 3 * p * p)


@twin("embedding")
def embedding(a):
    table, ids = a.normal(a.words, a.width), a.ids(a.tokens, a.words)
    if a.way == "forward":
        return lambda: F.embedding(ids, table)
    grad, dy = torch.zeros(a.words, a.width, device=a.device, dtype=torch.float32), a.normal(a.tokens, a.width)
    return lambda: grad.index_add_(0, ids, dy.float())


@twin("adamw")
def adamw(a):
    """The fused optimizer over fp32 parameters: 28 bytes each, where ours also writes the parameter in bf16."""
    chunk = 1 << 24
    sizes = [min(chunk, a.elements - start) for start in range(0, a.elements, chunk)]
    parameters = [torch.nn.Parameter(a.normal(size, dtype=torch.float32)) for size in sizes]
    for p in parameters:
        p.grad = a.normal(p.numel(), dtype=torch.float32)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    return optimizer.step


@twin("sum_of_squares")
def sum_of_squares(a):
    x = a.normal(a.elements, dtype=torch.float32)
    return lambda: torch.linalg.vector_norm(x)


def measure(once, device, repeats):
    """Mean seconds of a run."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        for number in range(repeats):
            once() if not isinstance(once, list) else once[number % len(once)]()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / repeats
    start = time.perf_counter()
    for number in range(repeats):
        once() if not isinstance(once, list) else once[number % len(once)]()
    return (time.perf_counter() - start) / repeats


def calibrated(runs, device):
    """Seconds of a run, of as many as make a sample."""
    repeats = 1
    while True:
        seconds = measure(runs, device, repeats)
        if seconds * repeats >= SAMPLE or repeats >= 20_000:
            return seconds
        repeats = min(20_000, max(repeats + 1, min(10 * repeats, int(1.2 * SAMPLE / max(seconds, 1e-9)))))


class Server:
    def __init__(self, device):
        self.device, self.case, self.runs = device, None, []

    def free(self):
        self.case, self.runs = None, []
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def hello(self):
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        return {"torch": torch.__version__, "device": name}

    def answer(self, question):
        if question["op"] == "hello":
            return self.hello()
        if question["op"] == "free":
            return self.free()
        repeats = question.pop("repeats")
        try:
            if question != self.case:
                self.free()
                self.make(question)
            if repeats == 0:
                return {"seconds": calibrated(self.runs, self.device)}
            return {"seconds": measure(self.runs, self.device, repeats)}
        except Missing as reason:
            return {"missing": str(reason)}
        except (RuntimeError, TypeError, NotImplementedError) as error:
            self.free()
            return {"missing": f"{type(error).__name__}: {str(error).splitlines()[0]}"}

    def make(self, question):
        if question["op"] not in TWINS:
            raise Missing(f"PyTorch's side has no '{question['op']}'")
        make = TWINS[question["op"]]
        self.runs = [make(Ask(question, self.device)) for _ in range(question["sets"])]
        for run in self.runs:
            run()
        self.case = question


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda:0"))
    device = parser.parse_args().device
    if device.type == "cuda":
        if not torch.cuda.is_available():
            sys.exit("this PyTorch finds no CUDA device")
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    server = Server(device)
    for line in sys.stdin:
        print(json.dumps(server.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
