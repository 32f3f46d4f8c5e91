//! Values on their way from a GPU to the CPU, not waited for yet.

use crate::context::Context;
use crate::dtype::Element;
use crate::error::{Error, Result};
use crate::tensor::{Spec, Tensor};
use bigmac_gpu::{Gpu, PendingDownload};

const OP: &str = "download";

/// A copy of a tensor's values that was queued. It may be dropped at any time, without a wait.
#[derive(Debug)]
pub struct Download {
    gpu: Gpu,
    spec: Spec,
    pending: Box<dyn PendingDownload>,
}

impl Tensor {
    /// Queues a copy of a view's values to the CPU after the device's work so far, and returns at once. The tensor may
    /// be written to or dropped right after: the values are those of this moment in the device's work.
    ///
    /// # Errors
    /// [`Error::Argument`] for a tensor on the CPU, whose values are there already; [`Error::NoValues`]; those of
    /// copying and of the driver.
    pub fn download(&self, ctx: &Context) -> Result<Download> {
        let whole = self.contiguous(ctx)?;
        let address = whole.address(0, OP)?;
        let Some((gpu, _)) = whole.allocation() else { return Err(Error::NoValues { op: OP }) };
        let spec = self.spec();
        let pending = gpu.driver().download_later(address, spec.bytes()).map_err(|e| gpu.error(OP, e))?;
        Ok(Download { gpu: gpu.clone(), spec, pending })
    }
}

impl Download {
    /// The values in row-major order; waits until the device has come past the copy.
    ///
    /// # Errors
    /// [`Error::DType`]; [`Error::Gpu`] when the copy, or something queued before it, has failed.
    pub fn wait<T: Element>(self) -> Result<Vec<T>> {
        if T::DTYPE != self.spec.dtype {
            return Err(Error::DType { op: OP, given: self.spec.dtype, wanted: T::DTYPE.to_string() });
        }
        let bytes = self.pending.wait().map_err(|e| self.gpu.error(OP, e))?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use bigmac_gpu::Order;

    #[test]
    fn values_are_those_of_the_moment_when_the_copy_was_queued() {
        let gpu = Gpu::replay(Order::Forward).unwrap();
        let ctx = Context::on_gpu(0, 1, &gpu).unwrap();
        let mut x = Tensor::from_slice(&ctx, &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
        let all = x.download(&ctx).unwrap();
        let column = x.narrow(1, 1, 1).unwrap().download(&ctx).unwrap();
        x.clear(0..6).unwrap();
        drop(x.download(&ctx).unwrap());
        drop(x);
        assert_eq!(all.wait::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert!(matches!(column.wait::<i32>(), Err(Error::DType { given: DType::F32, .. })));
        let empty = Tensor::zeros(&ctx, &[0, 3], DType::F32).unwrap();
        assert!(empty.download(&ctx).unwrap().wait::<f32>().unwrap().is_empty());
    }

    #[test]
    fn only_what_is_on_a_gpu_can_be_downloaded() {
        let ctx = Context::cpu(0, 1).unwrap();
        let here = Tensor::zeros(&ctx, &[2], DType::F32).unwrap();
        assert!(matches!(here.download(&ctx), Err(Error::Argument { .. })));
        let planned = Tensor::shape_only(&here.spec());
        assert!(matches!(planned.download(&ctx), Err(Error::NoValues { .. })));
    }
}
