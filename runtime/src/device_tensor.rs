//! Tensors on a GPU: addresses, and copies to and from the CPU.

use crate::context::Context;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use bigmac_gpu::{Arg, Device, Gpu, TensorMap, TensorMapShape};
use std::ops::Range;

impl DType {
    /// The type of these elements in a kernel: `float` or `bf16`.
    ///
    /// # Errors
    /// [`Error::DType`] in the name of `op` for any other dtype.
    pub fn in_kernels(self, op: &'static str) -> Result<&'static str> {
        match self {
            DType::F32 => Ok("float"),
            DType::BF16 => Ok("bf16"),
            given => Err(Error::DType { op, given, wanted: "f32 or bf16 on a GPU".into() }),
        }
    }
}

impl Tensor {
    /// Where the storage lies; `Cpu` for a tensor without values.
    pub fn device(&self) -> Device {
        self.allocation().map_or(Device::Cpu, |(gpu, _)| gpu.device())
    }

    pub(crate) fn not_on_host(&self, op: &'static str) -> Error {
        Error::NotOnHost { op, device: self.device() }
    }

    pub(crate) fn not_on_device(&self, op: &'static str, wanted: Device) -> Error {
        Error::NotOnDevice { op, given: self.device(), wanted }
    }

    /// The view's first element as a kernel's argument, to be read from; how the rest lies is in [`Tensor::strides`].
    ///
    /// # Errors
    /// [`Error::NotOnDevice`] for a tensor on the CPU, [`Error::NoValues`].
    pub fn arg(&self) -> Result<Arg> {
        self.arg_at(0)
    }

    /// As [`Tensor::arg`], `offset` elements further.
    pub fn arg_at(&self, offset: usize) -> Result<Arg> {
        self.address(offset, "launch").map(Arg::Pointer)
    }

    /// Where the element lies on its device that comes `offset` elements after the view's first one.
    pub(crate) fn address(&self, offset: usize, op: &'static str) -> Result<u64> {
        match self.allocation() {
            Some((_, address)) => {
                Ok(address + ((self.layout().offset() + offset) * self.dtype().size()) as u64)
            }
            None if self.is_shape_only() => Err(Error::NoValues { op }),
            None => Err(Error::argument(
                op,
                "expected a tensor on a GPU, got one on the CPU; move it with to_device() first",
            )),
        }
    }

    /// Describes the tensor from `offset` elements after its view's first one to the tensor memory accelerator.
    ///
    /// # Errors
    /// Those of [`Tensor::arg`]; [`Error::Gpu`] when the description breaks the hardware's rules.
    pub fn tensor_map(&self, ctx: &Context, offset: usize, shape: &TensorMapShape) -> Result<TensorMap> {
        const OP: &str = "tensor_map";
        let expected = || Error::argument(OP, "expected a context on a GPU, got one on the CPU");
        Ok(ctx.gpu().ok_or_else(expected)?.tensor_map(self.address(offset, OP)?, shape)?)
    }

    /// The first element as a kernel's argument, to be written to.
    ///
    /// # Errors
    /// As [`Tensor::arg`]; [`Error::NotContiguous`]; [`Error::Shared`] when another tensor holds the storage.
    pub fn arg_mut(&mut self) -> Result<Arg> {
        self.arg_mut_at(0)
    }

    /// As [`Tensor::arg_mut`], `offset` elements further.
    pub fn arg_mut_at(&mut self, offset: usize) -> Result<Arg> {
        self.check_writable("launch")?;
        self.arg_at(offset)
    }

    /// Fails unless `op` can write to this tensor, wherever it lies.
    ///
    /// # Errors
    /// [`Error::NotContiguous`]; [`Error::Shared`] when another tensor holds the storage; [`Error::NoValues`].
    pub fn check_writable(&self, op: &'static str) -> Result<()> {
        self.check_contiguous(op)?;
        if self.is_shape_only() {
            return Err(Error::NoValues { op });
        }
        if !self.is_unshared() {
            return Err(Error::Shared { op, owners: self.owners() });
        }
        Ok(())
    }

    /// The values of a view, in row-major order; waits for the device.
    ///
    /// # Errors
    /// [`Error::DType`], [`Error::NoValues`]; those of copying and of the driver.
    pub fn to_vec<T: Element>(&self, ctx: &Context) -> Result<Vec<T>> {
        Ok(self.to_cpu(ctx)?.as_slice::<T>()?.to_vec())
    }

    /// A contiguous tensor with these values on the CPU, which may be this one; waits for the device.
    pub fn to_cpu(&self, ctx: &Context) -> Result<Tensor> {
        let Some((gpu, _)) = self.allocation() else { return self.contiguous(&ctx.host()) };
        let whole = self.contiguous(ctx)?;
        let mut out = Tensor::empty(&ctx.host(), self.shape(), self.dtype())?;
        let address = whole.address(0, "to_cpu")?;
        gpu.driver().download(address, out.as_mut_bytes()?).map_err(|e| gpu.error("to_cpu", e))?;
        Ok(out)
    }

    /// A contiguous tensor with these values where `ctx` runs, which may be this one.
    ///
    /// # Errors
    /// Those of copying and of the driver; [`Error::NotOnDevice`] between two GPUs.
    pub fn to_device(&self, ctx: &Context) -> Result<Tensor> {
        match (self.allocation(), ctx.gpu()) {
            (None, Some(_)) if !self.is_shape_only() => {
                let whole = self.contiguous(&ctx.host())?;
                Tensor::from_bytes(ctx, whole.as_bytes()?, &whole.spec())
            }
            (Some(_), None) => self.to_cpu(ctx),
            (Some((mine, _)), Some(gpu)) if !mine.same(gpu) => {
                Err(self.not_on_device("to_device", gpu.device()))
            }
            _ => self.contiguous(ctx),
        }
    }

    /// Sets the elements `range` of this contiguous, unshared tensor to zero.
    pub fn clear(&mut self, range: Range<usize>) -> Result<()> {
        if range.start > range.end || range.end > self.len() {
            return Err(Error::shape("clear", self.shape(), format!("a tensor that holds {range:?}")));
        }
        let size = self.dtype().size();
        let bytes = range.len() * size;
        let Some(gpu) = self.allocation().map(|(gpu, _)| gpu.clone()) else {
            self.as_mut_bytes()?[range.start * size..][..bytes].fill(0);
            return Ok(());
        };
        self.check_writable("clear")?;
        let address = self.address(range.start, "clear")?;
        if bytes > 0 {
            gpu.driver().fill(address, 0, bytes).map_err(|e| gpu.error("clear", e))?;
        }
        Ok(())
    }

    /// Overwrites the elements from `offset` on of this contiguous, unshared tensor with those of `from`, of the same
    /// dtype and where this one lies.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is no room, [`Error::DType`], [`Error::NotOnDevice`]; those of copying.
    pub fn write(&mut self, ctx: &Context, offset: usize, from: &Tensor) -> Result<()> {
        const OP: &str = "write";
        if from.dtype() != self.dtype() {
            return Err(Error::DType { op: OP, given: from.dtype(), wanted: self.dtype().to_string() });
        }
        if offset.checked_add(from.len()).is_none_or(|end| end > self.len()) {
            let wanted = format!("room for {} elements from {offset} on", from.len());
            return Err(Error::shape(OP, self.shape(), wanted));
        }
        let from = from.contiguous(ctx)?;
        let size = self.dtype().size();
        let (bytes, start) = (from.len() * size, offset * size);
        let gpu: Option<Gpu> = self.allocation().map(|(gpu, _)| gpu.clone());
        match (gpu, from.allocation()) {
            (None, None) => {
                self.as_mut_bytes()?[start..start + bytes].copy_from_slice(from.as_bytes()?);
                Ok(())
            }
            (Some(gpu), Some((other, _))) if gpu.same(other) => {
                self.check_writable(OP)?;
                let (to, from) = (self.address(offset, OP)?, from.address(0, OP)?);
                if bytes > 0 {
                    gpu.driver().copy(to, from, bytes).map_err(|e| gpu.error(OP, e))?;
                }
                Ok(())
            }
            _ => Err(from.not_on_device(OP, self.device())),
        }
    }
}
