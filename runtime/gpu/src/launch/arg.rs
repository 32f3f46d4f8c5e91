//! Arguments of kernels.

use super::source::Parameter;
use super::tensor_map::TensorMap;
use crate::error::{GpuError, Result};
use std::ffi::c_void;

/// One argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// An address in device memory; a tensor's, or `NULL`.
    Pointer(u64),
    /// `i32`.
    I32(i32),
    /// `u32`.
    U32(u32),
    /// `i64`.
    I64(i64),
    /// `float`.
    F32(f32),
    /// `TensorMap`, from [`Gpu::tensor_map`](crate::Gpu::tensor_map).
    Map(TensorMap),
}

fn fit<N: Copy + std::fmt::Display, M: TryFrom<N>>(value: N, expected: &'static str) -> Result<M> {
    M::try_from(value).map_err(|_| GpuError::Argument { given: value.to_string(), expected })
}

impl Arg {
    /// An `i32` argument.
    ///
    /// # Errors
    /// [`GpuError::Argument`] when the value does not fit; so are those of the other integers.
    pub fn i32<N: Copy + std::fmt::Display>(value: N) -> Result<Arg>
    where
        i32: TryFrom<N>,
    {
        Ok(Arg::I32(fit(value, "i32")?))
    }

    /// A `u32` argument.
    pub fn u32<N: Copy + std::fmt::Display>(value: N) -> Result<Arg>
    where
        u32: TryFrom<N>,
    {
        Ok(Arg::U32(fit(value, "u32")?))
    }

    /// An `i64` argument.
    pub fn i64<N: Copy + std::fmt::Display>(value: N) -> Result<Arg>
    where
        i64: TryFrom<N>,
    {
        Ok(Arg::I64(fit(value, "i64")?))
    }

    /// A `float` argument, rounded.
    pub fn f32(value: f64) -> Arg {
        Arg::F32(value as f32)
    }

    /// A null pointer, by which a kernel knows that an optional tensor is absent.
    pub const NULL: Arg = Arg::Pointer(0);

    /// The parameter that this is an argument for.
    pub(crate) fn parameter(&self) -> Parameter {
        match self {
            Arg::Pointer(_) => Parameter::Pointer,
            Arg::I32(_) => Parameter::I32,
            Arg::U32(_) => Parameter::U32,
            Arg::I64(_) => Parameter::I64,
            Arg::F32(_) => Parameter::F32,
            Arg::Map(_) => Parameter::Map,
        }
    }

    /// Where the value lies.
    pub(crate) fn value(&self) -> *mut c_void {
        match self {
            Arg::Pointer(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Arg::I32(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Arg::U32(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Arg::I64(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Arg::F32(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Arg::Map(v) => std::ptr::from_ref(v).cast_mut().cast(),
        }
    }
}
