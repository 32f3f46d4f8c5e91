//! Choices of one try, all from its seed.

/// Random choices; the same seed makes the same ones everywhere.
pub struct Random(fastrand::Rng);

impl Random {
    /// Choices of try `index` of a run. Neighbouring seeds and tries have nothing in common.
    pub fn new(seed: u64, index: u64) -> Random {
        let mut mixed = fastrand::Rng::with_seed(seed);
        let first = mixed.u64(..);
        Random(fastrand::Rng::with_seed(first ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// A number below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.0.usize(..end) }
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// The place of one of a list.
    pub fn place<T>(&mut self, of: &[T]) -> usize {
        self.below(of.len())
    }

    /// How many mutations one try has: mostly one, since the first that is noticed hides the others.
    pub fn few(&mut self) -> usize {
        [1, 1, 1, 2, 2, 3][self.below(6)]
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.0.u8(..)
    }
}
