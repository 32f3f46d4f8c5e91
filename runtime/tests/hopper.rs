//! What replay makes of Hopper's own functions: layouts against those that NVIDIA publishes, and mistakes that have to
//! show.

use bigmac_close::{absolute, is_close};
use bigmac_gpu::{Arg, Gpu, Launch, Order, Source, Swizzle, TensorMap, TensorMapShape};
use bigmac_runtime::{Context, DType, Result, Tensor};
use half::bf16;

static SOURCE: Source = Source::new("test/hopper.cu", include_str!("gpu/hopper.cu"));

const ORDERS: [Order; 3] = [Order::Forward, Order::Reverse, Order::Random(7)];

fn context(order: Order) -> Context {
    Context::on_gpu(0, 1, &Gpu::replay(order).unwrap()).unwrap()
}

fn values(count: usize, seed: usize) -> Vec<bf16> {
    (0..count).map(|i| bf16::from_f32(((i * 37 + seed * 11) % 61) as f32 / 16.0 - 1.9)).collect()
}

#[test]
fn layouts_are_those_that_are_published() {
    let ctx = context(Order::Forward);
    let of = |len: usize, dtype| Tensor::empty(&ctx, &[len], dtype).unwrap();
    let (mut swizzled, mut rows, mut columns, mut descriptors) =
        (of(4096, DType::U32), of(128 * 128, DType::U32), of(128 * 128, DType::U32), of(6, DType::U32));
    let args = [&mut swizzled, &mut rows, &mut columns, &mut descriptors].map(|t| t.arg_mut().unwrap());
    ctx.launch(&Launch::new(&SOURCE, "layouts").block(128), &args).unwrap();
    let [swizzled, rows, columns, descriptors] =
        [swizzled, rows, columns, descriptors].map(|t| t.to_vec::<u32>(&ctx).unwrap());

    // CUDA driver API, CU_TENSOR_MAP_SWIZZLE_128B: in a block of 8 rows of 8 pieces of 16 bytes, piece c of row r is at
    // place c ^ r.
    for (offset, &at) in swizzled.iter().enumerate() {
        let (block, row, piece, byte) = (offset / 1024, offset / 128 % 8, offset / 16 % 8, offset % 16);
        assert_eq!(at as usize, block * 1024 + row * 128 + (piece ^ row) * 16 + byte);
    }
    // The second row of the published picture: pieces 1 0 3 2 5 4 7 6.
    let second: Vec<u32> = (0..8).map(|c| swizzled[128 + c * 16] / 16 % 8).collect();
    assert_eq!(second, [1, 0, 3, 2, 5, 4, 7, 6]);

    // PTX ISA, D fragment of wgmma.m64nNk16: row by row of the picture, the thread and number of each element.
    for row in 0..64 {
        for column in 0..256 {
            let thread = row / 16 * 32 + row % 8 * 4 + column % 8 / 2;
            let number = column / 8 * 4 + row % 16 / 8 * 2 + column % 2;
            let at = thread * 128 + number;
            assert_eq!((rows[at], columns[at]), (row as u32, column as u32));
        }
    }
    // PTX ISA, matrix descriptor: address 0x400 >> 4, leading 16 >> 4, stride 1024 >> 4, swizzle 1 in bits 62 and 63.
    let wide: Vec<u64> = descriptors.chunks(2).map(|w| u64::from(w[0]) | u64::from(w[1]) << 32).collect();
    assert_eq!(wide, [0x4000_0040_0001_0040, 0x4000_0040_0200_38c0, 0x4000_0040_0001_0042]);
}

#[test]
fn products_of_a_warpgroup_are_right_for_every_layout_and_width() {
    for order in ORDERS {
        let ctx = context(order);
        for n in [64, 96, 128, 192, 256] {
            let (a, b) = (values(64 * 64, 1), values(n * 64, 2));
            let at = |x: &[bf16], i: usize, k: usize| f64::from(x[i * 64 + k].to_f32());
            let (ta, tb) = (
                Tensor::from_slice(&ctx, &a, &[64, 64]).unwrap(),
                Tensor::from_slice(&ctx, &b, &[n, 64]).unwrap(),
            );
            for form in 0..6 {
                if n == 96 && [2, 3, 5].contains(&form) {
                    // Whole rows of 64 elements of n.
                    continue;
                }
                let mut c = Tensor::empty(&ctx, &[64, n], DType::F32).unwrap();
                let args = [
                    ta.arg().unwrap(),
                    tb.arg().unwrap(),
                    c.arg_mut().unwrap(),
                    Arg::u32(n).unwrap(),
                    Arg::U32(form),
                ];
                let launch = Launch::new(&SOURCE, "one_product").block(128).shared(40 << 10);
                ctx.launch(&launch, &args).unwrap();
                let c = c.to_vec::<f32>(&ctx).unwrap();
                for (i, &got) in c.iter().enumerate() {
                    let wanted: f64 = (0..64).map(|k| at(&a, i / n, k) * at(&b, i % n, k)).sum();
                    let error = (f64::from(got) - wanted).abs();
                    assert!(error < 1e-4, "{order:?} n {n} form {form} element {i}: {got}, wanted {wanted}");
                }
            }
        }
    }
}

fn map(ctx: &Context, tensor: &Tensor, tile: &[u32]) -> Result<TensorMap> {
    let extents: Vec<u64> = tensor.shape().iter().rev().map(|&e| e as u64).collect();
    let strides = extents.iter().scan(2, |bytes, e| {
        *bytes *= e;
        Some(*bytes)
    });
    let shape = TensorMapShape {
        element: 2,
        strides: strides.take(extents.len() - 1).collect(),
        extents,
        tile: tile.to_vec(),
        swizzle: Swizzle::Bytes128,
    };
    tensor.tensor_map(ctx, 0, &shape)
}

#[test]
fn tiles_come_swizzled_with_zeros_outside_and_go_back_clipped() {
    let shape = [3, 5, 72];
    let input = values(3 * 5 * 72, 3);
    for order in ORDERS {
        let ctx = context(order);
        let x = Tensor::from_slice(&ctx, &input, &shape).unwrap();
        for (cx, cy, cz) in [(0i64, 0i64, 0i64), (8, 1, 1), (64, 2, 2), (-8, -3, -1)] {
            let y = Tensor::from_slice(&ctx, &vec![bf16::NEG_ONE; input.len()], &shape).unwrap();
            let mut seen = Tensor::empty(&ctx, &[512], DType::F32).unwrap();
            let maps = [&x, &y].map(|t| Arg::Map(map(&ctx, t, &[64, 4, 2]).unwrap()));
            let [mx, my, mz] = [cx, cy, cz].map(|c| Arg::i32(c).unwrap());
            let launch = Launch::new(&SOURCE, "through").block(128).shared(1024 + 16);
            ctx.launch(&launch, &[maps[0], maps[1], seen.arg_mut().unwrap(), mx, my, mz]).unwrap();
            let (seen, y) = (seen.to_vec::<f32>(&ctx).unwrap(), y.to_vec::<bf16>(&ctx).unwrap());
            let mut wanted = vec![bf16::NEG_ONE; input.len()];
            for (k, j, i) in (0..512).map(|e| (e / 256, e / 64 % 4, e % 64)) {
                let at = (cx + i as i64, cy + j as i64, cz + k as i64);
                let inside = (0..72).contains(&at.0) && (0..5).contains(&at.1) && (0..3).contains(&at.2);
                let index = ((at.2 * 5 + at.1) * 72 + at.0) as usize;
                let value = if inside { input[index] } else { bf16::ZERO };
                let row = k * 4 + j;
                assert_eq!(
                    seen[row * 64 + ((i / 8) ^ (row % 8)) * 8 + i % 8],
                    value.to_f32(),
                    "{order:?} {at:?}"
                );
                if inside {
                    wanted[index] = bf16::from_f32(value.to_f32() + 1.0);
                }
            }
            assert!(y == wanted, "{order:?} ({cx}, {cy}, {cz})");
        }
    }
}

#[test]
fn mistakes_with_barriers_tiles_and_products_show() {
    let says = [
        (1, "expected an initialised mbarrier"),
        (2, "more than expected"),
        (3, "deadlock"),
        (4, "is not aligned to 1024"),
        (5, "more than 1 threads arrive"),
        (7, "a store of the TMA that was not waited for"),
        (8, "no wgmma_fence"),
        (9, "disagree"),
        (11, "accumulator 3 was written"),
        (12, "a wgmma that was not waited for"),
    ];
    for order in ORDERS {
        let ctx = context(order);
        let x = values(64 * 64, 4);
        let tensor = Tensor::from_slice(&ctx, &x, &[64, 64]).unwrap();
        let run = |mistake: u32| {
            let mut y = Tensor::empty(&ctx, &[128], DType::F32)?;
            let launch = Launch::new(&SOURCE, "mistaken").block(256).shared(34 << 10);
            let map = Arg::Map(map(&ctx, &tensor, &[64, 64])?);
            ctx.launch(&launch, &[map, y.arg_mut()?, Arg::U32(mistake)])?;
            y.to_vec::<f32>(&ctx)
        };
        let wanted: Vec<f32> = (0..128)
            .map(|thread| {
                let (row, column) = (thread / 32 * 16 + thread % 32 / 4, 8 + thread % 4 * 2 + 1);
                (0..16).map(|k| x[row * 64 + k].to_f32() * x[column * 64 + k].to_f32()).sum()
            })
            .collect();
        let close = |y: Vec<f32>| y.iter().zip(&wanted).all(|(y, w)| is_close(*y, *w, absolute(1e-4)));
        assert!(close(run(0).unwrap()), "{order:?}");
        for (mistake, wanted) in says {
            let error = run(mistake).unwrap_err().to_string();
            assert!(error.contains(wanted), "{order:?} mistake {mistake}: {error}");
        }
        // A tile that is overwritten while it is read.
        assert!(!close(run(6).unwrap()) || order == ORDERS[2], "{order:?}");
    }
}

#[test]
fn a_barrier_lets_those_go_on_that_only_arrive() {
    for order in ORDERS {
        let ctx = context(order);
        let mut y = Tensor::empty(&ctx, &[192], DType::F32).unwrap();
        ctx.launch(&Launch::new(&SOURCE, "handed").block(128).shared(256), &[y.arg_mut().unwrap()]).unwrap();
        let y = y.to_vec::<f32>(&ctx).unwrap();
        assert!(y.iter().enumerate().all(|(i, &y)| y == i as f32), "{order:?} {y:?}");
    }
}

#[test]
fn blocks_of_a_cluster_share_loads_and_barriers() {
    let input = values(2 * 16 * 64, 5);
    let wanted: Vec<f32> = (0..4096).map(|i| input[i / 2048 * 1024 + i % 1024].to_f32()).collect();
    for order in ORDERS {
        let ctx = context(order);
        let x = Tensor::from_slice(&ctx, &input, &[2, 16, 64]).unwrap();
        let run = |blocks: usize, cluster: usize, leave: u32| {
            let mut y = Tensor::empty(&ctx, &[4096], DType::F32)?;
            let launch =
                Launch::new(&SOURCE, "in_pairs").grid([blocks, 1, 1]).cluster(cluster).shared(2048 + 16);
            let map = Arg::Map(map(&ctx, &x, &[64, 8, 1])?);
            ctx.launch(&launch, &[map, y.arg_mut()?, Arg::U32(leave)])?;
            y.to_vec::<f32>(&ctx)
        };
        assert!(run(4, 2, 0).unwrap() == wanted, "{order:?}");
        // Where block 1 lags, what block 0 sends still reaches it, and block 0 waits in vain for its share.
        for (blocks, cluster, leave, says) in [
            (4, 2, 1, ["has ended", "deadlock"]),
            (4, 1, 0, ["of a cluster of 1"; 2]),
            (3, 2, 0, ["that divide the grid"; 2]),
        ] {
            let error = run(blocks, cluster, leave).unwrap_err().to_string();
            assert!(says.iter().any(|says| error.contains(says)), "{order:?}: {error}");
        }
    }
}
