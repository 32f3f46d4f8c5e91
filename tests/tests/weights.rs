//! Weight directories: written, read again, damaged, foreign.

use anyhow::{Context as _, Result, ensure};
use bigmac_close::{absolute, is_close};
use bigmac_models::json::{read_object, write_object};
use bigmac_models::llava::{self, LlavaCheckpoint};
use bigmac_models::qwen3::{self, Qwen3, Stage};
use bigmac_runtime::safetensors::{NamedBytes, SafetensorsFile, write};
use bigmac_runtime::{Context, DType, Error, Tensor};
use bigmac_tests::parity::fixture_dir;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

fn tensors(ctx: &Context, path: &Path) -> Result<Vec<(String, Tensor)>> {
    let file = SafetensorsFile::open(path)?;
    file.names().map(|name| Ok((name.to_owned(), file.load(ctx, name)?))).collect()
}

fn store(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let named = tensors.iter().map(|(n, t)| Ok(NamedBytes::new(n, t)?)).collect::<Result<Vec<_>>>()?;
    Ok(write(path, &named, &BTreeMap::new())?)
}

#[test]
fn a_composed_model_is_written_from_its_stages_and_read_again() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let dir = tempfile::tempdir()?;
    for folder in ["llava", "llava_multi"] {
        let from = LlavaCheckpoint::open(&fixture_dir(folder))?;
        let config = from.config();
        let encoder = from.encoder(&ctx, DType::F32)?;
        let stages = Stage::split(config.text.num_hidden_layers, 2)?;
        let llm = stages.iter().map(|s| from.llm(&ctx, s, DType::F32)).collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<_> = stages.iter().zip(&llm).collect();
        llava::save(dir.path(), config, &encoder, &parts)?;
        ensure!(read_object(&dir.path().join("config.json"))?["dtype"] == "float32");
        let back = LlavaCheckpoint::open(dir.path())?;
        let mut written = back.config().to_json();
        ensure!(written.insert("dtype".to_owned(), json!("float32")) == Some(json!("float32")));
        ensure!(written == read_object(&dir.path().join("config.json"))?, "the configuration changed");
        let whole = Stage::whole(config.text.num_hidden_layers);
        let pairs = [
            (encoder, back.encoder(&ctx, DType::F32)?),
            (from.llm(&ctx, &whole, DType::F32)?, back.llm(&ctx, &whole, DType::F32)?),
        ];
        for (a, b) in &pairs {
            for ((_, a), (_, b)) in a.iter().zip(b.iter()) {
                ensure!(
                    a.name() == b.name() && a.tensor().as_bytes()? == b.tensor().as_bytes()?,
                    "{}",
                    a.name()
                );
            }
        }
        let error =
            llava::save(dir.path(), config, &pairs[0].0, &parts[..1]).err().context("saved a part")?;
        ensure!(error.to_string().contains("model.layers.1.input_layernorm.weight"), "{error}");
    }
    Ok(())
}

#[test]
fn values_are_rounded_to_the_dtype_that_is_asked_for() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let (config, checkpoint) = qwen3::open(&fixture_dir("qwen3"))?;
    let specs = Qwen3::parameters(&config, &Stage::whole(config.num_hidden_layers));
    let exact = checkpoint.load(&ctx, &specs, DType::F32)?;
    let half = checkpoint.load(&ctx, &specs, DType::BF16)?;
    for ((_, a), (_, b)) in exact.iter().zip(half.iter()) {
        ensure!(b.tensor().dtype() == DType::BF16);
        let back = bigmac_kernels::cast::cast(&ctx, b.tensor(), DType::F32)?;
        for (x, y) in a.tensor().as_slice::<f32>()?.iter().zip(back.as_slice::<f32>()?) {
            let near = is_close(*y, *x, absolute(f64::from(x.abs()) / 256.0));
            ensure!(near, "{}: {x} became {y}", a.name());
        }
    }
    Ok(())
}

#[test]
fn several_files_and_an_index_are_read_as_one() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let dir = tempfile::tempdir()?;
    let from = fixture_dir("qwen3");
    std::fs::copy(from.join("config.json"), dir.path().join("config.json"))?;
    let all = tensors(&ctx, &from.join("model.safetensors"))?;
    let (a, b) = all.split_at(9);
    store(&dir.path().join("a.safetensors"), a)?;
    store(&dir.path().join("b.safetensors"), b)?;
    let place = |list: &[(String, Tensor)], file: &str| -> Vec<_> {
        list.iter().map(|(name, _)| (name.clone(), json!(file))).collect()
    };
    let map: serde_json::Map<_, _> =
        place(a, "a.safetensors").into_iter().chain(place(b, "b.safetensors")).collect();
    let index = dir.path().join("model.safetensors.index.json");
    write_object(&index, json!({"weight_map": map}).as_object().context("object")?)?;
    let (config, checkpoint) = qwen3::open(dir.path())?;
    let specs = Qwen3::parameters(&config, &Stage::whole(config.num_hidden_layers));
    let (_, wanted) = qwen3::open(&from)?;
    let (given, wanted) =
        (checkpoint.load(&ctx, &specs, DType::F32)?, wanted.load(&ctx, &specs, DType::F32)?);
    for ((_, a), (_, b)) in given.iter().zip(wanted.iter()) {
        ensure!(a.tensor().as_bytes()? == b.tensor().as_bytes()?, "{}", a.name());
    }
    for bad in [json!({"weight_map": {"x": "../a.safetensors"}}), json!({"weight_map": {"x": 3}}), json!({})]
    {
        write_object(&index, bad.as_object().context("object")?)?;
        let error = qwen3::open(dir.path()).err().context("opened")?;
        ensure!(error.to_string().contains("index.json"), "{error}");
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_named() -> Result<()> {
    let ctx = Context::cpu(0, 1)?;
    let dir = tempfile::tempdir()?;
    let from = fixture_dir("qwen3");
    let (config, weights) = (dir.path().join("config.json"), dir.path().join("model.safetensors"));
    let whole = tensors(&ctx, &from.join("model.safetensors"))?;
    let case = |list: &[(String, Tensor)], wanted: &[&str]| -> Result<()> {
        std::fs::copy(from.join("config.json"), &config)?;
        store(&weights, list)?;
        let error = qwen3::open(dir.path()).err().context("opened")?;
        ensure!(matches!(error, Error::Format { .. }), "{error:?}");
        let error = error.to_string();
        ensure!(wanted.iter().all(|w| error.contains(w)), "{error}");
        Ok(())
    };
    case(&whole[1..], &["missing", &whole[0].0])?;
    case(&whole[7..], &["missing", "and 2 more"])?;
    let with = |name: &str, tensor: &Tensor| [&whole[..], &[(name.to_owned(), tensor.clone())]].concat();
    case(
        &with("model.layers.2.mlp.up_proj.weight", &whole[0].1),
        &["does not have", "layers.2.mlp.up_proj"],
    )?;
    let mut wrong = whole.clone();
    wrong[0].1 = Tensor::zeros(&ctx, &[3, 4], DType::F32)?;
    case(&wrong, &["[3, 4]", "[61, 20]", &whole[0].0])?;

    // A tied model's output matrix and old buffers are passed over.
    let buffer = Tensor::zeros(&ctx, &[3], DType::F32)?;
    let extra =
        [&with("lm_head.weight", &whole[0].1)[..], &[("model.rotary_emb.inv_freq".to_owned(), buffer)]];
    store(&weights, &extra.concat())?;
    qwen3::open(dir.path())?;

    std::fs::write(&config, "{ \"model_type\": \"qwen3\" }")?;
    let error = qwen3::open(dir.path()).err().context("opened")?.to_string();
    ensure!(error.contains("config.json") && error.contains("vocab_size"), "{error}");
    std::fs::write(&config, "not JSON")?;
    ensure!(qwen3::open(dir.path()).err().context("opened")?.to_string().contains("config.json"));
    std::fs::remove_file(&config)?;
    ensure!(matches!(qwen3::open(dir.path()), Err(Error::Io { .. })));
    Ok(())
}
