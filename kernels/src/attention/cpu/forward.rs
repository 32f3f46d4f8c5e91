//! The forward pass.

use super::{Heads, KEYS, Places, Problem, QUERIES, Unit, scaled};
use crate::product::{Matrix, MatrixMut, Scalar, multiply, transpose};
use crate::softmax::{Running, STEP};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Result, Tensor};

/// Writes the output, and the log-sum-exp of each query's scores `[heads, tokens]` where it is wanted.
pub(super) fn forward<R: Scalar>(
    ctx: &Context,
    problem: &Problem<'_>,
    [q, k, v]: [Heads<'_, R>; 3],
    out: &mut [R],
    lse: Option<&mut [R]>,
) -> Result<()> {
    let (out, lse) = (Places::new(out), lse.map(Places::new));
    let workspace = ctx.in_scope(scopes::WORKSPACE);
    let len = problem.longest() * problem.dim + QUERIES * (KEYS + 2 * problem.dim);
    let blocks = ctx.threads().map_blocks(problem.units(), problem.units_to_block(), |_, units| {
        let mut scratch = Tensor::empty(&workspace, &[len], R::DTYPE)?;
        for unit in units {
            one(problem, &problem.unit(unit), [q, k, v], &out, lse.as_ref(), scratch.as_mut_slice()?);
        }
        Ok(())
    });
    blocks.into_iter().collect()
}

fn one<R: Scalar>(
    problem: &Problem<'_>,
    unit: &Unit,
    [q, k, v]: [Heads<'_, R>; 3],
    out: &Places<'_, R>,
    lse: Option<&Places<'_, R>>,
    scratch: &mut [R],
) {
    let (dim, keys) = (problem.dim, unit.keys.len());
    let tokens = problem.bounds_q[problem.bounds_q.len() - 1];
    let (kt, rest) = scratch.split_at_mut(problem.longest() * dim);
    let (scores, rest) = rest.split_at_mut(QUERIES * KEYS);
    let (queries, sums) = rest.split_at_mut(QUERIES * dim);
    let kt = &mut kt[..keys * dim];
    transpose(k.matrix(unit.keys.clone(), unit.key_head), kt);
    let kt = Matrix::row_major(kt, dim, keys);
    for head in unit.heads.clone() {
        for top in (0..unit.queries.len()).step_by(QUERIES) {
            let rows = QUERIES.min(unit.queries.len() - top);
            let first = unit.queries.start + top;
            let queries = &mut queries[..rows * dim];
            let sums = &mut sums[..rows * dim];
            scaled((0..rows).map(|i| q.row(first + i, head)), R::of(problem.scale), queries, dim);
            let queries = Matrix::row_major(queries, rows, dim);
            let mut running = [Running::NOTHING; QUERIES];
            let visible = problem.visible(unit, top + rows - 1);
            if visible == 0 {
                sums.fill(R::ZERO);
            }
            for left in (0..visible).step_by(KEYS) {
                let width = KEYS.min(visible - left);
                let block = MatrixMut::new(scores, rows, width, KEYS);
                multiply(queries, kt.cols(left, width), false, block);
                for (i, scores) in scores.chunks_exact_mut(KEYS).enumerate().take(rows) {
                    let seen = problem.visible(unit, top + i).saturating_sub(left).min(width);
                    let scores = &mut scores[..width.next_multiple_of(STEP)];
                    scores[seen..].fill(R::NEG_INFINITY);
                    let factor = running[i].absorb(scores);
                    if left > 0 {
                        sums[i * dim..][..dim].iter_mut().for_each(|s| *s *= factor);
                    }
                }
                let probabilities = Matrix::new(scores, (rows, width), (KEYS, 1));
                let start = unit.keys.start + left;
                let values = v.matrix(start..start + width, unit.key_head);
                multiply(probabilities, values, left > 0, MatrixMut::row_major(sums, rows, dim));
            }
            for (i, running) in running.into_iter().enumerate().take(rows) {
                // SAFETY: this unit alone has these queries under this head, and no other place of theirs is held.
                let (out, lse) = unsafe {
                    let out = out.get(((first + i) * problem.heads + head) * dim, dim);
                    (out, lse.map(|lse| &mut lse.get(head * tokens + first + i, 1)[0]))
                };
                let inverse = running.inverse();
                for (out, &x) in out.iter_mut().zip(&sums[i * dim..][..dim]) {
                    *out = x * inverse;
                }
                if let Some(lse) = lse {
                    *lse = running.log_sum_exp();
                }
            }
        }
    }
}
