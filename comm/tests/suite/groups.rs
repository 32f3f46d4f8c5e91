//! Groups split off a world.

use super::*;
use bigmac_comm::{Reduce, Tag};
use bigmac_runtime::Spec;

/// Ranks of this world that gave the same color, in the order of their keys.
fn expected(size: usize, color: impl Fn(usize) -> u64, key: impl Fn(usize) -> i64, mine: u64) -> Vec<usize> {
    let mut ranks: Vec<usize> = (0..size).filter(|&rank| color(rank) == mine).collect();
    ranks.sort_by_key(|&rank| (key(rank), rank));
    ranks
}

/// The members of a group, by what each says it was in the world.
fn members(ctx: &Context, comm: &dyn Communicator, in_world: usize) -> Vec<usize> {
    let mine = Tensor::from_slice(ctx, &[in_world as u32], &[1]).unwrap();
    let all = comm.all_gather(ctx, &mine).unwrap();
    all.as_slice::<u32>().unwrap().iter().map(|&rank| rank as usize).collect()
}

pub fn groups(ctx: &Context, comm: &dyn Communicator) {
    let color = |rank: usize| (rank % 3) as u64 * 1_000_000_007;
    for key in [|rank: usize| rank as i64, |rank: usize| -(rank as i64), |_: usize| 5] {
        let group = comm.split(color(comm.rank()), key(comm.rank())).unwrap();
        let expected = expected(comm.size(), color, key, color(comm.rank()));
        assert_eq!(group.size(), expected.len());
        assert_eq!(expected[group.rank()], comm.rank());
        assert_eq!(members(ctx, &*group, comm.rank()), expected);
    }
}

pub fn groups_of_groups(ctx: &Context, comm: &dyn Communicator) {
    let world = comm.rank();
    let half = comm.split(u64::from(world >= comm.size() / 2), 0).unwrap();
    let alone = half.split(world as u64, 0).unwrap();
    assert_eq!((alone.size(), members(ctx, &*alone, world)), (1, vec![world]));
    let again = half.split(0, -(world as i64)).unwrap();
    let mut expected = members(ctx, &*half, world);
    expected.reverse();
    assert_eq!(members(ctx, &*again, world), expected);
    // The world goes on while its groups live.
    assert_eq!(members(ctx, comm, world), (0..comm.size()).collect::<Vec<_>>());
}

pub fn groups_keep_tags_apart(ctx: &Context, comm: &dyn Communicator) {
    let twin = comm.split(0, 0).unwrap();
    let next = (comm.rank() + 1) % comm.size();
    let before = (comm.rank() + comm.size() - 1) % comm.size();
    comm.send(ctx, tensor::<f32>(ctx, 1, &[3]), next, Tag(0)).unwrap();
    twin.send(ctx, tensor::<f32>(ctx, 2, &[3]), next, Tag(0)).unwrap();
    for (comm, what) in [(&*twin, 2), (comm, 1)] {
        let got = comm.recv(ctx, before, Tag(0), &Spec::new(&[3], F32)).unwrap();
        assert_eq!(got.as_slice::<f32>().unwrap(), values::<f32>(what, 3));
    }
    let mut x = tensor::<f32>(ctx, comm.rank(), &[2]);
    twin.all_reduce(ctx, &mut x, Reduce::Max).unwrap();
    comm.all_reduce(ctx, &mut x, Reduce::Max).unwrap();
}
