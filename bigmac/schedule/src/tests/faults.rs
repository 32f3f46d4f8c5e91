//! Tables that are wrong are refused, and the message names the op.

use super::{build, workload};
use crate::check::{TransferFault, ValidateError, lower, validate};
use crate::clock::{SimulateError, simulate};
use crate::{Budget, Limits, Microbatch, ModuleKind, Op, Options, PerModule, Phase, Rank, Table, Workload};

fn shape() -> Workload {
    workload(3, 5, [1.0; 3], [3.0, 3.0], [3.0, 3.0], 0.0)
}

fn check(table: &Table, workload: &Workload) -> Result<(), ValidateError> {
    validate(table, workload, &Limits::default())
}

#[test]
fn every_dropped_op_is_missed() {
    let w = shape();
    for name in ["monolithic", "phased", "nested"] {
        for table in
            [build(name, &w, &Options::default()), lower(&build(name, &w, &Options::default()), &w).unwrap()]
        {
            check(&table, &w).unwrap();
            for rank in 0..table.ranks.len() {
                for index in 0..table.ranks[rank].len() {
                    let mut broken = table.clone();
                    let op = broken.ranks[rank].remove(index);
                    assert!(check(&broken, &w).is_err(), "{name} without {op} of rank {rank}");
                }
            }
        }
    }
}

#[test]
fn every_doubled_op_is_seen() {
    let w = shape();
    let table = lower(&build("nested", &w, &Options::default()), &w).unwrap();
    for rank in 0..table.ranks.len() {
        for index in 0..table.ranks[rank].len() {
            let mut broken = table.clone();
            let op = broken.ranks[rank][index].clone();
            broken.ranks[rank].insert(index, op.clone());
            assert!(check(&broken, &w).is_err(), "{op} twice on rank {rank}");
        }
    }
}

#[test]
fn swapping_an_op_with_one_it_needs_is_seen() {
    let w = shape();
    let table = build("nested", &w, &Options::default());
    let at = |op: &Op| {
        let rank = table.ranks.iter().position(|ops| ops.contains(op)).unwrap();
        (rank, table.ranks[rank].iter().position(|other| other == op).unwrap())
    };
    for microbatch in (0..5).map(Microbatch) {
        for chunk in (0..3).map(crate::Chunk) {
            let (rank, forward) = at(&Op::llm(chunk, Phase::Forward, microbatch));
            let (_, backward) = at(&Op::llm(chunk, Phase::Backward, microbatch));
            let mut broken = table.clone();
            broken.ranks[rank].swap(forward, backward);
            assert!(matches!(check(&broken, &w), Err(ValidateError::Order { .. })));
        }
    }
}

#[test]
fn a_circle_between_ranks_is_named() {
    let w = workload(2, 2, [1.0; 3], [0.0; 2], [0.0; 2], 0.0);
    let text = "rank 0: L0F0 L0B0 L0F1 L0B1 step\nrank 1: L1F0 L1F1 L1B0 L1B1 step";
    let Err(ValidateError::Run(SimulateError::Stuck { frontier })) = check(&text.parse().unwrap(), &w) else {
        panic!("accepted")
    };
    let frontier: Vec<String> = frontier.iter().map(ToString::to_string).collect();
    assert_eq!(
        frontier,
        ["rank 0 at op 1 (L0B0) waits for hidden_grad(0,0)", "rank 1 at op 1 (L1F1) waits for hidden(1,1)"]
    );
}

#[test]
fn crossing_sends_run_buffered_but_deadlock_when_they_wait() {
    let w = workload(2, 2, [1.0; 3], [0.0; 2], [0.0; 2], 0.0);
    let text = "rank 0: L0F0 send:hidden(0,1)>1 L0F1 send:hidden(1,1)>1 recv:hidden_grad(0,0)<1 L0B0 \
                recv:hidden_grad(1,0)<1 L0B1 step\n\
                rank 1: recv:hidden(0,1)<0 L1F0 L1B0 send:hidden_grad(0,0)>0 recv:hidden(1,1)<0 L1F1 L1B1 \
                send:hidden_grad(1,0)>0 step";
    let table: Table = text.parse().unwrap();
    simulate(&table, &w).unwrap();
    let Err(error @ ValidateError::Deadlock { .. }) = check(&table, &w) else { panic!("accepted") };
    let message = error.to_string();
    assert!(message.contains("rank 0 at op 3 (send:hidden(1,1)>1)"), "{message}");
    assert!(message.contains("rank 1 at op 3 (send:hidden_grad(0,0)>0)"), "{message}");
    // What `lower` makes of the same ops does not.
    let plain: Table = "rank 0: L0F0 L0F1 L0B0 L0B1 step\nrank 1: L1F0 L1B0 L1F1 L1B1 step".parse().unwrap();
    check(&lower(&plain, &w).unwrap(), &w).unwrap();
}

#[test]
fn transfers_out_of_place_are_named() {
    let w = workload(2, 1, [1.0; 3], [0.0; 2], [0.0; 2], 0.0);
    let base = "rank 0: L0F0 send:hidden(0,1)>1 recv:hidden_grad(0,0)<1 L0B0 step\n\
                rank 1: recv:hidden(0,1)<0 L1F0 L1B0 send:hidden_grad(0,0)>0 step";
    let fault = |from: &str, to: &str| match check(&base.replace(from, to).parse().unwrap(), &w) {
        Err(ValidateError::Transfer { what, .. }) => Some(what),
        Ok(()) => None,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(fault("x", "y"), None);
    assert_eq!(
        fault("L0F0 send:hidden(0,1)>1", "send:hidden(0,1)>1 L0F0"),
        Some(TransferFault::SentTooEarly)
    );
    assert_eq!(
        fault("recv:hidden(0,1)<0 L1F0", "L1F0 recv:hidden(0,1)<0"),
        Some(TransferFault::ReceivedTooLate)
    );
    assert_eq!(fault("send:hidden(0,1)>1", "send:hidden(0,1)>0"), Some(TransferFault::WrongPeer));
    assert_eq!(fault("recv:hidden(0,1)<0 ", ""), Some(TransferFault::NotReceived));
    assert_eq!(fault("send:hidden(0,1)>1 ", ""), Some(TransferFault::NotSent));
}

#[test]
fn work_that_makes_no_sense_is_named() {
    let w = workload(2, 1, [1.0; 3], [0.0; 2], [0.0; 2], 0.0);
    let good = "rank 0: L0F0 L0B0 step\nrank 1: L1F0 L1B0 step";
    let error = |from: &str, to: &str, w: &Workload| {
        check(&good.replacen(from, to, 1).parse().unwrap(), w).unwrap_err().to_string()
    };
    assert!(error("L0B0", "L0B0 L0W0", &w).contains("L0W0 (op 2 of rank 0) is needless"));
    assert!(error("L0B0", "L0I0", &w).contains("no weight gradient"));
    assert!(error("L0B0", "E0F0", &w).contains("encoder and generator work on items"));
    assert!(error("L0B0", "L0B[0.0]", &w).contains("works on microbatches"));
    assert!(error("L0B0", "L0B7", &w).contains("does not have"));
    assert!(error("L0B0", "E0F[0.0]", &w).contains("does not have"));
    assert!(error("L0B0 step", "L1B0 step", &w).contains("wrong rank"));
    assert!(error("L0B0 step", "step L0B0", &w).contains("not at its end"));
    let frozen = w.clone().with_learns(PerModule { encoder: false, llm: false, generator: false });
    assert!(error("x", "x", &frozen).contains("L0B0 (op 1 of rank 0) is needless"));
    let wrong: Table = "rank 0: step".parse().unwrap();
    assert!(check(&wrong, &w).unwrap_err().to_string().contains("1 ranks"));
    let split = "rank 0: L0F0 L0I0 L0W0 step\nrank 1: L1F0 L1I0 L1W0 step";
    check(&split.parse().unwrap(), &w).unwrap();
}

#[test]
fn budgets_are_kept_per_rank_and_unit() {
    let w = shape();
    let table = build("phased", &w, &Options::default());
    let limits = |encoder, bytes| Limits {
        budget: PerModule { encoder: Some(encoder), ..PerModule::default() },
        microbatch_bytes: PerModule { encoder: bytes, ..PerModule::default() },
    };
    // 5 microbatches, a third of each on every rank.
    let peak = Budget::Microbatches(5.0 / 3.0);
    validate(&table, &w, &limits(peak, None)).unwrap();
    let tight = validate(&table, &w, &limits(Budget::Microbatches(1.5), None)).unwrap_err();
    let ValidateError::Budget { module: ModuleKind::Encoder, rank: Rank(0), .. } = tight else {
        panic!("{tight}")
    };
    validate(&table, &w, &limits(Budget::Bytes(500), Some(300))).unwrap();
    let tight = validate(&table, &w, &limits(Budget::Bytes(499), Some(300))).unwrap_err();
    assert!(tight.to_string().contains("encoder activations peak at 500B on rank 0"), "{tight}");
    let unknown = validate(&table, &w, &limits(Budget::Bytes(1), None)).unwrap_err();
    assert_eq!(unknown, ValidateError::NoSize { module: ModuleKind::Encoder, budget: Budget::Bytes(1) });
}
