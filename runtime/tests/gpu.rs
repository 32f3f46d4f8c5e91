//! Kernels and tensors on a replayed GPU.

use bigmac_gpu::{Arg, Gpu, Launch, Order, Source};
use bigmac_runtime::{Context, DType, Device, Error, Result, Tensor};
use half::bf16;

static SOURCE: Source = Source::new("test/kernel.cu", include_str!("gpu/kernel.cu"));

type View = fn(&Tensor) -> Result<Tensor>;

const ORDERS: [Order; 3] = [Order::Forward, Order::Reverse, Order::Random(5)];

fn context(order: Order) -> Context {
    Context::on_gpu(0, 1, &Gpu::replay(order).unwrap()).unwrap()
}

fn launch(ctx: &Context, kernel: &'static str, x: &Tensor, shift: i64) -> Result<Tensor> {
    let mut y = Tensor::empty(ctx, x.shape(), x.dtype())?;
    let launch = Launch::new(&SOURCE, kernel)
        .element(x.dtype().in_kernels("test")?)
        .knob("SHIFT", shift)
        .grid([x.len().div_ceil(64), 1, 1])
        .block(64);
    ctx.launch(&launch, &[x.arg()?, y.arg_mut()?, Arg::i32(x.len())?, Arg::f32(2.0)])?;
    Ok(y)
}

#[test]
fn a_kernel_runs_in_every_order_with_its_knobs_and_dtypes() {
    let values: Vec<f32> = (0..150).map(|i| i as f32).collect();
    for order in ORDERS {
        let ctx = context(order);
        for shift in [0, 3] {
            let x = Tensor::from_slice(&ctx, &values, &[150]).unwrap();
            let y = launch(&ctx, "reversed", &x, shift).unwrap().to_vec::<f32>(&ctx).unwrap();
            assert!(y.iter().zip(&values).all(|(y, x)| *y == 2.0 * x + shift as f32), "{order:?} {y:?}");
            let half: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
            let x = Tensor::from_slice(&ctx, &half, &[150]).unwrap();
            let y = launch(&ctx, "reversed", &x, shift).unwrap().to_vec::<bf16>(&ctx).unwrap();
            let wanted = |x: &bf16| bf16::from_f32(x.to_f32() * 2.0 + shift as f32);
            assert!(y.iter().zip(&half).all(|(y, x)| *y == wanted(x)), "{order:?} {y:?}");
        }
    }
}

#[test]
fn a_missing_barrier_and_a_missing_wait_show() {
    let values: Vec<f32> = (1..65).map(|i| i as f32).collect();
    let mut wrong = 0;
    for order in ORDERS {
        let ctx = context(order);
        let x = Tensor::from_slice(&ctx, &values, &[64]).unwrap();
        let y = launch(&ctx, "racing", &x, 0).unwrap().to_vec::<f32>(&ctx).unwrap();
        wrong += usize::from(y.iter().zip(&values).any(|(y, x)| *y != 2.0 * x));
        for wait in [0, 1] {
            let x = Tensor::from_slice(&ctx, &[7f32; 128], &[128]).unwrap();
            let mut y = Tensor::empty(&ctx, &[32], DType::F32).unwrap();
            let launch = Launch::new(&SOURCE, "copied")
                .element(DType::F32.in_kernels("test").unwrap())
                .knob("SHIFT", 0)
                .shared(512);
            let args = [x.arg().unwrap(), y.arg_mut().unwrap(), Arg::U32(wait), Arg::I64(1)];
            ctx.launch(&launch, &args).unwrap();
            let y = y.to_vec::<f32>(&ctx).unwrap();
            assert!(y.iter().all(|y| if wait == 1 { *y == 7.0 } else { y.is_nan() }), "{y:?}");
        }
    }
    assert!(wrong > 0, "no order showed the missing barrier");
}

#[test]
fn wrong_launches_are_errors_that_name_the_kernel() {
    let ctx = context(Order::Forward);
    let mut y = Tensor::empty(&ctx, &[64], DType::F32).unwrap();
    let new = |kernel| {
        Launch::new(&SOURCE, kernel).element(DType::F32.in_kernels("test").unwrap()).knob("SHIFT", 0)
    };
    let y = y.arg_mut().unwrap();
    let cases: [(&str, Launch, Vec<Arg>, &str); 6] = [
        ("stuck", new("stuck").block(64), vec![y], "deadlock"),
        ("kinds", new("stuck"), vec![Arg::I32(1)], "expected arguments [Pointer]"),
        ("count", new("stuck"), vec![y, y], "expected arguments [Pointer]"),
        ("no such kernel", new("none"), vec![y], "not found among"),
        ("threads", new("stuck").block(48), vec![y], "multiple of 32"),
        ("grid", new("stuck").grid([1, 70_000, 1]), vec![y], "65535"),
    ];
    for (name, launch, args, wanted) in cases {
        let error = ctx.launch(&launch, &args).unwrap_err().to_string();
        assert!(error.contains(wanted), "{name}: {error}");
    }
    assert!(matches!(DType::F16.in_kernels("gelu"), Err(Error::DType { op: "gelu", .. })));
    assert!(Context::cpu(0, 1).unwrap().launch(&new("stuck"), &[]).is_err());
}

#[test]
fn a_kernel_that_does_not_compile_gives_file_line_and_log() {
    static BROKEN: Source =
        Source::new("broken/kernel.cu", "#include \"bigmac.cuh\"\nKERNEL void f(float* x) {\n  x = y;\n}\n");
    let ctx = context(Order::Forward);
    let x = Tensor::empty(&ctx, &[1], DType::F32).unwrap();
    let error = ctx.launch(&Launch::new(&BROKEN, "f"), &[x.arg().unwrap()]).unwrap_err().to_string();
    assert!(error.contains("broken/kernel.cu:3") && error.contains('y'), "{error}");
}

#[test]
fn strided_views_are_copied_like_on_the_cpu() {
    let (cpu, gpu) = (Context::cpu(0, 1).unwrap(), context(Order::Random(3)));
    let shape = [3, 4, 5, 16];
    let values: Vec<f32> = (0..960).map(|i| i as f32).collect();
    let views: [(&str, View); 7] = [
        ("whole", |t| Ok(t.clone())),
        ("permuted", |t| t.permute(&[3, 1, 0, 2])),
        ("a slice of the last dimension", |t| t.narrow(3, 4, 8)),
        ("an odd slice", |t| t.narrow(3, 3, 7)?.narrow(0, 1, 2)),
        ("one element", |t| t.narrow(0, 2, 1)?.narrow(1, 1, 1)?.narrow(2, 0, 1)?.narrow(3, 9, 1)),
        ("nothing", |t| t.narrow(1, 2, 0)),
        ("transposed slice", |t| t.narrow(2, 1, 3)?.transpose(1, 2)),
    ];
    fn check<T: bigmac_runtime::Element>(
        cpu: &Context,
        gpu: &Context,
        values: &[T],
        shape: &[usize],
        views: &[(&str, View)],
    ) {
        let (a, b) = (
            Tensor::from_slice(cpu, values, shape).unwrap(),
            Tensor::from_slice(gpu, values, shape).unwrap(),
        );
        for (name, view) in views {
            let (a, b) = (view(&a).unwrap(), view(&b).unwrap());
            assert_eq!(a.to_vec::<T>(cpu).unwrap(), b.to_vec::<T>(gpu).unwrap(), "{name}");
            let copy = b.copy(gpu).unwrap();
            assert!(copy.is_contiguous() && copy.device() == Device::Replay);
        }
    }
    check(&cpu, &gpu, &values, &shape, &views);
    check(&cpu, &gpu, &values.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>(), &shape, &views);
    check(&cpu, &gpu, &values.iter().map(|&v| v as u8).collect::<Vec<_>>(), &shape, &views);
}

#[test]
fn tensors_go_to_the_device_and_back_and_are_counted_there() {
    let (cpu, gpu) = (Context::cpu(0, 1).unwrap(), context(Order::Forward));
    let x = Tensor::from_slice(&cpu, &[1f32, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
    let scope = gpu.in_scope("parameters");
    let y = x.transpose(0, 1).unwrap().to_device(&scope).unwrap();
    assert_eq!((y.device(), scope.scope().current()), (Device::Replay, 16));
    assert!(matches!(y.as_slice::<f32>(), Err(Error::NotOnHost { .. })));
    assert_eq!(y.to_vec::<f32>(&gpu).unwrap(), [1.0, 3.0, 2.0, 4.0]);
    assert!(x.arg().is_err());
    let mut z = Tensor::zeros(&scope, &[5], DType::F32).unwrap();
    z.write(&gpu, 1, &y.reshape(&[4]).unwrap()).unwrap();
    assert_eq!(z.to_vec::<f32>(&gpu).unwrap(), [0.0, 1.0, 3.0, 2.0, 4.0]);
    assert!(z.write(&gpu, 2, &y).is_err() && z.write(&gpu, 0, &x).is_err());
    let alias = z.clone();
    assert!(matches!(z.arg_mut(), Err(Error::Shared { .. })));
    drop((alias, z, y));
    assert_eq!((scope.scope().current(), scope.scope().peak()), (0, 36));
    let error = Tensor::empty(&scope, &[1 << 62], DType::U8).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
}
