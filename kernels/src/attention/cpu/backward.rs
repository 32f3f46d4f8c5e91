//! The backward pass: the probabilities are computed again, block by block.

use super::{Heads, KEYS, Places, Problem, QUERIES, Unit, scaled};
use crate::product::{Matrix, MatrixMut, Scalar, multiply, transpose};
use crate::rows::sums;
use crate::softmax::{STEP, probabilities};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Result, Tensor};

/// What the backward is computed from.
#[derive(Debug)]
pub(super) struct Operands<'a, R> {
    pub(super) q: Heads<'a, R>,
    pub(super) k: Heads<'a, R>,
    pub(super) v: Heads<'a, R>,
    /// The forward's output.
    pub(super) out: Heads<'a, R>,
    /// Its gradient.
    pub(super) dy: Heads<'a, R>,
    /// `[heads, tokens]`.
    pub(super) lse: &'a [R],
}

/// Where the gradients of q, k and v go; `None` where one is not wanted.
struct Grads<'a, R> {
    q: Option<Places<'a, R>>,
    k: Option<Places<'a, R>>,
    v: Option<Places<'a, R>>,
}

/// Writes the gradients of q, k and v that are wanted.
pub(super) fn backward<R: Scalar>(
    ctx: &Context,
    problem: &Problem<'_>,
    given: &Operands<'_, R>,
    [dq, dk, dv]: [Option<&mut [R]>; 3],
) -> Result<()> {
    let grads = Grads { q: dq.map(Places::new), k: dk.map(Places::new), v: dv.map(Places::new) };
    let workspace = ctx.in_scope(scopes::WORKSPACE);
    let len = 4 * problem.longest() * problem.dim + QUERIES * 2 * (KEYS + problem.dim);
    let blocks = ctx.threads().map_blocks(problem.units(), problem.units_to_block(), |_, units| {
        let mut scratch = Tensor::empty(&workspace, &[len], R::DTYPE)?;
        for unit in units {
            one(problem, &problem.unit(unit), given, &grads, scratch.as_mut_slice()?);
        }
        Ok(())
    });
    blocks.into_iter().collect()
}

fn one<R: Scalar>(
    problem: &Problem<'_>,
    unit: &Unit,
    given: &Operands<'_, R>,
    grads: &Grads<'_, R>,
    scratch: &mut [R],
) {
    let (dim, keys) = (problem.dim, unit.keys.len());
    let tokens = problem.bounds_q[problem.bounds_q.len() - 1];
    let scale = R::of(problem.scale);
    let scores_wanted = grads.q.is_some() || grads.k.is_some();
    let (whole, blocks) = scratch.split_at_mut(4 * problem.longest() * dim);
    let whole = &mut whole[..4 * keys * dim];
    let (transposes, totals) = whole.split_at_mut(2 * keys * dim);
    let (kt, vt) = transposes.split_at_mut(keys * dim);
    let (dk, dv) = totals.split_at_mut(keys * dim);
    let (p, blocks) = blocks.split_at_mut(QUERIES * KEYS);
    let (ds, blocks) = blocks.split_at_mut(QUERIES * KEYS);
    let (queries, dq) = blocks.split_at_mut(QUERIES * dim);
    transpose(given.k.matrix(unit.keys.clone(), unit.key_head), kt);
    transpose(given.v.matrix(unit.keys.clone(), unit.key_head), vt);
    let kt = Matrix::row_major(kt, dim, keys);
    let vt = Matrix::row_major(vt, dim, keys);
    dk.fill(R::ZERO);
    dv.fill(R::ZERO);
    for head in unit.heads.clone() {
        for top in (0..unit.queries.len()).step_by(QUERIES) {
            let rows = QUERIES.min(unit.queries.len() - top);
            let first = unit.queries.start + top;
            let queries = &mut queries[..rows * dim];
            let dq = &mut dq[..rows * dim];
            scaled((0..rows).map(|i| given.q.row(first + i, head)), scale, queries, dim);
            let queries = Matrix::row_major(queries, rows, dim);
            let dy = given.dy.matrix(first..first + rows, head);
            let lse = &given.lse[head * tokens + first..][..rows];
            let mut delta = [R::ZERO; QUERIES];
            for (i, delta) in delta.iter_mut().enumerate().take(rows) {
                let rows = [given.dy.row(first + i, head), given.out.row(first + i, head)];
                [*delta] = sums(rows, |[dy, out]| [dy * out]);
            }
            let visible = problem.visible(unit, top + rows - 1);
            if visible == 0 {
                dq.fill(R::ZERO);
            }
            for left in (0..visible).step_by(KEYS) {
                let width = KEYS.min(visible - left);
                let padded = width.next_multiple_of(STEP);
                let start = unit.keys.start + left;
                multiply(queries, kt.cols(left, width), false, MatrixMut::new(p, rows, width, KEYS));
                for (i, p) in p.chunks_exact_mut(KEYS).enumerate().take(rows) {
                    let seen = problem.visible(unit, top + i).saturating_sub(left).min(width);
                    p[seen..padded].fill(R::NEG_INFINITY);
                    probabilities(&mut p[..padded], lse[i]);
                }
                // Transposed views: rows of keys.
                let of_keys = |block| Matrix::new(block, (rows, width), (KEYS, 1)).transposed();
                if grads.v.is_some() {
                    let dv = MatrixMut::row_major(&mut dv[left * dim..][..width * dim], width, dim);
                    multiply(of_keys(p), dy, true, dv);
                }
                if !scores_wanted {
                    continue;
                }
                multiply(dy, vt.cols(left, width), false, MatrixMut::new(ds, rows, width, KEYS));
                for (i, (ds, p)) in ds.chunks_exact_mut(KEYS).zip(p.chunks_exact(KEYS)).enumerate().take(rows)
                {
                    for (ds, &p) in ds[..padded].iter_mut().zip(&p[..padded]) {
                        *ds = p * (*ds - delta[i]);
                    }
                }
                if grads.k.is_some() {
                    // The queries here carry the scale.
                    let dk = MatrixMut::row_major(&mut dk[left * dim..][..width * dim], width, dim);
                    multiply(of_keys(ds), queries, true, dk);
                }
                if grads.q.is_some() {
                    let k = given.k.matrix(start..start + width, unit.key_head);
                    multiply(of_keys(ds).transposed(), k, left > 0, MatrixMut::row_major(dq, rows, dim));
                }
            }
            if let Some(to) = &grads.q {
                for (i, dq) in dq.chunks_exact(dim.max(1)).enumerate() {
                    // SAFETY: this unit alone has these queries under this head.
                    let to = unsafe { to.get(((first + i) * problem.heads + head) * dim, dim) };
                    to.iter_mut().zip(dq).for_each(|(to, &dq)| *to = dq * scale);
                }
            }
        }
    }
    for (to, totals) in [(&grads.k, dk), (&grads.v, dv)] {
        let Some(to) = to else { continue };
        for (i, total) in totals.chunks_exact(dim.max(1)).enumerate() {
            let row = (unit.keys.start + i) * problem.key_heads + unit.key_head;
            // SAFETY: this unit alone has these keys under this head of keys.
            unsafe { to.get(row * dim, dim) }.copy_from_slice(total);
        }
    }
}
