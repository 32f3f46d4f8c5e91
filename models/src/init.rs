//! What parameters a module has, and their first values.
//!
//! A model lists its parameters as [`ParameterSpec`]s. The list makes [`Parameters`] with random values ([`random`]),
//! with shapes alone for planning ([`shape_only`]) or with a checkpoint's values ([`crate::weights`]), and the model
//! finds its parameters in them by name. Random values depend on (seed, name) and on nothing else, so a model starts
//! from the same weights however it is cut into stages.
//!
//! Matrices start normal with standard deviation 1/sqrt(fan-in), which keeps activations at unit scale for any width
//! (LeCun et al., *Efficient BackProp*, 1998); the last matrix of each residual branch is divided by sqrt(number of
//! branches) so that the residual stream does not grow with depth (Radford et al., *Language Models are Unsupervised
//! Multitask Learners*, 2019, section 2.3). Biases start at zero, norms at one.

use bigmac_autograd::{ParamId, Parameters};
use bigmac_kernels::{Float, Real, for_float};
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

/// Elements that share one stream of random numbers: enough to spread a large matrix over threads.
const BLOCK: usize = 4096;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zero: biases, and layers whose output starts at zero.
    Zeros,
    /// All one: norm weights.
    Ones,
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
}

/// One parameter of a module: name, shape, first values.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// Name within the module, as its checkpoint format has it.
    pub name: String,
    /// Shape that is computed with.
    pub shape: Vec<usize>,
    /// First values.
    pub init: Init,
    /// False for a parameter that is kept because checkpoints have it, and takes no part in training.
    pub trainable: bool,
    /// Shape in the checkpoint; differs from `shape` where a convolution is computed as a matrix product.
    pub file_shape: Vec<usize>,
    /// The name whose values this parameter starts from or is loaded from: its own, unless it is a copy of a parameter
    /// on another stage.
    pub source: String,
}

impl ParameterSpec {
    /// A parameter with first values `init`.
    pub fn new(name: impl Into<String>, shape: &[usize], init: Init) -> Self {
        let (name, shape) = (name.into(), shape.to_vec());
        let (file_shape, source) = (shape.clone(), name.clone());
        ParameterSpec { name, shape, init, trainable: true, file_shape, source }
    }

    /// A parameter that starts at zero.
    pub fn zeros(name: impl Into<String>, shape: &[usize]) -> Self {
        Self::new(name, shape, Init::Zeros)
    }

    /// A parameter that starts at one.
    pub fn ones(name: impl Into<String>, shape: &[usize]) -> Self {
        Self::new(name, shape, Init::Ones)
    }

    /// The matrix `[outputs, inputs]` of a linear layer, normal with standard deviation 1/sqrt(inputs).
    pub fn matrix(name: impl Into<String>, outputs: usize, inputs: usize) -> Self {
        Self::new(name, &[outputs, inputs], Init::Normal { std: (inputs.max(1) as f64).powf(-0.5) })
    }

    /// As [`ParameterSpec::matrix`], for the last matrix of a residual branch in a network of `branches` of them.
    pub fn residual(name: impl Into<String>, outputs: usize, inputs: usize, branches: usize) -> Self {
        let std = ((inputs * branches).max(1) as f64).powf(-0.5);
        Self::new(name, &[outputs, inputs], Init::Normal { std })
    }

    /// The same parameter, of another shape in the checkpoint.
    pub fn in_file(self, shape: &[usize]) -> Self {
        ParameterSpec { file_shape: shape.to_vec(), ..self }
    }

    /// The same parameter as a copy of the one named `source`.
    pub fn copy_of(self, source: impl Into<String>) -> Self {
        ParameterSpec { source: source.into(), ..self }
    }

    /// The same parameter, out of training.
    pub fn frozen(self) -> Self {
        ParameterSpec { trainable: false, ..self }
    }

    /// True when this is a copy of a parameter on another stage.
    pub fn is_copy(&self) -> bool {
        self.source != self.name
    }
}

/// The first values of one parameter.
///
/// # Errors
/// [`Error::DType`] when `dtype` is no float type; those of allocation.
pub fn values(ctx: &Context, spec: &ParameterSpec, dtype: DType, seed: u64) -> Result<Tensor> {
    // On the CPU whatever the device: once per run, and the same values everywhere.
    let host = &ctx.host();
    let mut tensor = Tensor::empty(host, &spec.shape, dtype)?;
    for_float!("init", dtype, T => { fill::<T>(host, spec, seed, tensor.as_mut_slice()?); Ok(()) })?;
    tensor.to_device(ctx)
}

fn fill<T: Float>(ctx: &Context, spec: &ParameterSpec, seed: u64, out: &mut [T]) {
    let rounded = |x: f64| T::from_acc(T::Acc::of(x));
    match spec.init {
        Init::Zeros => out.fill(rounded(0.0)),
        Init::Ones => out.fill(rounded(1.0)),
        Init::Normal { std } => {
            let purpose = Purpose::new(&format!("init {}", spec.source));
            ctx.threads().chunks_mut(out, BLOCK, |block, out| {
                let mut rng = Philox::new(seed, purpose, 0, block as u32);
                out.iter_mut().for_each(|x| *x = rounded(std * f64::from(rng.normal())));
            });
        }
    }
}

/// Parameters with their first values, in the order of `specs`.
///
/// # Errors
/// As [`values`]; [`Error::Argument`] for two parameters of one name.
pub fn random(ctx: &Context, specs: &[ParameterSpec], dtype: DType, seed: u64) -> Result<Parameters> {
    collect(specs, |spec| values(ctx, spec, dtype, seed))
}

/// Parameters without values, for planning.
///
/// # Errors
/// [`Error::Argument`] for two parameters of one name or a `dtype` that is no float type.
pub fn shape_only(specs: &[ParameterSpec], dtype: DType) -> Result<Parameters> {
    collect(specs, |spec| Ok(Tensor::shape_only(&Spec::new(&spec.shape, dtype))))
}

/// Parameters whose tensors `make` makes.
pub(crate) fn collect(
    specs: &[ParameterSpec],
    mut make: impl FnMut(&ParameterSpec) -> Result<Tensor>,
) -> Result<Parameters> {
    let mut parameters = Parameters::new();
    for spec in specs {
        parameters.add(spec.name.clone(), make(spec)?, spec.trainable)?;
    }
    Ok(parameters)
}

/// The parameter of that name, which a model looks up when it is made.
///
/// # Errors
/// [`Error::Argument`] when the module has none.
pub fn find(parameters: &Parameters, name: &str) -> Result<ParamId> {
    parameters
        .find(name)
        .ok_or_else(|| Error::argument("model", format!("the parameters have none named '{name}'")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{absolute, assert_close};

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        (mean, (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt())
    }

    #[test]
    fn values_have_the_scale_that_was_asked_for() {
        let ctx = Context::cpu(0, 1).unwrap();
        let wide = values(&ctx, &ParameterSpec::matrix("w", 300, 64), DType::F32, 1).unwrap();
        let (mean, std) = moments(wide.as_slice().unwrap());
        assert_close(mean, 0.0, absolute(3e-3));
        assert_close(std, 0.125, absolute(2e-3));
        let last = values(&ctx, &ParameterSpec::residual("w", 300, 64, 4), DType::F32, 1).unwrap();
        let (_, std) = moments(last.as_slice().unwrap());
        assert_close(std, 0.0625, absolute(1e-3));
        let ones = values(&ctx, &ParameterSpec::ones("n", &[5]), DType::F32, 1).unwrap();
        assert_eq!(ones.as_slice::<f32>().unwrap(), [1.0; 5]);
    }

    #[test]
    fn values_depend_on_seed_and_name_and_not_on_threads() {
        let one = Context::cpu(0, 1).unwrap();
        let three = Context::cpu(0, 3).unwrap();
        let spec = ParameterSpec::matrix("a", 100, 101);
        let draw = |ctx: &Context, spec: &ParameterSpec, seed| {
            values(ctx, spec, DType::F32, seed).unwrap().as_slice::<f32>().unwrap().to_vec()
        };
        let first = draw(&one, &spec, 3);
        assert_eq!(first, draw(&three, &spec, 3));
        assert_ne!(first, draw(&one, &spec, 4));
        assert_ne!(first, draw(&one, &ParameterSpec::matrix("b", 100, 101), 3));
        assert_eq!(first, draw(&one, &ParameterSpec::matrix("b", 100, 101).copy_of("a"), 3));
        // Blocks have streams of their own: no block repeats another.
        assert_ne!(first[..100], first[BLOCK..BLOCK + 100]);
    }
}
