//! Kernels under the address sanitizer: every access of a replayed kernel is checked against the exact size of the
//! tensor that it goes to.
//!
//! The sanitizer's library has to be in a process from its start, so each test here starts this program once more with
//! it, for itself. A replay has its memory from the system's allocator, which the sanitizer watches.

use bigmac_gpu::{Arg, Gpu, Launch, Order, Source, replay};
use bigmac_kernels::{
    Operator,
    ada_layer_norm::AdaLayerNorm,
    adamw::AdamW,
    adamw::{Group, Member, State},
    add::Add,
    add_weight::AddWeight,
    attention::Attention,
    check::{CHECK_DEVICE, Check, gpus, to_f64},
    concat::Concat,
    embedding::Embedding,
    finite::admit,
    gated_add::GatedAdd,
    gather_rows::GatherRows,
    gelu::Gelu,
    layer_norm::LayerNorm,
    linear::Linear,
    linear_cross_entropy::LinearCrossEntropy,
    matmul::MatMul,
    mean_squared_error::MeanSquaredError,
    noise::add_noise,
    patchify::Patchify,
    replace_rows::ReplaceRows,
    rms_norm::RmsNorm,
    rope::Rope,
    scale::Scale,
    silu::Silu,
    sum::Sum,
    swiglu::SwiGlu,
};
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_runtime::{Context, DType, Tensor};
use std::path::PathBuf;
use std::process::Command;

/// Both dtypes where kernels differ in more than their element.
const BOTH: [DType; 2] = [DType::F32, DType::BF16];
const BF16: [DType; 1] = [DType::BF16];

/// The sanitizer's library; `None`, and said so, where the compiler has none, which is a failure where the variable
/// `CI` is set.
fn libasan() -> Option<PathBuf> {
    let found = || -> Result<PathBuf, String> {
        let (compiler, _) = replay::find_compiler()?;
        let out = Command::new(&compiler).arg("-print-file-name=libasan.so").output();
        let out = out.map_err(|e| format!("{}: {e}", compiler.display()))?;
        let path = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
        // A compiler that does not find it answers with the bare name.
        path.is_absolute().then_some(path).ok_or_else(|| {
            format!(
                "{} has no libasan.so; install its sanitizers, or name another compiler in {}",
                compiler.display(),
                replay::COMPILER
            )
        })
    };
    match found() {
        Ok(path) => Some(path),
        Err(message) => {
            assert!(std::env::var_os("CI").is_none(), "kernels cannot be sanitized: {message}");
            eprintln!("SKIPPED: no kernel is sanitized. {message}");
            None
        }
    }
}

/// Runs `checks` when this process is under the sanitizer. Else starts this program once more under it, for the test of
/// that name alone, and returns what came of it; `None` without a sanitizer.
fn sanitized(test: &str, checks: impl FnOnce()) -> Option<(bool, String)> {
    if std::env::var_os(replay::SANITIZE).is_some() {
        checks();
        return None;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("LD_PRELOAD", libasan()?)
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .env(replay::SANITIZE, "1")
        .env_remove(CHECK_DEVICE)
        .output()
        .unwrap();
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat();
    Some((output.status.success(), text))
}

/// The checks of the test of that name hold under the sanitizer.
fn holds(test: &str, checks: impl FnOnce()) {
    if let Some((success, text)) = sanitized(test, checks) {
        assert!(success && text.contains("1 passed"), "{text}");
    }
}

fn read_at(index: usize) {
    static SOURCE: Source = Source::new("test/kernel.cu", include_str!("../../runtime/tests/gpu/kernel.cu"));
    let ctx = Context::on_gpu(0, 1, &Gpu::replay(Order::Forward).unwrap()).unwrap();
    // Not a multiple of the alignment: nothing but the sanitizer tells its end.
    let x = Tensor::from_slice(&ctx, &[1f32; 37], &[37]).unwrap();
    let mut y = Tensor::empty(&ctx, &[32], DType::F32).unwrap();
    let launch =
        Launch::new(&SOURCE, "beyond").element(DType::F32.in_kernels("test").unwrap()).knob("SHIFT", 0);
    ctx.launch(&launch, &[x.arg().unwrap(), y.arg_mut().unwrap(), Arg::i32(index).unwrap()]).unwrap();
    assert_eq!(y.to_vec::<f32>(&ctx).unwrap(), [1.0; 32]);
}

#[test]
fn a_kernel_that_reads_up_to_the_last_element_passes() {
    holds("a_kernel_that_reads_up_to_the_last_element_passes", || read_at(36));
}

#[test]
fn a_kernel_that_reads_one_element_too_many_is_caught() {
    let outcome = sanitized("a_kernel_that_reads_one_element_too_many_is_caught", || read_at(37));
    if let Some((success, text)) = outcome {
        assert!(!success && text.contains("heap-buffer-overflow"), "{text}");
    }
}

#[test]
fn products_and_attention_stay_inside_their_tensors() {
    holds("products_and_attention_stay_inside_their_tensors", products_and_attention);
}

fn products_and_attention() {
    for bias in [false, true] {
        let linear = Linear { bias };
        let check = Check::new(&linear).input(&[5, 7, 40]).weight(&[27, 40]).dtypes(&BOTH);
        if bias { check.weight(&[27]) } else { check }.run().unwrap();
    }
    let product = MatMul { transpose_a: false, transpose_b: false };
    Check::new(&product).input(&[2, 19, 23]).input(&[2, 23, 9]).dtypes(&BF16).run().unwrap();
    for (head, causal) in [(16, true), (20, false)] {
        let bounds = [0usize, 5, 5, 24];
        let attention = Attention {
            bounds_q: bounds.into(),
            bounds_k: bounds.into(),
            causal,
            scale: 0.25,
            variant: None,
        };
        let check = Check::new(&attention).input(&[24, 4, head]).input(&[24, 2, head]).input(&[24, 2, head]);
        check.dtypes(&BF16).run().unwrap();
    }
    let targets = vec![3, -100, 40, 0, 12, -100, 7];
    let loss = LinearCrossEntropy { scale: 0.1, chunk: 16 };
    let check = Check::new(&loss).input(&[7, 24]).input_i32(targets, &[7]).weight(&[41, 24]);
    check.dtypes(&BF16).contiguous_only().run().unwrap();
}

#[test]
fn rows_and_elements_stay_inside_their_tensors() {
    holds("rows_and_elements_stay_inside_their_tensors", rows_and_elements);
}

fn rows_and_elements() {
    let eps = 1e-6;
    for shape in [[3, 37], [5, 264]] {
        let width = [shape[1]];
        // Contiguous ones only: which kernel takes strided inputs of odd widths, and so the order of its sums, may
        // differ.
        let (rms, layer, ada) = (RmsNorm { eps }, LayerNorm { eps }, AdaLayerNorm { eps });
        fn check<'a>(op: &'a dyn Operator, shape: &[usize]) -> Check<'a> {
            Check::new(op).dtypes(&BF16).contiguous_only().input(shape)
        }
        check(&rms, &shape).weight(&width).run().unwrap();
        check(&layer, &shape).weight(&width).weight(&width).run().unwrap();
        check(&ada, &shape).input(&width).input(&width).run().unwrap();
        check(&GatedAdd, &shape).input(&width).input(&shape).run().unwrap();
    }
    for interleaved in [false, true] {
        let rope = Rope { interleaved };
        let table = |from: f64| (0..15).map(|i| (from + f64::from(i)).cos()).collect::<Vec<f64>>();
        let check = Check::new(&rope).input(&[5, 3, 6]);
        let check = check.input_accumulator(table(0.0), &[5, 3]).input_accumulator(table(1.0), &[5, 3]);
        check.dtypes(&BF16).run().unwrap();
    }
    let shape = [3, 67];
    for tanh in [false, true] {
        Check::new(&Gelu { tanh }).input(&shape).dtypes(&BF16).run().unwrap();
    }
    Check::new(&Silu).input(&shape).dtypes(&BF16).run().unwrap();
    Check::new(&SwiGlu).input(&shape).input(&shape).dtypes(&BF16).run().unwrap();
    Check::new(&Add).input(&shape).input(&shape).dtypes(&BF16).run().unwrap();
    Check::new(&Scale { factor: -1.5 }).input(&shape).dtypes(&BF16).run().unwrap();
    Check::new(&Sum).input(&shape).dtypes(&BF16).run().unwrap();
    Check::new(&AddWeight).input(&[4, 3, 67]).weight(&shape).dtypes(&BF16).run().unwrap();
    let target = vec![0.5; 3 * 67];
    let squared = MeanSquaredError { scale: 0.1 };
    Check::new(&squared).input(&shape).input_values(target, &shape, false).dtypes(&BF16).run().unwrap();
    Check::new(&Concat { dim: 1 }).input(&shape).input(&[3, 5]).dtypes(&BF16).run().unwrap();
    let gather = GatherRows { rows: [2, 0, 2].into() };
    Check::new(&gather).input(&shape).dtypes(&BF16).run().unwrap();
    let replace = ReplaceRows { rows: [2, 0].into() };
    Check::new(&replace).input(&shape).input(&[2, 67]).dtypes(&BF16).run().unwrap();
    let ids = vec![4, 0, 4, 1, 3];
    Check::new(&Embedding).input_i32(ids, &[5]).weight(&[6, 37]).dtypes(&BF16).run().unwrap();
    Check::new(&Patchify { patch: 3 }).input(&[3, 6, 9]).dtypes(&BF16).run().unwrap();
    for gpu in gpus().unwrap() {
        let ctx = Context::on_gpu(0, 1, gpu).unwrap();
        optimizer(&ctx);
        noise(&ctx);
    }
}

/// Noise on an odd number of elements, and numbers that are finite.
fn noise(ctx: &Context) {
    let stream = Philox::new(1, Purpose::new("sanitized"), 0, 0);
    for dtype in BOTH {
        let x = Tensor::zeros(ctx, &[1027], DType::F32).unwrap();
        let (latents, target) = add_noise(ctx, &x, 1.0, &stream, dtype).unwrap();
        assert_eq!(to_f64(ctx, &latents).unwrap(), to_f64(ctx, &target).unwrap());
    }
    let (values, mut to) =
        (Tensor::zeros(ctx, &[3], DType::F32), Tensor::zeros(ctx, &[1], DType::F32).unwrap());
    admit(ctx, &values.unwrap(), &mut to).unwrap();
    assert_eq!(to.to_vec::<f32>(ctx).unwrap(), [0.0]);
}

/// A step over parameters whose lengths are no multiple of anything.
fn optimizer(ctx: &Context) {
    let adamw =
        AdamW { lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 1.0 };
    let lengths = [37, 5, 1030];
    let len = [lengths.iter().sum()];
    let zeros = || Tensor::zeros(ctx, &len, DType::F32).unwrap();
    for dtype in BOTH {
        let mut weights = lengths.map(|n| Tensor::zeros(ctx, &[n], dtype).unwrap());
        let (gradients, mut first, mut second, mut master) = (zeros(), zeros(), zeros(), zeros());
        let mut end = 0;
        let members = weights.iter_mut().map(|weight| {
            let range = end..end + weight.len();
            end = range.end;
            Member { weight, range, decays: true }
        });
        let state = State { first: &mut first, second: &mut second, master: Some(&mut master) };
        Group::default().step(ctx, adamw, None, members, &gradients, state).unwrap();
        assert_eq!(master.to_vec::<f32>(ctx).unwrap(), vec![0.0; len[0]]);
    }
}
