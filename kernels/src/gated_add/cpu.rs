//! Gated sums on the CPU: rows that lie one after the other.

use crate::numeric::{Float, Real};
use crate::rows::{map, rows_per_block};
use bigmac_runtime::Context;

/// `z = x + gate * y` per row.
pub(super) fn forward<T: Float>(ctx: &Context, x: &[T], gate: &[T], y: &[T], z: &mut [T]) {
    let (width, rows) = (gate.len(), rows_per_block(gate.len()));
    ctx.threads().chunks_mut(z, rows * width, |block, z| {
        let from = block * rows * width;
        let lines = x[from..].chunks_exact(width).zip(y[from..].chunks_exact(width));
        for ((x, y), z) in lines.zip(z.chunks_exact_mut(width)) {
            map([x, gate, y], z, |[x, gate, y]| gate.mul_add(y, x));
        }
    });
}

/// `dy = gate * dz` per row.
pub(super) fn gradient<T: Float>(ctx: &Context, gate: &[T], dz: &[T], dy: &mut [T]) {
    let (width, rows) = (gate.len(), rows_per_block(gate.len()));
    ctx.threads().chunks_mut(dy, rows * width, |block, dy| {
        let dz = &dz[block * rows * width..];
        for (dz, dy) in dz.chunks_exact(width).zip(dy.chunks_exact_mut(width)) {
            map([gate, dz], dy, |[gate, dz]| gate * dz);
        }
    });
}
