//! Memory that is not there: an error that says who holds what, and a device that goes on.

use crate::bench::{Bench, Outcome};
use anyhow::{bail, ensure};
use bigmac_kernels::{Operator, add::Add};
use bigmac_runtime::{DType, Error, Tensor};

/// More than any device has.
const IMPOSSIBLE: usize = 1 << 50;

/// The device still adds.
fn works(bench: &Bench) -> anyhow::Result<()> {
    let x = Tensor::from_slice(&bench.ctx, &[1.5f32; 1000], &[1000])?;
    let y = Add.compute(&bench.ctx, &[&x, &x], &[])?;
    ensure!(y.to_vec::<f32>(&bench.ctx)? == [3.0; 1000], "1.5 + 1.5 is not 3 any more");
    Ok(())
}

/// A scope's budget holds on the device.
///
/// # Errors
/// When it does not, or the error does not say so.
pub fn budget(bench: &Bench) -> anyhow::Result<Outcome> {
    let ctx = bench.ctx.in_scope("budgeted");
    ctx.scope().set_budget(Some(1 << 20));
    let held = Tensor::empty(&ctx, &[1 << 19], DType::U8)?;
    match Tensor::empty(&ctx, &[1 << 20], DType::U8) {
        Err(Error::Budget { scope, asked, current, allowed, .. }) => {
            let given = (scope.as_str(), asked, current, allowed);
            ensure!(given == ("budgeted", 1 << 20, 1 << 19, 1 << 20), "{given:?}");
        }
        other => bail!("expected an error of the budget, got {other:?}"),
    }
    drop(held);
    Tensor::empty(&ctx, &[1 << 20], DType::U8)?;
    ensure!(ctx.scope().current() == 0, "{} bytes are left", ctx.scope().current());
    works(bench)?;
    Ok(Outcome::Passed("one byte too many is an error, and what was given back counts again".into()))
}

/// The device's memory, used up.
///
/// # Errors
/// When that is not an error with a table of scopes, or anything goes wrong afterwards.
pub fn exhausted(bench: &Bench) -> anyhow::Result<Outcome> {
    let scopes = ["encoder activations", "llm activations"].map(|name| bench.ctx.in_scope(name));
    // An eighth at a time; a replay's memory is this machine's, which is left alone.
    let piece = bench.gpu.driver().memory().map_or(IMPOSSIBLE, |(free, _)| free / 8);
    let small = Tensor::empty(&scopes[0], &[1000], DType::F32)?;
    let mut held = Vec::new();
    let error = loop {
        match Tensor::empty(&scopes[held.len() % 2], &[piece], DType::U8) {
            Ok(tensor) => held.push(tensor),
            Err(error) => break error,
        }
        ensure!(held.len() < 64, "{} pieces of {piece} bytes fit into a device with 8 of them", held.len());
    };
    let Error::OutOfMemory { bytes, in_use, .. } = &error else {
        bail!("expected OutOfMemory, got: {error}")
    };
    ensure!(*bytes == piece, "{piece} bytes were asked for, the error says {bytes}");
    ensure!(in_use.contains("encoder activations"), "no scope's bytes are in the error: {in_use}");
    let count = held.len();
    if count == 0 {
        ensure!(in_use == "3.9 KiB in encoder activations", "what is not there is held: {in_use}");
    }
    drop((held, small));
    ensure!(scopes.iter().all(|ctx| ctx.scope().current() == 0), "bytes are left in the scopes");
    works(bench)?;
    // What was given back can be had again at once.
    if count > 1 {
        let again = (0..count - 1).map(|i| Tensor::empty(&scopes[i % 2], &[piece], DType::U8));
        again.collect::<Result<Vec<_>, _>>()?;
        works(bench)?;
    }
    Ok(Outcome::Passed(format!("after {count} pieces of {piece} bytes: {error}")))
}
