//! Rotary positions of text and patches.

use super::MmditConfig;
use bigmac_autograd::{Graph, Var};
use bigmac_kernels::{
    rope::rope_tables,
    rope::{Rope, RopeCache},
    view::Narrow,
};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Device, Result, Spec, Tensor};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Rows and columns of patches in a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Grid {
    /// Patches: the generator's tokens for the picture.
    pub fn patches(&self) -> usize {
        self.height * self.width
    }
}

/// Cosines and sines by which queries and keys of the joint sequence [text, patches] are turned.
#[derive(Clone, Debug)]
pub struct RopeTables {
    /// [text + patches, width of a head / 2], in the accumulator type.
    pub cos: Tensor,
    /// As `cos`.
    pub sin: Tensor,
}

impl RopeTables {
    /// The tables for a picture of that grid with `text` tokens, for activations of type `dtype`.
    ///
    /// As diffusers' `QwenEmbedRope` with `scale_rope`: rows and columns count from the picture's middle, so that a
    /// model sees pictures of any size around the same positions; the frame is 0. Text goes on along the diagonal, from
    /// half of the longer side: token `j` is at `max(height / 2, width / 2) + j` on all three axes.
    pub fn new(ctx: &Context, config: &MmditConfig, grid: Grid, text: usize, dtype: DType) -> Result<Self> {
        let positions = positions(grid, text);
        let positions: Vec<&[f64]> = positions.iter().map(Vec::as_slice).collect();
        let (dims, theta) = (&config.axes_dims_rope, MmditConfig::ROPE_THETA);
        let (cos, sin) = rope_tables(ctx, &positions, dims, theta, dtype.accumulator())?;
        Ok(RopeTables { cos, sin })
    }

    /// As [`RopeTables::new`], put together from tables that are computed once.
    pub fn cached(
        ctx: &Context,
        cache: &RopeTableCache,
        config: &MmditConfig,
        grid: Grid,
        text: usize,
        dtype: DType,
    ) -> Result<Self> {
        let (dims, theta) = (&config.axes_dims_rope[..], MmditConfig::ROPE_THETA);
        let start = first_text_position(grid);
        let positions = start..start + text;
        let (text_cos, text_sin) = cache.text.range(ctx, positions, (dims, theta), dtype.accumulator())?;
        let picture = cache.picture(ctx, config, grid, dtype)?;
        let join = |text: &Tensor, picture: &Tensor| -> Result<Tensor> {
            let shape = [text.shape()[0] + picture.shape()[0], picture.shape()[1]];
            let mut all = Tensor::empty(ctx, &shape, picture.dtype())?;
            all.write(ctx, 0, text)?;
            all.write(ctx, text.len(), picture)?;
            Ok(all)
        };
        Ok(RopeTables { cos: join(&text_cos, &picture.cos)?, sin: join(&text_sin, &picture.sin)? })
    }

    /// The tables without values, for planning.
    pub fn shape_only(config: &MmditConfig, grid: Grid, text: usize, dtype: DType) -> Self {
        let shape = [text + grid.patches(), config.attention_head_dim / 2];
        let spec = Spec::new(&shape, dtype.accumulator());
        RopeTables { cos: Tensor::shape_only(&spec), sin: Tensor::shape_only(&spec) }
    }

    /// The tables as constants of a graph; make them once per graph, so that they count once.
    pub fn constants(&self, g: &Graph<'_>) -> Rotations {
        Rotations { cos: g.constant(self.cos.clone()), sin: g.constant(self.sin.clone()) }
    }
}

/// What [`RopeTables::cached`] puts together: tables of text, and one of each picture's patches, counted under the
/// scope [`TABLES`](scopes::TABLES). A rank keeps one for all that it computes.
#[derive(Debug, Default)]
pub struct RopeTableCache {
    text: RopeCache,
    pictures: Mutex<HashMap<PictureKey, RopeTables>>,
}

/// What the table of a picture's patches is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PictureKey {
    dims: Vec<usize>,
    grid: Grid,
    dtype: DType,
    device: Device,
}

impl RopeTableCache {
    /// The tables of a picture's patches, without text.
    fn picture(&self, ctx: &Context, config: &MmditConfig, grid: Grid, dtype: DType) -> Result<RopeTables> {
        let key = PictureKey { dims: config.axes_dims_rope.to_vec(), grid, dtype, device: ctx.device() };
        // An entry is whole or not there, so a panic elsewhere does not matter.
        let mut pictures = self.pictures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tables) = pictures.get(&key) {
            return Ok(tables.clone());
        }
        let tables = RopeTables::new(&ctx.in_scope(scopes::TABLES), config, grid, 0, dtype)?;
        pictures.insert(key, tables.clone());
        Ok(tables)
    }
}

/// The position of the first token of text, on all axes.
fn first_text_position(grid: Grid) -> usize {
    (grid.height / 2).max(grid.width / 2)
}

/// Position on the axes (frame, row, column) of each text token, then of each patch row by row.
fn positions(grid: Grid, text: usize) -> [Vec<f64>; 3] {
    let from_middle = |i: usize, extent: usize| i as f64 - (extent - extent / 2) as f64;
    let start = first_text_position(grid);
    let of_text = || (start..start + text).map(|p| p as f64);
    let cells = || (0..grid.height).flat_map(move |y| (0..grid.width).map(move |x| (y, x)));
    [
        of_text().chain(cells().map(|_| 0.0)).collect(),
        of_text().chain(cells().map(|(y, _)| from_middle(y, grid.height))).collect(),
        of_text().chain(cells().map(|(_, x)| from_middle(x, grid.width))).collect(),
    ]
}

/// [`RopeTables`] in a graph.
#[derive(Clone, Debug)]
pub struct Rotations {
    pub(super) cos: Var,
    pub(super) sin: Var,
}

impl Rotations {
    /// `x` [T, H, d] turned: channels 2i and 2i + 1 of a head are one complex number.
    pub(super) fn apply(&self, g: &mut Graph<'_>, x: &Var) -> Result<Var> {
        g.apply(Rope { interleaved: true }, &[x, &self.cos, &self.sin], &[])
    }

    /// The rotations of what follows the first `text` tokens.
    pub(super) fn of_image(&self, g: &mut Graph<'_>, text: usize) -> Result<Rotations> {
        let mut rest = |table: &Var| {
            let narrow = Narrow { dim: 0, start: text, len: table.shape()[0].saturating_sub(text) };
            g.apply(narrow, &[table], &[])
        };
        Ok(Rotations { cos: rest(&self.cos)?, sin: rest(&self.sin)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_count_from_the_middle_and_text_follows() {
        let [frame, row, column] = positions(Grid { height: 3, width: 2 }, 2);
        assert_eq!(frame, [1., 2., 0., 0., 0., 0., 0., 0.]);
        assert_eq!(row, [1., 2., -2., -2., -1., -1., 0., 0.]);
        assert_eq!(column, [1., 2., -1., 0., -1., 0., -1., 0.]);
    }

    #[test]
    fn cached_tables_are_those_that_would_be_computed() {
        let ctx = Context::cpu(0, 1).unwrap();
        let config =
            MmditConfig { attention_head_dim: 12, axes_dims_rope: [2, 4, 6], ..MmditConfig::default() };
        let cache = RopeTableCache::default();
        for (height, width, text) in [(3, 2, 2), (3, 2, 0), (4, 6, 9), (3, 2, 2), (1, 1, 5)] {
            for dtype in [DType::F32, DType::BF16, DType::F64] {
                let grid = Grid { height, width };
                let given = RopeTables::cached(&ctx, &cache, &config, grid, text, dtype).unwrap();
                let wanted = RopeTables::new(&ctx, &config, grid, text, dtype).unwrap();
                for (given, wanted) in [(given.cos, wanted.cos), (given.sin, wanted.sin)] {
                    assert_eq!(given.spec(), wanted.spec());
                    assert_eq!(given.as_bytes().unwrap(), wanted.as_bytes().unwrap());
                    assert!(given.is_whole());
                }
            }
        }
    }
}
