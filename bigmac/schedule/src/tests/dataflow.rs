//! What ops consume and produce, and which backwards exist.

use super::workload;
use crate::{Chunk, Item, Microbatch, ModuleKind, Op, PerModule, Phase, Value};

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
