//! Every program that calls get is in the list of those that are compiled without a GPU.

use super::*;
use crate::programs::Recorder;
use bigmac_runtime::DType;

/// Heads of `dim` columns of `tokens` tokens, whose rows start at multiples of 16 bytes, or one element after those.
fn heads(ctx: &Context, [tokens, heads, dim]: [usize; 3], dtype: DType, aligned: bool) -> Tensor {
    let start = usize::from(!aligned);
    let wide = (dim + start).next_multiple_of(8);
    Tensor::zeros(ctx, &[tokens, heads, wide], dtype).unwrap().narrow(2, start, dim).unwrap()
}

/// Forward and backward; false when the variant refuses the inputs.
fn launch(ctx: &Context, op: &dyn Operator, dtype: DType, [q, k]: [[usize; 3]; 2], aligned: bool) -> bool {
    let [k, q, v, dout] = [k, q, k, q].map(|shape| heads(ctx, shape, dtype, aligned));
    let need = Need { inputs: &[true; 3], weights: &[] };
    let call = Call { inputs: &[&q, &k, &v], weights: &[], need };
    let Ok((_, saved)) = op.record(ctx, &call) else { return false };
    let grads = [Some(dout)];
    let backward = Backward { saved: &saved, weights: &[], grads: &grads, need };
    op.backward_input(ctx, &backward).unwrap();
    true
}

fn attention(bounds: &[usize]) -> Attention {
    Attention { bounds_q: bounds.into(), bounds_k: bounds.into(), causal: true, scale: 1.0, variant: None }
}

#[test]
fn every_head_size_gets_programs_of_the_list() {
    for target in ["sm_80", "sm_90a"] {
        let Some((ctx, recorder)) = Recorder::open(target) else { return };
        let dims = 1..=Tiling::MOST_COLUMNS;
        for (dtype, dim, aligned) in [DType::BF16, DType::F32]
            .into_iter()
            .flat_map(|dtype| dims.clone().flat_map(move |dim| [(dtype, dim, true), (dtype, dim, false)]))
        {
            let (op, shape) = (attention(&[0, 3]), [3, 1, dim]);
            assert!(launch(&ctx, &op, dtype, [shape; 2], aligned), "{dtype} {dim} {aligned}");
            for (variant, of) in variants(dtype, dim).iter().enumerate() {
                let tiled = Attention { variant: Some(variant), ..op.clone() };
                let [q, k, v] = [(); 3].map(|()| heads(&ctx, shape, dtype, aligned));
                let takes = of.takes(&ctx, [&q, &k, &v]).unwrap();
                assert_eq!(takes, launch(&ctx, &tiled, dtype, [shape; 2], aligned), "{dtype} {dim} {of}");
            }
        }
        // What many long sequences get, and no tokens.
        for dim in [1, 16, 48, 64, 72, 112, 120, 128, 160, 256] {
            for (dtype, aligned) in [(DType::BF16, true), (DType::BF16, false), (DType::F32, true)] {
                assert!(launch(&ctx, &attention(&[0, 65]), dtype, [[65, 264, dim], [65, 1, dim]], aligned));
                assert!(launch(&ctx, &attention(&[0, 0]), dtype, [[0, 1, dim]; 2], aligned));
            }
        }
        let (missing, asked) = recorder.unlisted();
        assert!(missing.is_empty(), "{} of {asked} are not listed:\n{}", missing.len(), missing.join("\n"));
    }
}

#[test]
fn warpgroups_are_for_the_two_sizes_they_are_written_for() {
    let by_warpgroups = |dim| {
        let forms = variants(DType::BF16, dim).iter().map(|variant| variant.forward);
        forms.filter(|form| matches!(form, Form::Warpgroups(_))).count() > 0
    };
    for dim in 1..=Tiling::MOST_COLUMNS {
        assert_eq!(by_warpgroups(dim), dim == 64 || dim == 128, "{dim}");
    }
}
