//! The folder that every try starts from: data sets of every form, a run, and files of every other kind.

use anyhow::{Context as _, Result, ensure};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A model that a step of takes a millisecond.
const CONFIG: &str = r#"[run]
name = "tiny"

[data]
path = "set"
shapes = 8

[model.encoder]
image_size = 16
width = 8
layers = 1
heads = 1
mlp = 8

[model.llm]
width = 8
layers = 2
heads = 2
kv_heads = 2
head_dim = 4
mlp = 8

[model.generator]
image_size = 16
layers = 1
heads = 1
head_dim = 6
rope_axes = [2, 2, 2]
sample_steps = 2

[train]
batch = 4
microbatches = 2
steps = 2
tokens_per_microbatch = 512

[pipeline]
timeout = 60.0

[output]
sample_every = 0
samples = 1
final_samples = 1
checkpoint_every = 1
"#;

const MODEL: &str = r#"summary = "a small LLM with encoder and generator"
sequence = 512
images = 2
drawings = 1

[encoder]
width = 64
layers = 2
heads = 2
mlp = 256
image_size = 64
patch = 16

[llm]
width = 64
layers = 4
heads = 2
kv_heads = 2
head_dim = 32
vocabulary = 512
mlp = 128
qk_norm = true
tied = true

[generator]
layers = 2
heads = 2
head_dim = 32
channels = 16
latents = 64
"#;

const DEVICE: &str = r#"summary = "a device"
peak = 1e12
memory = 8e9
reserved = 1e9
memory_bandwidth = 1e11
devices_per_node = 2

[node]
latency = 5e-6
bandwidth = 1e10

[cluster]
latency = 1e-5
bandwidth = 1e9

[efficiency]
dense = 0.75
expert = 0.55
attention = 0.60
memory = 0.80
link = 0.80
"#;

const WORKLOAD: &str = r#"ranks = 2
chunks = 1
p2p = 0.1
frozen = ["encoder"]

[[microbatch]]
encoder = [[1.0, 2.0], [0.5, 1.0]]
generator = [[2.0, 4.0]]
llm = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]

[[microbatch]]
repeat = 3
llm = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
"#;

const TABLE: &str = "message m {
    optional binary text (UTF8);
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional group images (LIST) { repeated group list { optional binary element; } }
}";

/// Writes the folder, with the program's own commands where it writes such files.
///
/// # Errors
/// Where a file could not be written, or one of the commands fails.
pub fn prepare(folder: &Path, binary: &Path) -> Result<()> {
    let write = |name: &str, bytes: &[u8]| -> Result<()> {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().context("a file without a folder")?)?;
        std::fs::write(&path, bytes).with_context(|| format!("could not write {name}"))
    };
    let formats = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif];
    for ((name, format), size) in
        crate::commands::PICTURES.iter().zip(formats).zip([(20, 14), (9, 9), (33, 16), (16, 40)])
    {
        write(name, &picture(size, format)?)?;
    }
    write("imagefolder/train/e.png", &picture((12, 12), ImageFormat::Png)?)?;
    write("imagefolder/train/metadata.jsonl", b"{\"file_name\": \"e.png\", \"text\": \"a picture\"}\n")?;
    write("tiny.toml", CONFIG.as_bytes())?;
    write("model.toml", MODEL.as_bytes())?;
    write("device.toml", DEVICE.as_bytes())?;
    write("workload.toml", WORKLOAD.as_bytes())?;
    write("tokenizer.json", tokenizer().as_bytes())?;
    write("bpe.json", merging_tokenizer().as_bytes())?;
    write("set/train.jsonl", own().as_bytes())?;
    write("set/heldout.jsonl", b"{\"images\": [\"../pictures/a.png\"], \"text\": \"first\"}\n{\"text\": \"a red thing\", \"draw\": \"../pictures/d.gif\"}\n{\"text\": \"words\"}\n")?;
    write("llava/train.json", llava().as_bytes())?;
    write("chat/train.jsonl", chat().as_bytes())?;
    write("shards/train-00000.tar", &shard()?)?;
    write("table/train-00000-of-00001.parquet", &table()?)?;
    write("elsewhere/kept.png", &picture((5, 5), ImageFormat::Png)?)?;
    for line in [
        "train tiny.toml --out run",
        "profile tiny.toml --steps 1 --rounds 1 --out profile.toml",
        "simulate --ranks 2 --microbatches 2 --items 2 --schedule nested --cost F=1,B=1,W=1,Ef=1,Eb=1,Gf=1,Gb=1 --table step.txt",
        "simulate --ranks 2 --microbatches 2 --table llm.csv",
    ] {
        let output = Command::new(binary).args(line.split(' ')).current_dir(folder).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`bigmac {line}` failed on the prepared folder: {error}");
    }
    Ok(())
}

fn picture((width, height): (u32, u32), format: ImageFormat) -> Result<Vec<u8>> {
    let pixels = RgbImage::from_fn(width, height, |x, y| Rgb([(x * 12) as u8, (y * 9) as u8, (x * y) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(pixels).write_to(&mut bytes, format)?;
    Ok(bytes.into_inner())
}

fn lines(records: &[serde_json::Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

/// Four records of the project's own form, over all pictures.
fn own() -> String {
    lines(&[
        json!({"text": "a <image> shows a kite", "images": ["../pictures/a.png"]}),
        json!({"prompt": "<image>what?", "text": "a kite", "images": ["../pictures/b.jpg"], "id": 7}),
        json!({"text": "two", "images": ["../pictures/c.webp", "../pictures/d.gif"]}),
        json!({"text": "a red kite", "draw": "../pictures/a.png"}),
    ])
}

fn llava() -> String {
    let ask = |picture: &str| {
        json!({"id": "1", "image": picture, "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A kite."}]})
    };
    json!([
        ask("../pictures/a.png"),
        ask("../pictures/b.jpg"),
        ask("../pictures/c.webp"),
        ask("../pictures/d.gif"),
    ])
    .to_string()
}

fn chat() -> String {
    let ask = |picture: &str| {
        json!({"messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": "A kite."}]})
    };
    lines(&[
        ask("../pictures/a.png"),
        ask("../pictures/b.jpg"),
        ask("../pictures/c.webp"),
        json!({"messages": [{"role": "user", "content": "Draw a kite."}], "draw": "../pictures/d.gif"}),
    ])
}

fn tokenizer() -> String {
    let words = ["[UNK]", "a", "red", "kite", "What", "is", "it", "?", "."];
    let specials = ["<pad>", "<s>", "</s>", "<image>", "<draw>"];
    let vocabulary: serde_json::Map<_, _> =
        words.iter().chain(&specials).enumerate().map(|(i, w)| (w.to_string(), i.into())).collect();
    let added: Vec<_> = specials
        .iter()
        .enumerate()
        .map(|(i, content)| {
            json!({"id": i + words.len(), "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}})
    .to_string()
}

/// A BPE tokenizer with something of every part that such a file may have.
fn merging_tokenizer() -> String {
    let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let letters: Vec<String> = ('a'..='z').chain(['\u{2581}']).map(String::from).collect();
    let merged = ["re", "red", "ki", "te", "kite"].map(String::from);
    let specials = ["<unk>", "<pad>", "<s>", "</s>", "<image>", "<draw>"].map(String::from);
    let all: Vec<&String> = specials.iter().chain(&bytes).chain(&letters).chain(&merged).collect();
    let vocabulary: serde_json::Map<_, _> =
        all.iter().enumerate().map(|(i, w)| (w.to_string(), i.into())).collect();
    let added: Vec<_> = specials
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    json!({"version": "1.0",
        "truncation": {"direction": "Right", "max_length": 64, "strategy": "LongestFirst", "stride": 2},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 1,
            "pad_type_id": 0, "pad_token": "<pad>"},
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\s+|\\p{L}+|(?=x)y"}, "behavior": "Isolated", "invert": false},
            {"type": "Digits", "individual_digits": true},
            {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": true}]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [2], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": 0.1, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": [["r", "e"], ["re", "d"], ["k", "i"], ["t", "e"], ["ki", "te"]]}})
    .to_string()
}

fn shard() -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, contents: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, contents)
    };
    for (key, format, ending) in
        [("0", ImageFormat::Png, "png"), ("1", ImageFormat::Jpeg, "jpg"), ("2", ImageFormat::Gif, "gif")]
    {
        add(&format!("{key}.{ending}"), &picture((14, 10), format)?)?;
        add(&format!("{key}.txt"), b"a red kite")?;
    }
    add("3.json", br#"{"text": "a <image>", "images": ["png"]}"#)?;
    add("3.png", &picture((8, 8), ImageFormat::Png)?)?;
    Ok(builder.into_inner()?)
}

/// A table with a text, a picture of the Hub's form and a list of pictures in each row.
fn table() -> Result<Vec<u8>> {
    let png = picture((10, 10), ImageFormat::Png)?;
    let jpeg = picture((9, 7), ImageFormat::Jpeg)?;
    type Entry<'a> = (i16, i16, Option<&'a [u8]>);
    // Per leaf: (definition level, repetition level, value) of each entry; without a value, it is null.
    let leaves: [Vec<Entry>; 4] = [
        vec![(1, 0, Some(b"a red kite")), (1, 0, Some(b"another")), (1, 0, Some(b"words alone"))],
        vec![(2, 0, Some(&png)), (0, 0, None), (0, 0, None)],
        vec![(1, 0, None), (0, 0, None), (0, 0, None)],
        vec![(0, 0, None), (3, 0, Some(&jpeg)), (3, 1, Some(&png)), (0, 0, None)],
    ];
    let mut bytes = Vec::new();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(&mut bytes, Arc::new(parse_message_type(TABLE)?), properties)?;
    let mut rows = writer.next_row_group()?;
    for entries in leaves {
        let mut column = rows.next_column()?.context("the schema has fewer leaves")?;
        let ColumnWriter::ByteArrayColumnWriter(typed) = column.untyped() else {
            anyhow::bail!("the schema has bytes only")
        };
        let values: Vec<ByteArray> = entries.iter().filter_map(|e| e.2).map(|v| v.to_vec().into()).collect();
        let definitions: Vec<i16> = entries.iter().map(|e| e.0).collect();
        let repetitions: Vec<i16> = entries.iter().map(|e| e.1).collect();
        typed.write_batch(&values, Some(&definitions), Some(&repetitions))?;
        column.close()?;
    }
    rows.close()?;
    writer.close()?;
    Ok(bytes)
}
