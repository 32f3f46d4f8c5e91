"""Writes the pictures beside it: kinds that the image crate cannot write. Needs Pillow."""

import math
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
SIZE = (1504, 1000)


def smooth(mode):
    """A picture that compresses well and is different everywhere."""
    small = Image.new("RGB", (47, 31))
    small.putdata([(x * 5, y * 8, int(127 + 120 * math.sin(x * y / 40))) for y in range(31) for x in range(47)])
    return small.resize(SIZE, Image.BICUBIC).convert(mode)


smooth("RGB").save(HERE / "progressive.jpg", quality=30, progressive=True, subsampling=0)
smooth("CMYK").save(HERE / "cmyk.jpg", quality=30)
turned = smooth("RGB")
exif = turned.getexif()
exif[0x0112] = 6
turned.save(HERE / "turned.jpg", quality=30, exif=exif)
smooth("RGB").save(HERE / "lossy.webp", quality=10)
alpha = smooth("RGBA")
alpha.putalpha(Image.linear_gradient("L").resize(SIZE))
alpha.save(HERE / "alpha.webp", quality=10)
frames = [smooth("RGB").quantize(8), Image.new("RGB", SIZE, (255, 0, 0)).quantize(8)]
frames[0].save(HERE / "animated.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)
frames = [Image.new("RGB", (64, 48), c) for c in ((0, 0, 255), (255, 0, 0))]
frames[0].save(HERE / "animated.webp", save_all=True, append_images=frames[1:], lossless=True, duration=100)
frames[0].save(HERE / "animated.png", save_all=True, append_images=frames[1:], duration=100)
