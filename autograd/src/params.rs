//! A module's parameters and the flat buffer of their gradients.

use bigmac_kernels::WeightGrad;
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};
use std::collections::HashMap;
use std::ops::Range;

/// Number of a parameter in its module's [`Parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(usize);

/// One parameter: its weight, whether it learns, and where its gradient lies in the flat buffer.
#[derive(Clone, Debug)]
pub struct Parameter {
    name: String,
    tensor: Tensor,
    trainable: bool,
    range: Range<usize>,
}

impl Parameter {
    /// The parameter's name, as in the checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The weight.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The weight, to be changed by an optimizer; its shape must stay.
    pub fn tensor_mut(&mut self) -> &mut Tensor {
        &mut self.tensor
    }

    /// False when it is frozen.
    pub fn trainable(&self) -> bool {
        self.trainable
    }

    /// Where its elements lie in a flat buffer over what learns of the module (gradients, moments, masters). It starts
    /// at a multiple of [`Parameters::ALIGNMENT`], and is empty for a frozen parameter, which has no place there.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

/// The parameters of one module, in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    list: Vec<Parameter>,
    by_name: HashMap<String, ParamId>,
    elements: usize,
}

impl Parameters {
    /// What the ranges of parameters in flat buffers start at multiples of, in elements: 256 bytes of F32, which every
    /// wide access and the tensor memory accelerator of a GPU ask less than. The elements in between are zeros.
    pub const ALIGNMENT: usize = 64;

    /// No parameters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a contiguous float tensor as a parameter.
    ///
    /// # Errors
    /// [`Error::Argument`] when the name is taken or the tensor is not a contiguous float tensor.
    pub fn add(&mut self, name: impl Into<String>, tensor: Tensor, trainable: bool) -> Result<ParamId> {
        let name = name.into();
        if !tensor.dtype().is_float() || !tensor.is_contiguous() {
            return Err(Error::argument("parameters", format!("'{name}' is not a contiguous float tensor")));
        }
        let id = ParamId(self.list.len());
        if self.by_name.insert(name.clone(), id).is_some() {
            return Err(Error::argument("parameters", format!("two parameters are named '{name}'")));
        }
        let range = place(&mut self.elements, trainable, tensor.len());
        self.list.push(Parameter { name, tensor, trainable, range });
        Ok(id)
    }

    /// The weight of a parameter of this module.
    pub fn get(&self, id: ParamId) -> &Tensor {
        &self.list[id.0].tensor
    }

    /// The weight, to be changed by an optimizer or a loader; its shape must stay.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Tensor {
        &mut self.list[id.0].tensor
    }

    /// The whole parameter.
    pub fn parameter(&self, id: ParamId) -> &Parameter {
        &self.list[id.0]
    }

    /// The parameter of that name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.by_name.get(name).copied()
    }

    /// Every parameter with its number, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Parameter)> {
        self.list.iter().enumerate().map(|(i, p)| (ParamId(i), p))
    }

    /// Every parameter, in order, to be changed by an optimizer.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        self.list.iter_mut()
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The length of a flat buffer over all parameters that learn, in elements: theirs, and the zeros between them.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Freezes or unfreezes every parameter. Flat buffers that were made before do not fit any more.
    pub fn set_trainable(&mut self, trainable: bool) {
        self.elements = 0;
        for p in &mut self.list {
            p.trainable = trainable;
            p.range = place(&mut self.elements, trainable, p.tensor.len());
        }
    }

    /// True when some parameter learns.
    pub fn any_trainable(&self) -> bool {
        self.list.iter().any(|p| p.trainable)
    }

    /// The same parameters without values, for planning.
    pub fn shape_only(&self) -> Parameters {
        let strip = |p: &Parameter| Parameter { tensor: Tensor::shape_only(&p.tensor.spec()), ..p.clone() };
        Parameters {
            list: self.list.iter().map(strip).collect(),
            by_name: self.by_name.clone(),
            elements: self.elements,
        }
    }
}

/// The place of the next parameter of `len` elements in flat buffers that have `elements` so far.
fn place(elements: &mut usize, trainable: bool, len: usize) -> Range<usize> {
    if !trainable {
        return 0..0;
    }
    let start = elements.next_multiple_of(Parameters::ALIGNMENT);
    *elements = start + len;
    start..*elements
}

/// The gradients of a module's parameters in one flat buffer: F32, or F64 for F64 parameters. What is frozen has no
/// place in it.
///
/// The first gradient of a step is written, later ones are added, so no pass over the buffer clears it. Between
/// parameters it is zero from the beginning, and nothing writes there: sums over the whole buffer are those over the
/// gradients.
#[derive(Debug)]
pub struct Gradients {
    flat: Tensor,
    ranges: Vec<Range<usize>>,
    written: Vec<bool>,
}

impl Gradients {
    /// A buffer for `parameters`, allocated in the context's scope; without values where they have none.
    ///
    /// # Errors
    /// Those of allocation.
    pub fn new(ctx: &Context, parameters: &Parameters) -> Result<Self> {
        let f64s = parameters.iter().any(|(_, p)| p.tensor.dtype() == DType::F64);
        let spec = Spec::new(&[parameters.elements()], if f64s { DType::F64 } else { DType::F32 });
        let planned = parameters.iter().any(|(_, p)| p.tensor.is_shape_only());
        Ok(Gradients {
            flat: if planned {
                Tensor::shape_only(&spec)
            } else {
                Tensor::zeros(ctx, &spec.shape, spec.dtype)?
            },
            ranges: parameters.iter().map(|(_, p)| p.range()).collect(),
            written: vec![false; parameters.len()],
        })
    }

    /// Starts a new step: what is there now will be overwritten.
    pub fn begin_step(&mut self) {
        self.written.fill(false);
    }

    /// Where to write or add the gradient of a parameter, which is weight number `weight` of an operator.
    pub fn sink(&mut self, id: ParamId, weight: usize) -> WeightGrad<'_> {
        let accumulate = std::mem::replace(&mut self.written[id.0], true);
        WeightGrad { weight, buffer: &mut self.flat, range: self.ranges[id.0].clone(), accumulate }
    }

    /// Overwrites the gradient of a parameter with `values`, one per element, in the buffer's dtype.
    ///
    /// # Errors
    /// Those of [`Tensor::write`].
    pub fn replace(&mut self, ctx: &Context, id: ParamId, values: &Tensor) -> Result<()> {
        let sink = self.sink(id, 0);
        if sink.range.len() != values.len() {
            let wanted = format!("{} values", sink.range.len());
            return Err(Error::shape("gradient", values.shape(), wanted));
        }
        sink.buffer.write(ctx, sink.range.start, values)
    }

    /// Ends a step: gradients that nothing was written to become zero.
    ///
    /// # Errors
    /// [`Error::Shared`] when someone still holds the buffer.
    pub fn finish_step(&mut self) -> Result<()> {
        for (range, written) in self.ranges.iter().zip(&mut self.written) {
            if !std::mem::replace(written, true) && !range.is_empty() {
                self.flat.clear(range.clone())?;
            }
        }
        Ok(())
    }

    /// The whole buffer.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// The whole buffer, to be reduced over ranks or scaled.
    pub fn flat_mut(&mut self) -> &mut Tensor {
        &mut self.flat
    }

    /// The gradient of one parameter as a flat view; empty for a frozen one.
    ///
    /// # Errors
    /// None for a parameter of this module.
    pub fn view(&self, id: ParamId) -> Result<Tensor> {
        let range = &self.ranges[id.0];
        self.flat.narrow(0, range.start, range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_aligned_and_what_lies_between_stays_zero() {
        let ctx = Context::cpu(0, 1).unwrap();
        for (dtype, of_gradients) in
            [(DType::F32, DType::F32), (DType::BF16, DType::F32), (DType::F64, DType::F64)]
        {
            let lengths = [7, 64, 1, 65, 128, 3];
            let mut parameters = Parameters::new();
            let ids = lengths.map(|len| {
                let tensor = Tensor::zeros(&ctx, &[len], dtype).unwrap();
                parameters.add(format!("p{}", parameters.len()), tensor, true).unwrap()
            });
            let starts: Vec<usize> = parameters.iter().map(|(_, p)| p.range().start).collect();
            assert_eq!(starts, [0, 64, 128, 192, 320, 448]);
            assert!(ids.iter().zip(lengths).all(|(&id, len)| parameters.parameter(id).range().len() == len));
            assert_eq!((parameters.elements(), parameters.shape_only().elements()), (451, 451));

            let mut gradients = Gradients::new(&ctx, &parameters).unwrap();
            assert_eq!((gradients.flat().shape(), gradients.flat().dtype()), (&[451][..], of_gradients));
            for step in 0..2 {
                gradients.begin_step();
                // The last one gets no gradient, which makes it zero.
                for (&id, len) in ids.iter().zip(lengths).take(5) {
                    let values = vec![1.5_f64; len];
                    let values = Tensor::from_slice(&ctx, &values, &[len]).unwrap();
                    let values = bigmac_kernels::cast::cast(&ctx, &values, of_gradients).unwrap();
                    gradients.replace(&ctx, id, &values).unwrap();
                }
                gradients.finish_step().unwrap();
                let flat = bigmac_kernels::cast::cast(&ctx, gradients.flat(), DType::F64).unwrap();
                let inside =
                    |at: usize| ids[..5].iter().any(|&id| parameters.parameter(id).range().contains(&at));
                for (at, &value) in flat.as_slice::<f64>().unwrap().iter().enumerate() {
                    assert_eq!(
                        value,
                        if inside(at) { 1.5 } else { 0.0 },
                        "{dtype:?}, step {step}, element {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_frozen_has_no_place() {
        let ctx = Context::cpu(0, 1).unwrap();
        let mut parameters = Parameters::new();
        for (len, trainable) in [(7, false), (64, true), (100, false), (3, true), (5, false)] {
            let tensor = Tensor::zeros(&ctx, &[len], DType::F32).unwrap();
            parameters.add(format!("p{}", parameters.len()), tensor, trainable).unwrap();
        }
        let ranges = |parameters: &Parameters| parameters.iter().map(|(_, p)| p.range()).collect::<Vec<_>>();
        assert_eq!(ranges(&parameters), [0..0, 0..64, 0..0, 64..67, 0..0]);
        let gradients = Gradients::new(&ctx, &parameters).unwrap();
        assert_eq!((parameters.elements(), gradients.flat().len()), (67, 67));
        let lengths: Vec<usize> =
            parameters.iter().map(|(id, _)| gradients.view(id).unwrap().len()).collect();
        assert_eq!(lengths, [0, 64, 0, 3, 0]);

        parameters.set_trainable(true);
        assert_eq!(ranges(&parameters), [0..7, 64..128, 128..228, 256..259, 320..325]);
        assert_eq!(parameters.elements(), 325);
        parameters.set_trainable(false);
        assert!(ranges(&parameters).iter().all(Range::is_empty));
        let mut gradients = Gradients::new(&ctx, &parameters).unwrap();
        gradients.begin_step();
        gradients.finish_step().unwrap();
        assert_eq!(gradients.flat().len(), 0);
    }
}
