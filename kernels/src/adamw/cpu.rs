//! AdamW on the CPU.

use super::{AdamW, Coefficients};
use crate::numeric::Float;
use crate::rows::BLOCK;
use bigmac_runtime::Context;

impl Coefficients {
    /// The new weight; the moments are updated.
    #[inline(always)]
    fn apply(&self, weight: f32, grad: f32, m: &mut f32, v: &mut f32) -> f32 {
        let g = grad * self.grad_scale;
        *m = (g - *m).mul_add(self.one_minus_beta[0], *m);
        *v = (self.one_minus_beta[1] * g).mul_add(g, self.beta2 * *v);
        let step = self.rate * *m / v.sqrt().mul_add(self.inverse_root, self.eps);
        weight.mul_add(self.keep, -step)
    }
}

/// One thread's share.
struct Block<'a, T> {
    param: &'a mut [T],
    master: Option<&'a mut [f32]>,
    grad: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

pub(super) fn update<T: Float<Acc = f32>>(
    ctx: &Context,
    adamw: AdamW,
    param: &mut [T],
    master: Option<&mut [f32]>,
    grad: &[f32],
    (m, v): (&mut [f32], &mut [f32]),
) {
    let coefficients = Coefficients::of(adamw);
    let mut masters = master.map(|master| master.chunks_mut(BLOCK));
    let mut blocks: Vec<_> = param
        .chunks_mut(BLOCK)
        .zip(grad.chunks(BLOCK))
        .zip(m.chunks_mut(BLOCK).zip(v.chunks_mut(BLOCK)))
        .map(|((param, grad), (m, v))| {
            let master = masters.as_mut().and_then(Iterator::next);
            Block { param, master, grad, m, v }
        })
        .collect();
    ctx.threads().chunks_mut(&mut blocks, 1, |_, blocks| {
        for block in blocks {
            block.update(coefficients);
        }
    });
}

impl<T: Float<Acc = f32>> Block<'_, T> {
    fn update(&mut self, c: Coefficients) {
        let moments = self.grad.iter().zip(self.m.iter_mut().zip(self.v.iter_mut()));
        match &mut self.master {
            None => {
                for (p, (&g, (m, v))) in self.param.iter_mut().zip(moments) {
                    *p = T::from_acc(c.apply(p.acc(), g, m, v));
                }
            }
            Some(master) => {
                for ((p, w), (&g, (m, v))) in self.param.iter_mut().zip(master.iter_mut()).zip(moments) {
                    *w = c.apply(*w, g, m, v);
                    *p = T::from_acc(*w);
                }
            }
        }
    }
}
