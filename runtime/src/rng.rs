//! Counter-based random numbers: Philox4x32-10 (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011).
//!
//! A stream is keyed by (seed, purpose, step, sample) and by nothing else, so that a value does not depend on the
//! device, the number of ranks or the order in which ranks ask.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// What a stream of random numbers is for; two purposes never share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Purpose(u32);

impl Purpose {
    /// The purpose of that name (a 32-bit FNV-1a hash of it).
    pub const fn new(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut hash = 0x811C_9DC5u32;
        let mut i = 0;
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
            i += 1;
        }
        Purpose(hash)
    }
}

/// One block of four numbers for (`counter`, `key`): ten Philox rounds.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// A stream of random numbers keyed by (seed, purpose, step, sample).
#[derive(Clone, Debug)]
pub struct Philox {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Philox {
    /// The stream for one sample of one step. `step` and `sample` count up to 2^32.
    pub fn new(seed: u64, purpose: Purpose, step: u32, sample: u32) -> Self {
        Philox {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [0, sample, step, purpose.0],
            block: [0; 4],
            used: 4,
        }
    }

    /// The key, for a kernel that draws the same numbers.
    pub fn key(&self) -> [u32; 2] {
        self.key
    }

    /// The counter of the next block of four numbers: that block's number, then what the stream is keyed by.
    pub fn counter(&self) -> [u32; 4] {
        self.counter
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox4x32_10(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Uniform in [0, 1): 24 random bits, each value exact in f32.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    /// Uniform in `0..n` without bias (Lemire's multiply and reject); 0 when `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        let threshold = n.wrapping_neg().checked_rem(n).unwrap_or(0);
        loop {
            let wide = u64::from(self.next_u32()) * u64::from(n);
            if wide as u32 >= threshold {
                return (wide >> 32) as u32;
            }
        }
    }

    /// Standard normal (Box-Muller, one of the pair; computed in f64, so the same on every machine's libm to f32).
    pub fn normal(&mut self) -> f32 {
        let radius = f64::from(self.next_u32() >> 8) + 1.0;
        let angle = f64::from(self.next_u32() >> 8);
        let scale = 1.0 / f64::from(1u32 << 24);
        ((-2.0 * (radius * scale).ln()).sqrt() * (std::f64::consts::TAU * angle * scale).cos()) as f32
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{absolute, assert_close};

    // Known answers of the reference implementation, Random123 (kat_vectors, philox4x32 10 rounds).
    #[test]
    fn philox_matches_random123() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn normal_has_unit_moments() {
        let mut rng = Philox::new(7, Purpose::new("test"), 0, 0);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..100_000 {
            let x = f64::from(rng.normal());
            sum += x;
            squares += x * x;
        }
        assert_close(sum / 1e5, 0.0, absolute(0.01));
        assert_close(squares / 1e5, 1.0, absolute(0.02));
    }

    #[test]
    fn streams_of_different_keys_differ_and_repeat() {
        let draw = |purpose, step, sample| {
            let mut stream = Philox::new(1, Purpose::new(purpose), step, sample);
            [stream.next_u32(), stream.next_u32()]
        };
        assert_eq!(draw("a", 0, 0), draw("a", 0, 0));
        assert_ne!(draw("a", 0, 0), draw("b", 0, 0));
        assert_ne!(draw("a", 0, 0), draw("a", 1, 0));
        assert_ne!(draw("a", 0, 0), draw("a", 0, 1));
    }
}
