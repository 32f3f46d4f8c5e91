//! The order of samples: an endless stream of shuffled epochs, each place computed on its own.

use bigmac_runtime::rng::{Philox, Purpose};

/// Four rounds suffice for a pseudo-random permutation (Luby and Rackoff, 1988); more even out small domains.
const ROUNDS: u32 = 8;

/// The shuffled order of each epoch over `len` samples: a permutation keyed by (seed, purpose, epoch).
///
/// A Feistel network on the smallest even number of bits that holds `len`, walked until it lands below `len` (Black and
/// Rogaway, *Ciphers with arbitrary finite domains*, 2002): one place costs the same for ten samples as for a
/// thousand million, and nothing is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochOrder {
    seed: u64,
    purpose: Purpose,
    len: u32,
    half_bits: u32,
}

impl EpochOrder {
    /// The order of `len` samples (at most 2^32 - 1; 0 counts as 1) under `seed`, for `purpose`.
    pub fn new(seed: u64, purpose: Purpose, len: usize) -> Self {
        let len = u32::try_from(len).unwrap_or(u32::MAX).max(1);
        let bits = u32::BITS - (len - 1).leading_zeros();
        EpochOrder { seed, purpose, len, half_bits: bits.div_ceil(2).max(1) }
    }

    /// The sample at `place` of the endless stream: epoch `place / len`, shuffled again in each.
    pub fn at(&self, place: u64) -> usize {
        let epoch = (place / u64::from(self.len)) as u32;
        let mut value = (place % u64::from(self.len)) as u32;
        loop {
            value = self.feistel(epoch, value);
            if value < self.len {
                return value as usize;
            }
        }
    }

    fn feistel(&self, epoch: u32, value: u32) -> u32 {
        let mask = (1u32 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits & mask, value & mask);
        for round in 0..ROUNDS {
            // Halves have at most 16 bits, so that round and half share one word without meeting.
            let word = round << 16 | right;
            let mixed = Philox::new(self.seed, self.purpose, epoch, word).next_u32() & mask;
            (left, right) = (right, left ^ mixed);
        }
        left << self.half_bits | right
    }
}
