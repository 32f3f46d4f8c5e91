//! Tensors: shared storage, and a view of it.

use crate::context::Context;
use crate::copy::copy_strided;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::layout::{Dims, Layout};
use crate::memory::{Block, MemoryScope};
use bigmac_gpu::{Allocation, DriverError, Gpu};
use std::sync::{Arc, Mutex, PoisonError};

/// Shape and dtype of a tensor, without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Extents.
    pub shape: Dims,
    /// Element type.
    pub dtype: DType,
}

impl Spec {
    /// A spec of that shape and dtype.
    pub fn new(shape: &[usize], dtype: DType) -> Self {
        Spec { shape: Dims::from_slice(shape), dtype }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that a contiguous tensor of this spec takes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }
}

#[derive(Debug)]
enum Data {
    Cpu(Block),
    Gpu(Allocation),
    /// No values: for planning.
    ShapeOnly,
}

/// Memory that one or more tensors view; counted once, under one scope.
#[derive(Debug)]
struct Storage {
    data: Data,
    bytes: usize,
    /// `None` for a shape-only storage, which takes no memory.
    scope: Option<Mutex<MemoryScope>>,
}

impl Data {
    fn allocate(ctx: &Context, bytes: usize) -> Result<Data> {
        let Some(gpu) = ctx.gpu() else {
            return ctx.memory().allocate(bytes, ctx.scope()).map(Data::Cpu);
        };
        match gpu.allocate(bytes) {
            Ok(allocation) => Ok(Data::Gpu(allocation)),
            Err(DriverError::OutOfMemory(_)) => Err(ctx.memory().out_of_memory(bytes, ctx.scope())),
            Err(error) => Err(gpu.error("allocate", error).into()),
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Some(scope) = &self.scope {
            scope.lock().unwrap_or_else(PoisonError::into_inner).release(self.bytes);
        }
    }
}

/// A strided view of a shared storage.
#[derive(Clone, Debug)]
pub struct Tensor {
    storage: Arc<Storage>,
    layout: Layout,
    dtype: DType,
}

impl Tensor {
    /// A contiguous tensor whose values are whatever the memory held: write every element before reading one.
    ///
    /// # Errors
    /// [`Error::Budget`] or [`Error::OutOfMemory`].
    pub fn empty(ctx: &Context, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let layout = Layout::contiguous(shape);
        let bytes = layout.len() * dtype.size();
        ctx.scope().charge(bytes)?;
        let data = Data::allocate(ctx, bytes).inspect_err(|_| ctx.scope().release(bytes))?;
        let scope = Some(Mutex::new(ctx.scope().clone()));
        Ok(Tensor { storage: Arc::new(Storage { data, bytes, scope }), layout, dtype })
    }

    /// A contiguous tensor of zeros.
    pub fn zeros(ctx: &Context, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let mut tensor = Tensor::empty(ctx, shape, dtype)?;
        match tensor.allocation() {
            Some((gpu, address)) => {
                let bytes = tensor.len() * dtype.size();
                if bytes > 0 {
                    gpu.driver().fill(address, 0, bytes).map_err(|e| gpu.error("zeros", e))?;
                }
            }
            None => tensor.bytes_mut("zeros")?.fill(0),
        }
        Ok(tensor)
    }

    /// A contiguous tensor with a copy of `values`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of values is not the shape's; else as [`Tensor::empty`].
    pub fn from_slice<T: Element>(ctx: &Context, values: &[T], shape: &[usize]) -> Result<Tensor> {
        if values.len() != shape.iter().product::<usize>() {
            return Err(Error::shape("from_slice", shape, format!("a shape of {} elements", values.len())));
        }
        Tensor::from_bytes(ctx, bytemuck::cast_slice(values), &Spec::new(shape, T::DTYPE))
    }

    /// A tensor that has a shape and no values, for planning: it takes no memory, and its [`Tensor::storage_bytes`] are
    /// those that a real one would take.
    pub fn shape_only(spec: &Spec) -> Tensor {
        let storage = Storage { data: Data::ShapeOnly, bytes: spec.bytes(), scope: None };
        Tensor { storage: Arc::new(storage), layout: Layout::contiguous(&spec.shape), dtype: spec.dtype }
    }

    /// A view of this shape-only tensor's storage with another shape, as an operator predicts its output.
    ///
    /// # Errors
    /// [`Error::Argument`] for a tensor that has values: those are viewed through [`Tensor::reshape`] and the like.
    pub fn shape_only_view(&self, spec: &Spec) -> Result<Tensor> {
        if !self.is_shape_only() {
            return Err(Error::argument(
                "shape_only_view",
                "expected a shape-only tensor, got one with values",
            ));
        }
        let (storage, layout) = (self.storage.clone(), Layout::contiguous(&spec.shape));
        Ok(Tensor { storage, layout, dtype: spec.dtype })
    }

    /// True when the tensor has a shape and no values.
    pub fn is_shape_only(&self) -> bool {
        matches!(self.storage.data, Data::ShapeOnly)
    }

    /// Extents.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// Strides, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.layout.strides
    }

    /// The layout of the view.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape and dtype.
    pub fn spec(&self) -> Spec {
        Spec { shape: self.layout.shape.clone(), dtype: self.dtype }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.layout.len()
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True when the view is row-major without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// Bytes of the whole storage that this tensor keeps alive.
    pub fn storage_bytes(&self) -> usize {
        self.storage.bytes
    }

    /// An identity of the storage, good while some tensor holds it: views of one storage have the same.
    pub fn storage_id(&self) -> usize {
        Arc::as_ptr(&self.storage) as usize
    }

    /// How many tensors hold this storage.
    pub(crate) fn owners(&self) -> usize {
        Arc::strong_count(&self.storage)
    }

    /// The GPU that the storage lies on, and the address where it begins.
    pub(crate) fn allocation(&self) -> Option<(&Gpu, u64)> {
        match &self.storage.data {
            Data::Gpu(allocation) => Some((allocation.gpu(), allocation.address())),
            _ => None,
        }
    }

    /// True when no other tensor holds this storage.
    pub fn is_unshared(&self) -> bool {
        self.owners() == 1
    }

    /// True when the view covers its whole storage, so that holding it holds nothing else alive.
    pub fn is_whole(&self) -> bool {
        self.is_contiguous() && self.len() * self.dtype.size() == self.storage.bytes
    }

    /// Counts the storage under another scope from now on, as when a message changes hands.
    ///
    /// # Errors
    /// [`Error::Budget`] when the new scope has no room; then nothing has changed.
    pub fn move_to_scope(&self, scope: &MemoryScope) -> Result<()> {
        if let Some(held) = &self.storage.scope {
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            if !held.same(scope) {
                scope.charge(self.storage.bytes)?;
                held.release(self.storage.bytes);
                *held = scope.clone();
            }
        }
        Ok(())
    }

    fn check_dtype<T: Element>(&self, op: &'static str) -> Result<()> {
        if T::DTYPE == self.dtype {
            return Ok(());
        }
        Err(Error::DType { op, given: self.dtype, wanted: T::DTYPE.to_string() })
    }

    pub(crate) fn check_contiguous(&self, op: &'static str) -> Result<()> {
        if self.is_contiguous() {
            return Ok(());
        }
        Err(Error::NotContiguous { op, shape: self.shape().to_vec(), strides: self.strides().to_vec() })
    }

    /// The storage's elements from the view's first one to the storage's end; index them with [`Tensor::strides`].
    ///
    /// # Errors
    /// [`Error::DType`], [`Error::NoValues`].
    pub fn as_strided_slice<T: Element>(&self) -> Result<&[T]> {
        self.check_dtype::<T>("as_strided_slice")?;
        let all: &[T] = bytemuck::cast_slice(self.storage_on_host("as_strided_slice")?);
        Ok(&all[self.layout.offset.min(all.len())..])
    }

    /// All bytes of a storage on the CPU.
    fn storage_on_host(&self, op: &'static str) -> Result<&[u8]> {
        match &self.storage.data {
            Data::Cpu(block) => Ok(&block.bytes()[..self.storage.bytes]),
            Data::Gpu(_) => Err(self.not_on_host(op)),
            Data::ShapeOnly => Err(Error::NoValues { op }),
        }
    }

    /// The elements of a contiguous view.
    ///
    /// # Errors
    /// [`Error::DType`], [`Error::NotContiguous`], [`Error::NoValues`].
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        self.check_contiguous("as_slice")?;
        Ok(&self.as_strided_slice::<T>()?[..self.len()])
    }

    /// The elements of a contiguous view, to be written; only while no other tensor holds the storage.
    ///
    /// # Errors
    /// [`Error::DType`], [`Error::NotContiguous`], [`Error::NoValues`], [`Error::Shared`].
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        self.check_dtype::<T>("as_mut_slice")?;
        Ok(bytemuck::cast_slice_mut(self.bytes_mut("as_mut_slice")?))
    }

    fn bytes_mut(&mut self, op: &'static str) -> Result<&mut [u8]> {
        self.check_contiguous(op)?;
        let size = self.dtype.size();
        let (start, len) = (self.layout.offset * size, self.len() * size);
        if self.allocation().is_some() {
            return Err(self.not_on_host(op));
        }
        let owners = self.owners();
        let storage = Arc::get_mut(&mut self.storage).ok_or(Error::Shared { op, owners })?;
        match &mut storage.data {
            Data::Cpu(block) => Ok(&mut block.bytes_mut()[start..start + len]),
            Data::Gpu(_) | Data::ShapeOnly => Err(Error::NoValues { op }),
        }
    }

    /// The bytes of a contiguous view, as they are written to files.
    ///
    /// # Errors
    /// [`Error::NotContiguous`], [`Error::NoValues`].
    pub fn as_bytes(&self) -> Result<&[u8]> {
        self.check_contiguous("as_bytes")?;
        let (all, size) = (self.storage_on_host("as_bytes")?, self.dtype.size());
        // A view without elements may begin after the end.
        let start = (self.layout.offset * size).min(all.len());
        Ok(&all[start..start + self.len() * size])
    }

    /// The bytes of a contiguous view, to be written; only while no other tensor holds the storage.
    ///
    /// # Errors
    /// As [`Tensor::as_mut_slice`], whatever the dtype.
    pub fn as_mut_bytes(&mut self) -> Result<&mut [u8]> {
        self.bytes_mut("as_mut_bytes")
    }

    /// A contiguous tensor with a copy of `bytes`, which are the elements in this machine's order (little-endian).
    ///
    /// # Errors
    /// [`Error::Shape`] when there are too many or too few; else as [`Tensor::empty`].
    pub fn from_bytes(ctx: &Context, bytes: &[u8], spec: &Spec) -> Result<Tensor> {
        if bytes.len() != spec.bytes() {
            return Err(Error::shape("from_bytes", &spec.shape, format!("a shape of {} bytes", bytes.len())));
        }
        let mut tensor = Tensor::empty(ctx, &spec.shape, spec.dtype)?;
        match tensor.allocation() {
            Some((gpu, address)) => {
                gpu.driver().upload(address, bytes).map_err(|e| gpu.error("from_bytes", e))?;
            }
            None => tensor.bytes_mut("from_bytes")?.copy_from_slice(bytes),
        }
        Ok(tensor)
    }

    /// This tensor when it is contiguous, else a contiguous copy.
    pub fn contiguous(&self, ctx: &Context) -> Result<Tensor> {
        if self.is_contiguous() { Ok(self.clone()) } else { self.copy(ctx) }
    }

    /// A contiguous copy in a storage of its own.
    pub fn copy(&self, ctx: &Context) -> Result<Tensor> {
        if self.is_shape_only() {
            return Ok(Tensor::shape_only(&self.spec()));
        }
        let mut out = Tensor::empty(ctx, self.shape(), self.dtype)?;
        match (self.allocation(), out.allocation()) {
            (Some((gpu, from)), Some((other, to))) if gpu.same(other) => {
                return copy_strided(gpu, &self.layout, self.dtype.size(), from, to).map(|()| out);
            }
            (None, None) => {}
            _ => return Err(self.not_on_device("copy", ctx.device())),
        }
        match self.dtype.size() {
            8 => self.copy_elements::<u64>(&mut out),
            4 => self.copy_elements::<u32>(&mut out),
            2 => self.copy_elements::<u16>(&mut out),
            _ => self.copy_elements::<u8>(&mut out),
        }?;
        Ok(out)
    }

    /// Copies elements of the size of `W`, whatever they mean.
    fn copy_elements<W: bytemuck::Pod>(&self, out: &mut Tensor) -> Result<()> {
        let from: &[W] = bytemuck::cast_slice(self.storage_on_host("copy")?);
        let to: &mut [W] = bytemuck::cast_slice_mut(out.bytes_mut("copy")?);
        let [row, stride] = [self.shape(), self.strides()].map(|dims| dims.last().copied().unwrap_or(1));
        let mut written = 0;
        self.layout.for_each_row(|at| {
            let to = &mut to[written..written + row];
            if stride == 1 {
                to.copy_from_slice(&from[at..at + row]);
            } else {
                for (i, to) in to.iter_mut().enumerate() {
                    *to = from[at + i * stride];
                }
            }
            written += row;
        });
        Ok(())
    }

    fn with_layout(&self, layout: Layout) -> Tensor {
        Tensor { storage: self.storage.clone(), layout, dtype: self.dtype }
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when the numbers of elements differ, [`Error::NotContiguous`] for a strided view.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if shape.iter().product::<usize>() != self.len() {
            return Err(Error::shape("reshape", (self.shape(), shape), "as many elements after as before"));
        }
        self.check_contiguous("reshape")?;
        Ok(self.with_layout(Layout { offset: self.layout.offset, ..Layout::contiguous(shape) }))
    }

    /// The slice `start..start + len` of dimension `dim`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the dimension or the range is not in the shape.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Tensor> {
        let extent = self.shape().get(dim).copied().unwrap_or(0);
        if dim >= self.shape().len() || start.checked_add(len).is_none_or(|end| end > extent) {
            let wanted = format!("a dimension {dim} that holds {start}..{}", start.saturating_add(len));
            return Err(Error::shape("narrow", self.shape(), wanted));
        }
        let mut layout = self.layout.clone();
        layout.shape[dim] = len;
        layout.offset += start * layout.strides[dim];
        Ok(self.with_layout(layout))
    }

    /// The view with dimensions `a` and `b` exchanged.
    ///
    /// # Errors
    /// [`Error::Shape`] when one of them does not exist.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor> {
        if a.max(b) >= self.shape().len() {
            return Err(Error::shape("transpose", self.shape(), format!("dimensions {a} and {b}")));
        }
        let mut layout = self.layout.clone();
        layout.shape.swap(a, b);
        layout.strides.swap(a, b);
        Ok(self.with_layout(layout))
    }

    /// The view whose dimension `d` is this one's dimension `order[d]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `order` is not a permutation of the dimensions.
    pub fn permute(&self, order: &[usize]) -> Result<Tensor> {
        let mut seen = Dims::from_slice(order);
        seen.sort_unstable();
        if seen.len() != self.shape().len() || seen.iter().enumerate().any(|(i, &d)| i != d) {
            return Err(Error::shape("permute", self.shape(), format!("dimensions {order:?}")));
        }
        let pick = |from: &Dims| order.iter().map(|&d| from[d]).collect();
        let layout = Layout {
            shape: pick(&self.layout.shape),
            strides: pick(&self.layout.strides),
            offset: self.layout.offset,
        };
        Ok(self.with_layout(layout))
    }
}
