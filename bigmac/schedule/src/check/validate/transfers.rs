//! Every value from its producer to its consumer, and no rank waiting for ever.

use super::{Place, TransferFault, ValidateError};
use crate::clock::Blocked;
use crate::step::{Op, Rank, Table, Value, Workload};

/// Rank and index of an op.
type At = (usize, usize);

/// Where a value is made, sent (and to which rank), received (and from which) and read.
#[derive(Clone, Copy, Default)]
struct Way {
    made: Option<At>,
    sent: Option<(At, Rank)>,
    received: Option<(At, Rank)>,
    read: Option<At>,
}

/// Checks that every value read on another rank than it is made on is sent and received once, in time, by the right
/// ranks, and nothing else is.
pub(super) fn check(table: &Table, workload: &Workload) -> Result<(), ValidateError> {
    let mut ways = vec![Way::default(); workload.value_count()];
    let mut values = Vec::new();
    for (rank, ops) in table.ranks.iter().enumerate() {
        for (index, op) in ops.iter().enumerate() {
            note(table, workload, (rank, index), op, &mut ways)?;
            if let Op::Send { value, .. } | Op::Recv { value, .. } = op {
                values.push(*value);
            }
            if op.is_compute() {
                op.for_each_consumed(workload, |value| values.push(value));
            }
        }
    }
    for value in values {
        let Some(index) = workload.value_index(value) else { continue };
        judge(table, value, &ways[index])?;
    }
    Ok(())
}

fn needless(table: &Table, at: At) -> ValidateError {
    let why = "moves a value that no op on another rank reads, or moves it again".to_owned();
    ValidateError::Op { place: Place::of(table, at), why }
}

fn note(table: &Table, workload: &Workload, at: At, op: &Op, ways: &mut [Way]) -> Result<(), ValidateError> {
    let needless = || needless(table, at);
    match op {
        Op::Compute { .. } | Op::Overlap { .. } => {
            op.for_each_produced(workload, |value| {
                if let Some(index) = workload.value_index(value) {
                    ways[index].made = Some(at);
                }
            });
            op.for_each_consumed(workload, |value| {
                if let Some(index) = workload.value_index(value) {
                    ways[index].read = Some(at);
                }
            });
        }
        Op::Send { value, to } => {
            let way = &mut ways[workload.value_index(*value).ok_or_else(needless)?];
            return way.sent.replace((at, *to)).map_or(Ok(()), |_| Err(needless()));
        }
        Op::Recv { value, from } => {
            let way = &mut ways[workload.value_index(*value).ok_or_else(needless)?];
            return way.received.replace((at, *from)).map_or(Ok(()), |_| Err(needless()));
        }
        Op::Step => {}
    }
    Ok(())
}

fn judge(table: &Table, value: Value, way: &Way) -> Result<(), ValidateError> {
    let crossing = way.made.zip(way.read).filter(|(made, read)| made.0 != read.0);
    let Some((made, read)) = crossing else {
        // A consumed value that no op makes is found by the run; here only a transfer of one is wrong.
        return way.sent.or(way.received).map_or(Ok(()), |(found, _)| Err(needless(table, found)));
    };
    let (from, to) = (Rank(made.0), Rank(read.0));
    let fault = match (way.sent, way.received) {
        (None, _) => Some(TransferFault::NotSent),
        (_, None) => Some(TransferFault::NotReceived),
        (Some((sent, named)), Some((received, sender))) => {
            if (sent.0, received.0, named, sender) != (made.0, read.0, to, from) {
                Some(TransferFault::WrongPeer)
            } else if sent.1 < made.1 {
                Some(TransferFault::SentTooEarly)
            } else if received.1 > read.1 {
                Some(TransferFault::ReceivedTooLate)
            } else {
                None
            }
        }
    };
    fault.map_or(Ok(()), |what| Err(ValidateError::Transfer { value, from, to, what }))
}

/// Runs the table with sends and receives that wait for each other, which is the strictest that a transport can be.
pub(super) fn rendezvous(table: &Table) -> Result<(), ValidateError> {
    let ranks = table.ranks.len();
    let mut next = vec![0usize; ranks];
    let mut ready: Vec<usize> = (0..ranks).collect();
    while let Some(rank) = ready.pop() {
        let ops = &table.ranks[rank];
        let at = |next: &[usize], rank: usize| table.ranks.get(rank).and_then(|ops| ops.get(next[rank]));
        while ops.get(next[rank]).is_some_and(|op| op.is_compute() || *op == Op::Step) {
            next[rank] += 1;
        }
        let peer = match ops.get(next[rank]) {
            Some(Op::Send { value, to }) => {
                (at(&next, to.0) == Some(&Op::Recv { value: *value, from: Rank(rank) })).then_some(to.0)
            }
            Some(Op::Recv { value, from }) => {
                (at(&next, from.0) == Some(&Op::Send { value: *value, to: Rank(rank) })).then_some(from.0)
            }
            _ => None,
        };
        if let Some(peer) = peer {
            next[rank] += 1;
            next[peer] += 1;
            ready.extend([peer, rank]);
        }
    }
    let blocked = |(rank, ops): (usize, &Vec<Op>)| {
        let op = ops.get(next[rank])?.clone();
        let missing = match &op {
            Op::Send { value, .. } | Op::Recv { value, .. } => vec![*value],
            Op::Compute { .. } | Op::Overlap { .. } | Op::Step => Vec::new(),
        };
        Some(Blocked { rank: Rank(rank), index: next[rank], op, missing })
    };
    let frontier: Vec<Blocked> = table.ranks.iter().enumerate().filter_map(blocked).collect();
    if frontier.is_empty() { Ok(()) } else { Err(ValidateError::Deadlock { frontier }) }
}
