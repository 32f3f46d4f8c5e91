//! Softmax of rows that come in pieces.

use crate::numeric::Real;
use std::array::from_fn;

/// Numbers to a step: the compiler keeps them in vector registers.
pub(crate) const STEP: usize = 16;

/// Maximum and sum of exponentials of what was seen of a row (Milakov and Gimelshein, arXiv 1805.02867).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running<R> {
    max: R,
    sum: R,
}

impl<R: Real> Running<R> {
    /// Nothing seen.
    pub(crate) const NOTHING: Self = Running { max: R::NEG_INFINITY, sum: R::ZERO };

    /// Takes in a piece, and makes it exponentials relative to the largest number so far. Returns the factor that makes
    /// what was computed from earlier pieces relative to that too. Minus infinity stands for no number.
    ///
    /// Number i of a piece always goes to the same lane, and lanes are summed in pairs: a fixed order.
    pub(crate) fn absorb(&mut self, piece: &mut [R]) -> R {
        let (steps, rest) = piece.as_chunks_mut::<STEP>();
        let mut largest = [self.max; STEP];
        for step in steps.iter() {
            largest = from_fn(|i| largest[i].max(step[i]));
        }
        let mut new = self.max;
        for &x in largest.iter().chain(rest.iter()) {
            new = new.max(x);
        }
        if new == R::NEG_INFINITY {
            piece.fill(R::ZERO);
            return R::ONE;
        }
        let mut sums = [R::ZERO; STEP];
        for step in steps {
            *step = from_fn(|i| (step[i] - new).exp());
            sums = from_fn(|i| sums[i] + step[i]);
        }
        for (x, sum) in rest.iter_mut().zip(&mut sums) {
            *x = (*x - new).exp();
            *sum += *x;
        }
        let mut half = STEP / 2;
        while half > 0 {
            for i in 0..half {
                let other = sums[i + half];
                sums[i] += other;
            }
            half /= 2;
        }
        let factor = (self.max - new).exp();
        *self = Running { max: new, sum: self.sum * factor + sums[0] };
        factor
    }

    /// What exponentials relative to the maximum are multiplied by to make them probabilities; 0 when nothing was seen.
    pub(crate) fn inverse(&self) -> R {
        if self.sum > R::ZERO { R::ONE / self.sum } else { R::ZERO }
    }

    /// The logarithm of the sum of exponentials; minus infinity when nothing was seen.
    pub(crate) fn log_sum_exp(&self) -> R {
        if self.sum > R::ZERO { self.max + self.sum.ln() } else { R::NEG_INFINITY }
    }
}

/// Makes scores probabilities, given the logarithm of their sum of exponentials. Minus infinity becomes 0.
pub(crate) fn probabilities<R: Real>(scores: &mut [R], log_sum_exp: R) {
    if log_sum_exp == R::NEG_INFINITY {
        scores.fill(R::ZERO);
        return;
    }
    let (steps, rest) = scores.as_chunks_mut::<STEP>();
    for step in steps {
        *step = from_fn(|i| (step[i] - log_sum_exp).exp());
    }
    for x in rest {
        *x = (*x - log_sum_exp).exp();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{absolute, assert_close};

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let row: Vec<f64> = crate::check::random(&[70], 1).iter().map(|x| x * 5.0).collect();
        let wanted = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        for piece in [1, 3, 16, 33, 70] {
            let mut running = Running::NOTHING;
            assert_eq!(running.absorb(&mut [f64::NEG_INFINITY; 3]), 1.0);
            assert_eq!((running.inverse(), running.log_sum_exp()), (0.0, f64::NEG_INFINITY));
            let mut seen: Vec<f64> = Vec::new();
            for piece in row.chunks(piece) {
                let mut piece = piece.to_vec();
                let factor = running.absorb(&mut piece);
                seen.iter_mut().for_each(|x| *x *= factor);
                seen.extend(piece);
            }
            assert_close(running.log_sum_exp(), wanted, absolute(1e-13));
            let mut direct = row.clone();
            probabilities(&mut direct, wanted);
            for (a, b) in seen.iter().zip(&direct) {
                assert_close(a * running.inverse(), *b, absolute(1e-14));
            }
        }
    }

    #[test]
    fn nothing_seen_gives_no_probability() {
        let mut scores = [1.0f32, f32::NEG_INFINITY];
        probabilities(&mut scores, f32::NEG_INFINITY);
        assert_eq!(scores, [0.0, 0.0]);
    }
}
