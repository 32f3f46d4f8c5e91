"""Do photos slow a run down? Steps over photos of 12 megapixels against steps over the same pictures made small.

Writes 16 JPEG files of 4000 x 3000 pixels and their small copies to a temporary folder, and runs `bigmac train` over both
in turns, 4 pictures a step: on one rank of one thread, and on two ranks. Prints the median step of each, and the ratio of
the medians of each pair of runs. Needs Pillow and NumPy, an idle machine with two processors, and about five minutes.

    python3 benches/soak/photos.py target/release/bigmac
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from PIL import Image

PAIRS = 6
STEPS = 14
MODEL = (
    "model.llm.width=384 model.llm.layers=4 model.llm.heads=6 model.llm.kv_heads=6 model.llm.head_dim=64 "
    "model.llm.mlp=1536 train.batch=4 train.microbatches=2 output.sample_every=0"
).split()


def write(folder):
    random = numpy.random.default_rng(0)
    lines = {"big": [], "small": []}
    for i in range(16):
        blocks = numpy.kron(random.integers(0, 255, (30, 40, 3)), numpy.ones((100, 100, 1)))
        grain = random.integers(0, 30, (3000, 4000, 1))
        photo = Image.fromarray(numpy.clip(blocks + grain, 0, 255).astype(numpy.uint8))
        photo.save(folder / f"big{i}.jpg", quality=90)
        photo.resize((64, 48)).save(folder / f"small{i}.jpg")
        for name, records in lines.items():
            records.append(json.dumps({"images": [f"{name}{i}.jpg"], "text": f"thing {i} " + 100 * "x"}))
    for name, records in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(records))


def run(program, folder, name, ranks):
    """Seconds of the steps after the first, and the most memory of the process in MiB."""
    out = folder / f"out-{name}-{ranks}"
    subprocess.run(["rm", "-rf", out], check=True)
    settings = [f"data.path={folder / name}.jsonl", f"pipeline.ranks={ranks}", *MODEL]
    command = [program, "train", "--steps", str(STEPS), "--out", out]
    command += [word for setting in settings for word in ("--set", setting)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{command} failed with status {status}")
    steps = [json.loads(line)["seconds"] for line in (out / "metrics.jsonl").open()]
    return steps[1:], usage.ru_maxrss / 1024


def main():
    program = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder)
        for ranks in (1, 2):
            seconds = {"small": [], "big": []}
            memory = {"small": 0, "big": 0}
            ratios = []
            for pair in range(PAIRS):
                medians = {}
                for name in ("small", "big") if pair % 2 == 0 else ("big", "small"):
                    steps, peak = run(program, folder, name, ranks)
                    medians[name] = statistics.median(steps)
                    seconds[name] += steps
                    memory[name] = max(memory[name], peak)
                ratios.append(medians["big"] / medians["small"])
            quartiles = [round(value, 3) for value in statistics.quantiles(ratios, n=4)]
            print(
                f"{ranks} ranks: median step {statistics.median(seconds['small']):.3f} s small, "
                f"{statistics.median(seconds['big']):.3f} s photos; ratio {statistics.median(ratios):.3f}, "
                f"quartiles {quartiles}, {min(ratios):.3f} to {max(ratios):.3f}; "
                f"peak memory {memory['small']:.0f} MiB small, {memory['big']:.0f} MiB photos",
                flush=True,
            )


main()
