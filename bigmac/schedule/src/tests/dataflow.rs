//! What ops consume and produce, and which backwards exist.

use super::{schedule, workload};
use crate::{
    Chunk, Item, ItemSize, Layers, Limits, Microbatch, MicrobatchSizes, Module, ModuleKind, Op, Options,
    PerModule, Phase, Unit, Value, Work, lower, validate,
};
use bigmac_close::{absolute, assert_close};

const M: Microbatch = Microbatch(1);

fn item(index: usize) -> Item {
    Item { microbatch: M, index }
}

fn hidden(chunk: usize) -> Value {
    Value::Hidden { microbatch: M, chunk: Chunk(chunk) }
}

fn gradient(chunk: usize) -> Value {
    Value::HiddenGrad { microbatch: M, chunk: Chunk(chunk) }
}

#[test]
fn values_link_the_modules() {
    let w = workload(2, 2, [1.0; 3], [1.0; 2], [1.0; 2], 0.0);
    let llm = |chunk, phase| Op::llm(Chunk(chunk), phase, M);
    let flow = |op: &Op| (op.consumes(&w), op.produces(&w));
    let both = |value: fn(Item) -> Value| vec![value(item(0)), value(item(1))];
    assert_eq!(flow(&Op::encoder(Phase::Forward, vec![item(1)])), (vec![], vec![Value::Embeds(item(1))]));
    assert_eq!(flow(&llm(0, Phase::Forward)), (both(Value::Embeds), vec![hidden(1)]));
    assert_eq!(flow(&llm(1, Phase::Forward)), (vec![hidden(1)], both(Value::Cond)));
    assert_eq!(flow(&Op::generator(Phase::Forward, vec![item(0)])), (vec![Value::Cond(item(0))], vec![]));
    assert_eq!(
        flow(&Op::generator(Phase::Backward, vec![item(0)])),
        (vec![], vec![Value::CondGrad(item(0))])
    );
    for phase in [Phase::Backward, Phase::BackwardInput] {
        assert_eq!(flow(&llm(1, phase)), (both(Value::CondGrad), vec![gradient(0)]));
        assert_eq!(flow(&llm(0, phase)), (vec![gradient(0)], both(Value::EmbedGrad)));
    }
    assert_eq!(flow(&llm(0, Phase::BackwardWeight)), (vec![], vec![]));
    assert_eq!(flow(&Op::encoder(Phase::Recompute, vec![item(0)])), (vec![], vec![]));
    assert_eq!(flow(&Op::encoder(Phase::Backward, vec![item(0)])), (vec![Value::EmbedGrad(item(0))], vec![]));
    assert_eq!(flow(&Op::Send { value: hidden(1), to: crate::Rank(1) }), (vec![hidden(1)], vec![]));
}

#[test]
fn frozen_modules_decide_which_backwards_exist() {
    let w = workload(2, 2, [1.0, 2.0, 3.0], [1.0; 2], [1.0; 2], 0.0);
    let frozen = |encoder, llm, generator| w.clone().with_learns(PerModule { encoder, llm, generator });
    let backwards = |w: &crate::Workload| ModuleKind::ALL.map(|kind| w.has_backward(kind, M));
    assert_eq!(backwards(&frozen(true, true, true)), [true, true, true]);
    assert_eq!(backwards(&frozen(true, false, false)), [true, true, true]);
    assert_eq!(backwards(&frozen(false, true, false)), [false, true, true]);
    assert_eq!(backwards(&frozen(false, false, true)), [false, false, true]);
    assert_eq!(backwards(&frozen(false, false, false)), [false, false, false]);
    let first = Op::llm(Chunk(0), Phase::Backward, M);
    assert_eq!(first.produces(&frozen(false, true, true)), vec![]);
    let drawn = Op::generator(Phase::Backward, vec![item(0)]);
    assert_eq!(drawn.produces(&frozen(false, false, true)), vec![]);
    // A frozen LLM passes gradients on, but computes none of its weights'.
    assert_eq!(frozen(true, false, true).cost(&first, crate::Rank(0)), 2.0);
    assert_eq!(w.cost(&first, crate::Rank(0)), 5.0);
    // Alone, it still does.
    assert!(frozen(true, false, true).llm_only().has_backward(ModuleKind::Llm, M));
}

#[test]
fn a_projector_that_learns_alone_goes_backward_where_the_encoder_ends() {
    let layers = Layers { count: PerModule { encoder: 8, llm: 2, generator: 2 }, head: 0.0 };
    let size = ItemSize { saved: 1000, value: 4, hidden: 8 };
    for name in ["disaggregated", "monolithic-balanced"] {
        // Most of the work is the encoder's forward, so that it is cut.
        let w = workload(3, 4, [1.0; 3], [12.0, 0.75], [0.0; 2], 0.0).with_layers(layers).unwrap();
        let learns = PerModule { encoder: true, llm: false, generator: false };
        let sizes = MicrobatchSizes { encoder: vec![size; 3], llm: vec![0; 3], ..MicrobatchSizes::default() };
        let w = w.with_learns(learns).with_projector_alone(true).with_sizes(vec![sizes; 4]).unwrap();
        let w = schedule(name).unwrap().workload(&w, Options::default().llm);
        let chunks = w.chunks_of(ModuleKind::Encoder);
        assert!(chunks > 1, "{name}");
        for chunk in (0..chunks).map(Chunk) {
            let (module, last) = (Module::Encoder(chunk), chunk.0 + 1 == chunks);
            assert_eq!(w.goes_backward(module, M), last);
            let unit = Unit::item(module, item(0));
            // All of the backward, and of what is saved for it, is there; the forward is shared out.
            let whole = f64::from(u8::from(last));
            assert_eq!(w.unit_cost(unit, Phase::Backward), 0.25 * whole);
            assert_eq!(w.saved(unit), Some(1000 * u64::from(last)));
            assert!(w.unit_cost(unit, Phase::Forward) < 4.0);
            let backward = Op::Compute { module, phase: Phase::Backward, work: Work::Items(vec![item(0)]) };
            assert_eq!(backward.produces(&w), vec![]);
        }
        let table = schedule(name).unwrap().build(&w, &Options::default()).unwrap();
        let lowered = lower(&table, &w).unwrap();
        validate(&lowered, &w, &Limits::default()).unwrap();
        let is_gradient = |value: &Value| matches!(value, Value::EncoderHiddenGrad { .. });
        assert!(!lowered.iter().any(|(_, op)| op.produces(&w).iter().any(is_gradient)), "{name}");
        // Learning throughout, every chunk has a share of it.
        let all = w.clone().with_projector_alone(false);
        assert!((0..chunks).all(|chunk| all.goes_backward(Module::Encoder(Chunk(chunk)), M)));
        let shares = (0..chunks)
            .map(|chunk| all.unit_cost(Unit::item(Module::Encoder(Chunk(chunk)), item(0)), Phase::Backward));
        assert_close(shares.sum::<f64>(), 0.25, absolute(1e-9));
    }
}
