//! Rotary positions of text and patches.

use super::MmditConfig;
use bigmac_autograd::{Graph, Var};
use bigmac_kernels::rope::rope_tables;
use bigmac_kernels::{Narrow, Rope};
use bigmac_runtime::{Context, DType, Result, Spec, Tensor};

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
    /// As diffusers' `QwenEmbedRope` with `scale_rope`: rows and columns count from the picture's middle, so that a model
    /// sees pictures of any size around the same positions; the frame is 0. Text goes on along the diagonal, from half
    /// of the longer side: token `j` is at `max(height / 2, width / 2) + j` on all three axes.
    ///
    /// # Errors
    /// Those of allocation.
    pub fn new(ctx: &Context, config: &MmditConfig, grid: Grid, text: usize, dtype: DType) -> Result<Self> {
        let positions = positions(grid, text);
        let positions: Vec<&[f64]> = positions.iter().map(Vec::as_slice).collect();
        let (dims, theta) = (&config.axes_dims_rope, MmditConfig::ROPE_THETA);
        let (cos, sin) = rope_tables(ctx, &positions, dims, theta, dtype.accumulator())?;
        Ok(RopeTables { cos, sin })
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

/// Position on the axes (frame, row, column) of each text token, then of each patch row by row.
fn positions(grid: Grid, text: usize) -> [Vec<f64>; 3] {
    let from_middle = |i: usize, extent: usize| i as f64 - (extent - extent / 2) as f64;
    let start = (grid.height / 2).max(grid.width / 2);
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
    cos: Var,
    sin: Var,
}

impl Rotations {
    /// `x` [T, H, d] turned: channels 2i and 2i + 1 of a head are one complex number.
    pub(super) fn apply(&self, g: &mut Graph<'_>, x: &Var) -> Result<Var> {
        g.apply(Rope { interleaved: true }, &[x, &self.cos, &self.sin], &[])
    }

    /// The rotations of what follows the first `text` tokens.
    pub(super) fn of_image(&self, g: &mut Graph<'_>, text: usize) -> Result<Rotations> {
        let mut rest = |table: &Var| {
            let narrow = Narrow::new(table.shape(), 0, text, table.shape()[0].saturating_sub(text));
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
}
