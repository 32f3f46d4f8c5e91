//! Cutting an image into patches, and putting it together again.

pub(crate) mod cuda;

use crate::operator::*;
use bigmac_runtime::{Context, Error, Result, Spec, Tensor};

/// The patches of an image, row by row: input image `[C, H, W]` of float dtype, output `[H/P W/P, C P P]` whose rows
/// are in the order (channel, y, x), which is that of a convolution's weight `[D, C, P, P]`. `P = patch` divides H and
/// W. Saves nothing but the shape.
///
/// Source: Dosovitskiy et al., *An Image is Worth 16x16 Words*, arXiv 2010.11929, section 3.1.
#[derive(Clone, Copy, Debug)]
pub struct Patchify {
    /// Pixels to a side of a patch.
    pub patch: usize,
}

/// Checks a shape `[C, H, W]` and returns that of its patches.
fn patches_shape(op: &'static str, image: &[usize], patch: usize) -> Result<[usize; 2]> {
    match *image {
        [c, h, w] if patch > 0 && h % patch == 0 && w % patch == 0 => {
            Ok([(h / patch) * (w / patch), c * patch * patch])
        }
        _ => Err(Error::shape(op, image, format!("an image [C, H, W] whose sides {patch} divides"))),
    }
}

/// Where runs of `patch` elements lie: calls `f(in the image, in the patches)`, in the order of the patches.
fn for_each_run(image: &[usize], patch: usize, mut f: impl FnMut(usize, usize)) {
    let [channels, height, width] = *image else { return };
    let mut at = 0;
    for y in (0..height).step_by(patch) {
        for x in (0..width).step_by(patch) {
            for channel in 0..channels {
                for line in y..y + patch {
                    f((channel * height + line) * width + x, at);
                    at += patch;
                }
            }
        }
    }
}

fn patchify(ctx: &Context, image: &Tensor, patch: usize) -> Result<Tensor> {
    let image = image.contiguous(ctx)?;
    let shape = patches_shape("patchify", image.shape(), patch)?;
    let mut patches = Tensor::empty(ctx, &shape, image.dtype())?;
    if ctx.is_gpu() {
        cuda::run(ctx, "patchify", &image, &mut patches, image.shape(), patch)?;
        return Ok(patches);
    }
    let size = image.dtype().size();
    let (from, to) = (image.as_bytes()?, patches.as_mut_bytes()?);
    for_each_run(image.shape(), patch, |image, patches| {
        to[patches * size..][..patch * size].copy_from_slice(&from[image * size..][..patch * size]);
    });
    Ok(patches)
}

/// The image `[C, H, W]`, of shape `image`, whose patches of `patch` pixels to a side are the rows of `patches`
/// `[H/P W/P, C P P]`, as [`Patchify`] gives them.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit each other; those of allocation.
pub fn unpatchify(ctx: &Context, patches: &Tensor, image: [usize; 3], patch: usize) -> Result<Tensor> {
    let shape = patches_shape("unpatchify", &image, patch)?;
    if patches.shape() != shape {
        let wanted = format!("patches {shape:?} of an image {image:?}");
        return Err(Error::shape("unpatchify", patches.shape(), wanted));
    }
    let patches = patches.contiguous(ctx)?;
    let mut y = Tensor::empty(ctx, &image, patches.dtype())?;
    if ctx.is_gpu() {
        cuda::run(ctx, "unpatchify", &patches, &mut y, &image, patch)?;
        return Ok(y);
    }
    let size = y.dtype().size();
    let (from, to) = (patches.as_bytes()?, y.as_mut_bytes()?);
    for_each_run(&image, patch, |image, patches| {
        to[image * size..][..patch * size].copy_from_slice(&from[patches * size..][..patch * size]);
    });
    Ok(y)
}

impl Operator for Patchify {
    fn name(&self) -> &'static str {
        "patchify"
    }

    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred> {
        let ([image], []) = expect_counts(self.name(), inputs, weights)?;
        let dtype = expect_float(self.name(), inputs)?;
        let shape = patches_shape(self.name(), &image.shape, self.patch)?;
        let saved = need.any().then_some(SavedSpec::Shape(0));
        Ok(Inferred::one(Spec::new(&shape, dtype), saved))
    }

    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
        Ok(Forwarded::one(patchify(ctx, call.inputs[0], self.patch)?))
    }

    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let image = carried_shape(backward.saved(self.name(), 0)?);
        let image = [image[0], image[1], image[2]];
        let dx = unpatchify(ctx, backward.grad(self.name())?, image, self.patch)?;
        Ok(smallvec![Some(dx)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;

    #[test]
    fn every_shape_passes() {
        for (shape, patch) in
            [([1, 1, 1], 1), ([3, 4, 6], 2), ([2, 9, 3], 3), ([3, 8, 8], 1), ([4, 0, 2], 2), ([3, 64, 48], 8)]
        {
            Check::new(&Patchify { patch }).input(&shape).run().unwrap();
        }
    }

    #[test]
    fn patches_are_in_the_order_of_a_convolution() {
        let ctx = Context::cpu(0, 1).unwrap();
        // Element (c, y, x) is 100 c + 10 y + x.
        let values: Vec<f32> = (0..48).map(|i| (i / 24 * 100 + i % 24 / 6 * 10 + i % 6) as f32).collect();
        let image = Tensor::from_slice(&ctx, &values, &[2, 4, 6]).unwrap();
        let patches = patchify(&ctx, &image, 2).unwrap();
        assert_eq!(patches.shape(), [6, 8]);
        let row = &patches.as_slice::<f32>().unwrap()[4 * 8..][..8];
        assert_eq!(row, [22.0, 23.0, 32.0, 33.0, 122.0, 123.0, 132.0, 133.0]);
        let back = unpatchify(&ctx, &patches, [2, 4, 6], 2).unwrap();
        assert_eq!(back.as_slice::<f32>().unwrap(), values);
    }

    #[test]
    fn sides_that_are_not_multiples_are_refused() {
        let image = Spec::new(&[3, 5, 4], bigmac_runtime::DType::F32);
        for patch in [0, 2] {
            assert!(Patchify { patch }.infer(std::slice::from_ref(&image), &[], Need::NONE).is_err());
        }
        let ctx = Context::cpu(0, 1).unwrap();
        let patches = Tensor::zeros(&ctx, &[4, 12], bigmac_runtime::DType::F32).unwrap();
        assert!(unpatchify(&ctx, &patches, [3, 4, 8], 2).is_err());
    }
}
