//! The learning rate over a run.

use crate::config::Train;

/// Learning rate of `step` (from 0): linear warm-up, then half a cosine down to `final_lr` of the largest.
///
/// ```
/// use bigmac::train::learning_rate;
/// use bigmac_close::{absolute, assert_close};
///
/// let train = bigmac::config::Train { lr: 1.0, warmup: 10, steps: 110, final_lr: 0.1, ..Default::default() };
/// assert_close(learning_rate(&train, 0), 0.1, absolute(1e-12));
/// assert_close(learning_rate(&train, 9), 1.0, absolute(1e-12));
/// assert_close(learning_rate(&train, 60), 0.55, absolute(1e-12));
/// assert_close(learning_rate(&train, 110), 0.1, absolute(1e-12));
/// ```
pub fn learning_rate(train: &Train, step: u64) -> f64 {
    if step < train.warmup {
        return train.lr * (step + 1) as f64 / train.warmup as f64;
    }
    let length = train.steps.saturating_sub(train.warmup).max(1) as f64;
    let progress = ((step - train.warmup) as f64 / length).min(1.0);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
    train.lr * (train.final_lr + (1.0 - train.final_lr) * cosine)
}
