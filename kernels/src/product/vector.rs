//! The few vector instructions that the products are made of: AVX-512 where the build has it, arrays otherwise.

use crate::numeric::Real;

/// A number that products are computed in, with its vector type.
pub(crate) trait Scalar: Real {
    /// As many of them as the machine takes in one instruction.
    type Vector: Vector<Element = Self>;
}

/// A vector of [`Vector::LANES`] numbers.
pub(crate) trait Vector: Copy {
    /// The number.
    type Element: Real;
    /// How many.
    const LANES: usize;

    /// All lanes `x`.
    fn splat(x: Self::Element) -> Self;

    /// `self * a + b`.
    fn mul_add(self, a: Self, b: Self) -> Self;

    /// The sum of the lanes, always in the same order.
    fn sum(self) -> Self::Element;

    /// Reads the first `count` lanes, at most [`Vector::LANES`]; the others are 0.
    ///
    /// # Safety
    /// `count` elements are readable at `from`.
    unsafe fn load(from: *const Self::Element, count: usize) -> Self;

    /// Writes the first `count` lanes, at most [`Vector::LANES`].
    ///
    /// # Safety
    /// `count` elements are writable at `to`.
    unsafe fn store(self, to: *mut Self::Element, count: usize);

    /// Writes the transpose of `rows` x `cols` elements, each at most [`Vector::LANES`], to `to`.
    ///
    /// # Safety
    /// `rows` rows of `cols` elements are readable at `from`, `cols` rows of `rows` elements writable at `to`; the
    /// strides are those between rows.
    unsafe fn transpose(
        from: (*const Self::Element, usize),
        to: (*mut Self::Element, usize),
        rows: usize,
        cols: usize,
    ) {
        for j in 0..cols {
            for i in 0..rows {
                // SAFETY: i < rows and j < cols, which the caller says are readable and writable.
                unsafe { *to.0.add(j * to.1 + i) = *from.0.add(i * from.1 + j) };
            }
        }
    }
}

#[cfg(target_feature = "avx512f")]
mod machine {
    use super::{Scalar, Vector};
    use std::arch::x86_64::*;

    macro_rules! avx512 {
        ($t:ty, $v:ty, $mask:ty, $lanes:expr, $splat:ident, $fma:ident, $sum:ident, $load:ident, $maskload:ident, $store:ident,
         $maskstore:ident, { $($transpose:item)* }) => {
            impl Scalar for $t {
                type Vector = $v;
            }

            impl Vector for $v {
                type Element = $t;
                const LANES: usize = $lanes;

                #[inline(always)]
                fn splat(x: $t) -> Self {
                    // SAFETY: this module is only compiled for machines with AVX-512F.
                    unsafe { $splat(x) }
                }

                #[inline(always)]
                fn mul_add(self, a: Self, b: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $fma(self, a, b) }
                }

                #[inline(always)]
                fn sum(self) -> $t {
                    // SAFETY: as above.
                    unsafe { $sum(self) }
                }

                #[inline(always)]
                unsafe fn load(from: *const $t, count: usize) -> Self {
                    // SAFETY: the caller's; masked lanes are not read.
                    unsafe {
                        if count == $lanes { $load(from) } else { $maskload(!(!0 << count), from) }
                    }
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut $t, count: usize) {
                    // SAFETY: the caller's; masked lanes are not written.
                    unsafe {
                        if count == $lanes { $store(to, self) } else { $maskstore(to, !(!0 << count), self) }
                    }
                }

                $($transpose)*
            }
        };
    }

    avx512!(
        f32,
        __m512,
        __mmask16,
        16,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_reduce_add_ps,
        _mm512_loadu_ps,
        _mm512_maskz_loadu_ps,
        _mm512_storeu_ps,
        _mm512_mask_storeu_ps,
        {
            #[inline(always)]
            unsafe fn transpose(from: (*const f32, usize), to: (*mut f32, usize), rows: usize, cols: usize) {
                // SAFETY: the caller's: row i is read at i < rows only, and column j written at j < cols only.
                unsafe {
                    let row = |i: usize| {
                        if i < rows { Self::load(from.0.add(i * from.1), cols) } else { Self::splat(0.0) }
                    };
                    // quads[g][c], 128-bit lane l: column 4 l + c of rows 4 g..4 g + 4.
                    let quads: [[__m512; 4]; 4] = std::array::from_fn(|g| {
                        let r: [__m512; 4] = std::array::from_fn(|i| row(4 * g + i));
                        let (low, high) = (_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpackhi_ps(r[0], r[1]));
                        let (low2, high2) = (_mm512_unpacklo_ps(r[2], r[3]), _mm512_unpackhi_ps(r[2], r[3]));
                        let pd = |x| _mm512_castps_pd(x);
                        [
                            _mm512_castpd_ps(_mm512_unpacklo_pd(pd(low), pd(low2))),
                            _mm512_castpd_ps(_mm512_unpackhi_pd(pd(low), pd(low2))),
                            _mm512_castpd_ps(_mm512_unpacklo_pd(pd(high), pd(high2))),
                            _mm512_castpd_ps(_mm512_unpackhi_pd(pd(high), pd(high2))),
                        ]
                    });
                    let [first, second, third, fourth] = quads;
                    for c in 0..4 {
                        let even = _mm512_shuffle_f32x4::<0x88>(first[c], second[c]);
                        let even2 = _mm512_shuffle_f32x4::<0x88>(third[c], fourth[c]);
                        let odd = _mm512_shuffle_f32x4::<0xdd>(first[c], second[c]);
                        let odd2 = _mm512_shuffle_f32x4::<0xdd>(third[c], fourth[c]);
                        for (l, column) in [
                            _mm512_shuffle_f32x4::<0x88>(even, even2),
                            _mm512_shuffle_f32x4::<0x88>(odd, odd2),
                            _mm512_shuffle_f32x4::<0xdd>(even, even2),
                            _mm512_shuffle_f32x4::<0xdd>(odd, odd2),
                        ]
                        .into_iter()
                        .enumerate()
                        {
                            let j = 4 * l + c;
                            if j < cols {
                                column.store(to.0.add(j * to.1), rows);
                            }
                        }
                    }
                }
            }
        }
    );
    avx512!(
        f64,
        __m512d,
        __mmask8,
        8,
        _mm512_set1_pd,
        _mm512_fmadd_pd,
        _mm512_reduce_add_pd,
        _mm512_loadu_pd,
        _mm512_maskz_loadu_pd,
        _mm512_storeu_pd,
        _mm512_mask_storeu_pd,
        {}
    );
}

#[cfg(not(target_feature = "avx512f"))]
mod machine {
    use super::{Scalar, Vector};
    use crate::numeric::Real;

    /// 32 bytes of numbers, whose loops become vector code.
    #[derive(Clone, Copy)]
    pub(crate) struct Lanes<R, const N: usize>([R; N]);

    impl Scalar for f32 {
        type Vector = Lanes<f32, 8>;
    }

    impl Scalar for f64 {
        type Vector = Lanes<f64, 4>;
    }

    impl<R: Real, const N: usize> Vector for Lanes<R, N> {
        type Element = R;
        const LANES: usize = N;

        #[inline(always)]
        fn splat(x: R) -> Self {
            Lanes([x; N])
        }

        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            // Without a fused instruction mul_add would call a function per number.
            let fused = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
            Lanes(std::array::from_fn(|i| {
                if fused { self.0[i].mul_add(a.0[i], b.0[i]) } else { self.0[i] * a.0[i] + b.0[i] }
            }))
        }

        #[inline(always)]
        fn sum(mut self) -> R {
            let mut half = N / 2;
            while half > 0 {
                for i in 0..half {
                    self.0[i] += self.0[i + half];
                }
                half /= 2;
            }
            self.0[0]
        }

        #[inline(always)]
        unsafe fn load(from: *const R, count: usize) -> Self {
            // SAFETY: the caller's.
            unsafe {
                if count == N {
                    return Lanes(from.cast::<[R; N]>().read_unaligned());
                }
                Lanes(std::array::from_fn(|i| if i < count { *from.add(i) } else { R::ZERO }))
            }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut R, count: usize) {
            // SAFETY: the caller's.
            unsafe {
                if count == N {
                    to.cast::<[R; N]>().write_unaligned(self.0);
                } else {
                    std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, count);
                }
            }
        }
    }
}
