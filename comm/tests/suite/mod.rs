//! What every communicator must do. A case runs on all ranks of a world at once; another implementation is tested by
//! running [`CASES`] in worlds of its own.

mod collectives;
mod groups;
mod messages;

use bigmac_comm::Communicator;
use bigmac_runtime::{Context, DType, Element, Tensor};
use half::{bf16, f16};

/// A case: panics when the communicator is wrong. The context is the one whose memory received tensors are counted in.
pub type Case = fn(&Context, &dyn Communicator);

/// Every case, by name.
pub const CASES: &[(&str, Case)] = &[
    ("out_of_order", messages::out_of_order),
    ("same_tag_keeps_order", messages::same_tag_keeps_order),
    ("many_in_flight", messages::many_in_flight),
    ("scopes_are_exact", messages::scopes_are_exact),
    ("views_are_copied", messages::views_are_copied),
    ("wrong_spec", messages::wrong_spec),
    ("budgets_are_kept", messages::budgets_are_kept),
    ("bad_arguments", messages::bad_arguments),
    ("sizes_and_dtypes", messages::sizes_and_dtypes),
    ("sizes_do_not_change_the_order", messages::sizes_do_not_change_the_order),
    ("no_room_at_the_receiver", messages::no_room_at_the_receiver),
    ("planned_tensors_travel_as_shapes", messages::planned_tensors_travel_as_shapes),
    ("all_reduce", collectives::all_reduce),
    ("all_reduce_whatever_the_timing", collectives::all_reduce_whatever_the_timing),
    ("reduce_scatter_and_all_gather", collectives::reduce_scatter_and_all_gather),
    ("all_gather_of_uneven_rows", collectives::all_gather_of_uneven_rows),
    ("broadcast", collectives::broadcast),
    ("all_to_all_v", collectives::all_to_all_v),
    ("random_values", collectives::random_values),
    ("barrier_waits", collectives::barrier_waits),
    ("collectives_leave_no_memory", collectives::collectives_leave_no_memory),
    ("groups", groups::groups),
    ("groups_of_groups", groups::groups_of_groups),
    ("groups_keep_tags_apart", groups::groups_keep_tags_apart),
];

/// Cases that take long, for worlds of a few ranks.
pub const LARGE: &[(&str, Case)] = &[("large_messages_cross", messages::large_messages_cross)];

/// Runs a case as if it were the first: the memory's peaks are forgotten.
pub fn run(name: &str, case: Case, ctx: &Context, comm: &dyn Communicator) {
    for scope in ctx.memory().all_scopes() {
        assert_eq!(scope.current(), 0, "before {name}: {}", scope.name());
        scope.reset_peak();
    }
    // No rank sends for the case before all have looked.
    comm.barrier().unwrap();
    case(ctx, comm);
    comm.barrier().unwrap();
}

/// A value that tells rank and index, and whose sums over ranks depend on the order.
fn value(rank: usize, i: usize) -> f64 {
    let sign = if (rank + i) % 3 == 1 { -1.0 } else { 1.0 };
    sign * (1.0 + (rank * 37 + i * 11) as f64 / 13.0) * [1.0, 1.0e7, 1.0e-3, -1.0e7][rank % 4]
}

trait Number: Element {
    fn of(x: f64) -> Self;
    fn to(self) -> f64;
    /// The sum as it must be taken: in rank order, in the accumulator's type, rounded once.
    fn sum(values: impl Iterator<Item = Self>) -> Self;
}

macro_rules! numbers {
    ($($t:ty, $of:expr, $to:expr, $acc:expr, $round:expr;)*) => {$(
        impl Number for $t {
            fn of(x: f64) -> Self {
                $of(x)
            }
            fn to(self) -> f64 {
                $to(self)
            }
            fn sum(values: impl Iterator<Item = Self>) -> Self {
                values.map($acc).reduce(|a, b| a + b).map($round).unwrap()
            }
        }
    )*};
}
numbers! {
    f64, |x| x, |x| x, |x: f64| x, |x| x;
    f32, |x| x as f32, |x: f32| f64::from(x), |x: f32| x, |x| x;
    bf16, bf16::from_f64, bf16::to_f64, |x: bf16| x.to_f32(), bf16::from_f32;
    f16, f16::from_f64, f16::to_f64, |x: f16| x.to_f32(), f16::from_f32;
}

fn values<T: Number>(rank: usize, len: usize) -> Vec<T> {
    (0..len).map(|i| T::of(value(rank, i))).collect()
}

/// Rank's tensor of that shape.
fn tensor<T: Number>(ctx: &Context, rank: usize, shape: &[usize]) -> Tensor {
    Tensor::from_slice(ctx, &values::<T>(rank, shape.iter().product()), shape).unwrap()
}

/// The bytes of values: equal only when every bit is.
fn bytes<T: Element>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// Bytes counted under a scope now.
fn current(ctx: &Context, scope: &str) -> usize {
    ctx.memory().scope(scope).current()
}

const F32: DType = DType::F32;
