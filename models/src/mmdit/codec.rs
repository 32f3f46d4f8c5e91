//! Between pictures and latents: what the generator draws in.

use super::{Grid, MmditConfig};
use bigmac_kernels::{Operator, patchify::Patchify, patchify::unpatchify};
use bigmac_runtime::safetensors::SafetensorsFile;
use bigmac_runtime::{Context, Error, Result, Tensor};
use std::path::Path;

const OP: &str = "codec";

/// Turns a picture into the generator's tokens and back.
///
/// What comes with it cuts planes into square patches: a codec that computes (a variational autoencoder) overrides
/// [`Codec::encode`] and [`Codec::decode`].
pub trait Codec: std::fmt::Debug + Send + Sync {
    /// Planes of a picture as the codec takes it.
    fn planes(&self) -> usize;

    /// Side, in the picture's own pixels, of the square that one token stands for.
    fn patch(&self) -> usize;

    /// Channels of a token.
    fn channels(&self) -> usize {
        self.planes() * self.patch() * self.patch()
    }

    /// Latents [patches, channels] of a float `picture` [planes, height, width]: its patches row by row, each in the
    /// order (plane, row, column), which is also that of diffusers' Qwen-Image pipeline.
    ///
    /// # Errors
    /// [`Error::Shape`] when the picture has other planes or cannot be cut into whole patches; those of allocation.
    fn encode(&self, ctx: &Context, picture: &Tensor) -> Result<Tensor> {
        match *picture.shape() {
            [planes, height, width] if planes == self.planes() => self.grid(height, width)?,
            _ => {
                let wanted = format!("a picture [{}, height, width]", self.planes());
                return Err(Error::shape(OP, picture.shape(), wanted));
            }
        };
        let patchify = Patchify { patch: self.patch() };
        patchify.compute(ctx, &[picture], &[])
    }

    /// The picture [planes, height, width] of `latents` [patches, channels] on a grid.
    ///
    /// # Errors
    /// [`Error::Shape`] when the latents are not those of such a picture; those of allocation.
    fn decode(&self, ctx: &Context, latents: &Tensor, grid: Grid) -> Result<Tensor> {
        if latents.shape() != [grid.patches(), self.channels()] {
            let wanted = format!(
                "[{}, {}] for {} x {} patches",
                grid.patches(),
                self.channels(),
                grid.height,
                grid.width
            );
            return Err(Error::shape(OP, latents.shape(), wanted));
        }
        let patch = self.patch();
        unpatchify(ctx, latents, [self.planes(), grid.height * patch, grid.width * patch], patch)
    }

    /// The grid of a picture of that size.
    ///
    /// # Errors
    /// [`Error::Shape`] when it cannot be cut into whole patches.
    fn grid(&self, height: usize, width: usize) -> Result<Grid> {
        let patch = self.patch();
        if height == 0 || width == 0 || !height.is_multiple_of(patch) || !width.is_multiple_of(patch) {
            let wanted = format!("a height and a width that are multiples of the patch side {patch}");
            return Err(Error::shape(OP, [height, width], wanted));
        }
        Ok(Grid { height: height / patch, width: width / patch })
    }

    /// Checks that a generator draws in these latents.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the fields that do not fit.
    fn check(&self, config: &MmditConfig) -> Result<()> {
        let channels = self.channels();
        if config.in_channels == channels && config.prediction_dim() == channels {
            return Ok(());
        }
        let message = format!(
            "its tokens have {channels} channels; the generator takes in_channels {} and gives patch_size^2 x out_channels {}",
            config.in_channels,
            config.prediction_dim()
        );
        Err(Error::argument(OP, message))
    }
}

/// Latents are the pixels themselves, in [-1, 1]: nothing to train first, right for small pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelCodec {
    /// Side of a patch in pixels.
    pub patch: usize,
}

impl Codec for PixelCodec {
    fn planes(&self) -> usize {
        3
    }

    fn patch(&self) -> usize {
        self.patch
    }
}

/// Latents that a codec elsewhere has computed: a "picture" is its tensor [planes, height, width], already shifted and
/// scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrecomputedCodec {
    /// Planes of the tensors: 16 for Qwen-Image's autoencoder.
    pub planes: usize,
    /// Side of a patch in latent pixels: 2 for Qwen-Image.
    pub patch: usize,
}

impl PrecomputedCodec {
    /// The name of the tensor in a file of latents.
    pub const NAME: &str = "latents";

    /// Reads the tensor [`PrecomputedCodec::NAME`] of a safetensors file, to be encoded.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`] for a file that holds no such float tensor [planes, height, width]; those of
    /// allocation.
    pub fn read(&self, ctx: &Context, path: &Path) -> Result<Tensor> {
        let file = SafetensorsFile::open(path)?;
        let spec = file.spec(Self::NAME)?;
        if !spec.dtype.is_float() || spec.shape.len() != 3 || spec.shape[0] != self.planes {
            let (name, planes) = (Self::NAME, self.planes);
            let message = format!(
                "'{name}' is {} {:?}, expected floats [{planes}, height, width]; write the codec's output for one picture",
                spec.dtype, spec.shape
            );
            return Err(Error::format(path, message));
        }
        file.load(ctx, Self::NAME)
    }
}

impl Codec for PrecomputedCodec {
    fn planes(&self) -> usize {
        self.planes
    }

    fn patch(&self) -> usize {
        self.patch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_runtime::safetensors::{NamedBytes, write};

    #[test]
    fn pictures_come_back_and_patches_are_in_their_order() {
        let ctx = Context::cpu(0, 1).unwrap();
        let codec = PixelCodec { patch: 2 };
        let values: Vec<f32> = (0..3 * 4 * 6).map(|i| i as f32).collect();
        let picture = Tensor::from_slice(&ctx, &values, &[3, 4, 6]).unwrap();
        let latents = codec.encode(&ctx, &picture).unwrap();
        assert_eq!(latents.shape(), [6, 12]);
        // The second patch of the first row: plane by plane, row by row.
        let second = &latents.as_slice::<f32>().unwrap()[12..24];
        assert_eq!(second, [2., 3., 8., 9., 26., 27., 32., 33., 50., 51., 56., 57.]);
        let grid = codec.grid(4, 6).unwrap();
        assert_eq!(grid, Grid { height: 2, width: 3 });
        let back = codec.decode(&ctx, &latents, grid).unwrap();
        assert_eq!((back.shape(), back.as_slice::<f32>().unwrap()), (&[3, 4, 6][..], &values[..]));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let ctx = Context::cpu(0, 1).unwrap();
        let codec = PixelCodec { patch: 4 };
        let zeros = |shape: &[usize]| Tensor::zeros(&ctx, shape, bigmac_runtime::DType::F32).unwrap();
        assert!(codec.encode(&ctx, &zeros(&[3, 6, 8])).unwrap_err().to_string().contains("multiples"));
        assert!(
            codec.encode(&ctx, &zeros(&[1, 8, 8])).unwrap_err().to_string().contains("[3, height, width]")
        );
        let grid = Grid { height: 2, width: 2 };
        assert!(codec.decode(&ctx, &zeros(&[5, 48]), grid).unwrap_err().to_string().contains("[4, 48]"));
        let config = MmditConfig::default();
        assert!(codec.check(&config).unwrap_err().to_string().contains("48"));
        PrecomputedCodec { planes: 16, patch: 2 }.check(&config).unwrap();
    }

    #[test]
    fn precomputed_latents_are_read() {
        let ctx = Context::cpu(0, 1).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let tensor = Tensor::from_slice(&ctx, &[1.0f32; 16], &[4, 2, 2]).unwrap();
        let named = [NamedBytes::new(PrecomputedCodec::NAME, &tensor).unwrap()];
        write(&path, &named, &Default::default()).unwrap();
        let read = PrecomputedCodec { planes: 4, patch: 2 }.read(&ctx, &path).unwrap();
        assert_eq!(read.as_bytes().unwrap(), tensor.as_bytes().unwrap());
        let error = PrecomputedCodec { planes: 16, patch: 2 }.read(&ctx, &path).unwrap_err().to_string();
        assert!(error.contains("[4, 2, 2]") && error.contains("a.safetensors"), "{error}");
    }
}
