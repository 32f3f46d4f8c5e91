//! Parameters of odd lengths, in flat buffers in which each is aligned: a training step is that of each parameter
//! alone, and what lies between them stays zero.

use anyhow::Result;
use bigmac::config::Config;
use bigmac::train::{Optimizer, STATE_PARTS, Update};
use bigmac_autograd::{Gradients, Graph, Mode, ParamId, Parameters};
use bigmac_gpu::Gpu;
use bigmac_kernels::{
    adamw::{self, AdamW},
    check::{float_tensor, random},
    linear::Linear,
    silu::Silu,
};
use bigmac_runtime::{Context, DType, Device, Tensor};
use bigmac_schedule::ModuleKind;

const WIDTH: usize = 5;
const INNER: usize = 7;
const ROWS: usize = 3;
const LR: f64 = 0.1;
const GRAD_SCALE: f64 = 0.5;

/// Two products with biases.
struct Module {
    params: Parameters,
    ids: [ParamId; 4],
}

impl Module {
    fn new(ctx: &Context) -> Result<Module> {
        let mut params = Parameters::new();
        let mut add = |name: &str, shape: &[usize], stream| {
            params.add(name, float_tensor(ctx, &random(shape, stream), shape, DType::F32)?, true)
        };
        let ids = [
            add("up", &[INNER, WIDTH], 1)?,
            add("up_bias", &[INNER], 2)?,
            add("down", &[WIDTH, INNER], 3)?,
            add("down_bias", &[WIDTH], 4)?,
        ];
        Ok(Module { params, ids })
    }

    /// Forward and backward of a microbatch.
    fn learn(&self, ctx: &Context, gradients: &mut Gradients) -> Result<()> {
        let values = |stream| float_tensor(ctx, &random(&[ROWS, WIDTH], stream), &[ROWS, WIDTH], DType::F32);
        let [up, up_bias, down, down_bias] = self.ids;
        let mut g = Graph::recording(ctx, &self.params);
        let x = g.leaf(values(5)?);
        let inner = g.apply(Linear { bias: true }, &[&x], &[up, up_bias])?;
        let inner = g.apply(Silu, &[&inner], &[])?;
        let y = g.apply(Linear { bias: true }, &[&inner], &[down, down_bias])?;
        let seed = (y.id().expect("the output depends on what learns"), values(6)?);
        drop((y, inner));
        g.finish().backward(ctx, &self.params, [seed], gradients, Mode::Full)?;
        Ok(())
    }
}

/// A parameter with its moments, on the CPU.
struct Alone {
    weight: Tensor,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Alone {
    fn step(&mut self, host: &Context, config: &Config, step: u64, gradient: &[f32]) -> Result<()> {
        let train = &config.train;
        let adamw = AdamW {
            lr: LR,
            betas: [train.beta1, train.beta2],
            eps: train.epsilon,
            weight_decay: if self.weight.shape().len() > 1 { train.weight_decay } else { 0.0 },
            step: step + 1,
            grad_scale: GRAD_SCALE,
        };
        adamw::step(host, adamw, &mut self.weight, None, gradient, &mut self.first, &mut self.second)?;
        Ok(())
    }
}

/// A flat buffer with zeros where the parameters are.
fn between(module: &Module, ctx: &Context, flat: &Tensor) -> Result<Vec<f32>> {
    let mut values = flat.to_vec::<f32>(ctx)?;
    for (_, parameter) in module.params.iter() {
        assert!(parameter.range().start.is_multiple_of(Parameters::ALIGNMENT));
        values[parameter.range()].fill(0.0);
    }
    Ok(values)
}

#[test]
fn a_step_is_that_of_each_parameter_alone() -> Result<()> {
    let config = Config::default();
    let replay = Context::on_gpu(0, 1, &Gpu::open(Device::Replay)?)?;
    for ctx in [Context::cpu(0, 1)?, replay] {
        let host = ctx.host();
        let mut module = Module::new(&ctx)?;
        let mut optimizer = Optimizer::new(&ctx, ModuleKind::Llm, &module.params)?;
        let mut gradients = Gradients::new(&ctx, &module.params)?;
        let alone = module.ids.map(|id| {
            let weight = module.params.get(id);
            let moments = vec![0f32; weight.len()];
            let weight = Tensor::from_slice(&host, &weight.to_vec::<f32>(&ctx)?, weight.shape())?;
            Ok(Alone { weight, first: moments.clone(), second: moments })
        });
        let mut alone = alone.into_iter().collect::<Result<Vec<Alone>>>()?;
        for step in 0..3 {
            gradients.begin_step();
            // The first microbatch writes gradients, the second adds to them.
            module.learn(&ctx, &mut gradients)?;
            module.learn(&ctx, &mut gradients)?;
            gradients.finish_step()?;
            for (id, alone) in module.ids.into_iter().zip(&mut alone) {
                let gradient = gradients.view(id)?.to_vec::<f32>(&ctx)?;
                assert!(gradient.iter().any(|&g| g != 0.0));
                alone.step(&host, &config, step, &gradient)?;
            }
            let update = Update { train: &config.train, lr: LR, grad_scale: GRAD_SCALE, clip: None };
            optimizer.step(&ctx, &mut module.params, &gradients, &update)?;
            for (id, alone) in module.ids.into_iter().zip(&alone) {
                let parameter = module.params.parameter(id);
                let name = parameter.name();
                assert_eq!(
                    parameter.tensor().to_vec::<f32>(&ctx)?,
                    alone.weight.to_vec::<f32>(&host)?,
                    "{name}"
                );
                for (part, wanted) in [("first", &alone.first), ("second", &alone.second)] {
                    let flat = optimizer.part(part).expect("moments").to_vec::<f32>(&ctx)?;
                    assert_eq!(flat[parameter.range()], wanted[..], "{part} of {name}");
                }
            }
            let parts = STATE_PARTS.into_iter().filter_map(|part| optimizer.part(part));
            for flat in parts.chain([gradients.flat()]) {
                assert_eq!(flat.len(), module.params.elements());
                assert!(between(&module, &ctx, flat)?.iter().all(|&value| value == 0.0));
            }
        }
    }
    Ok(())
}
