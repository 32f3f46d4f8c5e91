//! Fixtures that PyTorch wrote, and how far a result is from them.

use anyhow::{Context as _, Result, ensure};
use bigmac_close::{absolute, is_close};
use bigmac_kernels::cast::cast;
use bigmac_kernels::check::to_f64;
use bigmac_runtime::safetensors::SafetensorsFile;
use bigmac_runtime::{Context, DType, Tensor};
use std::path::PathBuf;

/// The folder of fixtures of that name.
pub fn fixture_dir(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A safetensors file of inputs, outputs and gradients.
#[derive(Debug)]
pub struct Fixture {
    ctx: Context,
    file: SafetensorsFile,
}

impl Fixture {
    /// Opens `tests/fixtures/FOLDER/FILE`; its tensors are made in `ctx`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(ctx: &Context, folder: &str, file: &str) -> Result<Self> {
        Ok(Fixture { ctx: ctx.clone(), file: SafetensorsFile::open(&fixture_dir(folder).join(file))? })
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.file.names()
    }

    /// True when there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.file.contains(name)
    }

    /// The tensor of that name as it is.
    ///
    /// # Errors
    /// When there is none.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        Ok(self.file.load(&self.ctx, name)?)
    }

    /// The float tensor of that name in another type.
    ///
    /// # Errors
    /// When there is none.
    pub fn tensor_as(&self, name: &str, dtype: DType) -> Result<Tensor> {
        Ok(cast(&self.ctx, &self.tensor(name)?, dtype)?)
    }

    /// The elements of the float tensor of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn values(&self, name: &str) -> Result<Vec<f64>> {
        Ok(to_f64(&self.ctx, &self.tensor(name)?)?)
    }

    /// The first element of the float tensor of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.values(name)?.first().copied().with_context(|| format!("'{name}' is empty"))
    }

    /// The elements of the I32 tensor of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn integers(&self, name: &str) -> Result<Vec<i32>> {
        Ok(self.tensor(name)?.as_slice::<i32>()?.to_vec())
    }

    /// Checks a result against the tensor of that name: shapes are equal, and the norm of the difference is at most
    /// `tolerance` of the wanted norm.
    ///
    /// # Errors
    /// When it is further off, with by how much.
    pub fn check(&self, name: &str, given: &Tensor, tolerance: f64) -> Result<()> {
        let wanted = self.tensor(name)?;
        ensure!(
            given.shape() == wanted.shape(),
            "{name}: expected shape {:?}, got {:?}",
            wanted.shape(),
            given.shape()
        );
        close(name, &to_f64(&self.ctx, given)?, &to_f64(&self.ctx, &wanted)?, tolerance)
    }
}

/// Checks that two lists of numbers differ by at most `tolerance` of the norm of `wanted` (and are both zero where it
/// is zero).
///
/// # Errors
/// When they are further apart, with by how much.
pub fn close(name: &str, given: &[f64], wanted: &[f64], tolerance: f64) -> Result<()> {
    ensure!(given.len() == wanted.len(), "{name}: expected {} elements, got {}", wanted.len(), given.len());
    let norm = wanted.iter().map(|w| w * w).sum::<f64>().sqrt();
    let error = given.iter().zip(wanted).map(|(g, w)| (g - w).powi(2)).sum::<f64>().sqrt();
    ensure!(
        is_close(error, 0.0, absolute(tolerance * norm)),
        "{name}: off by {error:.2e} of a norm of {norm:.2e}, allowed {tolerance:.1e} of it"
    );
    Ok(())
}
