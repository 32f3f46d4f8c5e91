"""Writes the Parquet and tar files beside it, which tests of data sets read.

    pip install pyarrow==26.0.1 datasets==5.2.0 pillow
    python make_tables.py

Pictures are PNG files of one colour: that of image `i` is (16 * i, 100, 200), 4 pixels wide and 3 high.
"""

import io
import pathlib
import tarfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = pathlib.Path(__file__).parent


def png(i):
    data = io.BytesIO()
    Image.new("RGB", (4, 3), (16 * i, 100, 200)).save(data, "PNG")
    return data.getvalue()


def hub():
    """What `Dataset.push_to_hub` uploads: embedded pictures, and features in the metadata."""
    pictures = [{"bytes": png(i), "path": f"{i}.png"} for i in range(6)]
    turns = lambda i: [{"role": "user", "content": f"<image>what is {i}?"}, {"role": "assistant", "content": f"it is {i}"}]
    features = datasets.Features({
        "id": datasets.Value("int64"),
        "images": datasets.List(datasets.Image()),
        "messages": datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")}),
    })
    rows = {"id": range(6), "images": [[p] for p in pictures], "messages": [turns(i) for i in range(6)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(HERE / "hub-messages.parquet", batch_size=2)
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = {"image": pictures[:3] + [None] + pictures[4:], "text": [f"text {i}" for i in range(6)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(HERE / "hub-text.parquet", batch_size=4)


PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table():
    """Lists of any length, pictures that are missing, texts that repeat."""
    counts = [0, 1, 2, 0, 3, 1, 2, 0, 1, 2]
    numbers = iter(range(sum(counts)))
    images = [[{"bytes": png(next(numbers)), "path": None} for _ in range(count)] for count in counts]
    images[3] = None
    return pa.table({
        "images": pa.array(images, pa.list_(PICTURE)),
        "text": pa.array([f"text {row // 3}" for row in range(10)], pa.string()),
        "prompt": pa.array([None if row % 4 == 1 else "say: " for row in range(10)], pa.string()),
    })


def forms():
    """The same table as different writers store it."""
    for version in ("1.0", "2.0"):
        for codec in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
            name = f"pages-{version[0]}-{codec}.parquet"
            index = codec in ("zstd", "none")
            pq.write_table(table(), HERE / name, compression=codec, data_page_version=version, row_group_size=4,
                           write_page_index=index, data_page_size=200, write_statistics=codec != "gzip",
                           use_dictionary=["text"], write_page_checksum=codec == "zstd")


def tars():
    """Names that are longer than the header of a tar file holds, as GNU tar and as POSIX write them."""
    folder = "a-folder-with-a-long-name/" * 5
    for name, form in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        with tarfile.open(HERE / f"long-{name}.tar", "w", format=form) as shard:
            for i in range(2):
                for part, data in (("png", png(i)), ("txt", f"text é {i}".encode())):
                    member = tarfile.TarInfo(f"{folder}é{i}.{part}")
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data))


hub()
forms()
tars()
