//! Which rank does what in a run of several pipelines, and the groups of ranks that it speaks to.

use crate::config::RankOrder;
use bigmac_comm::{CommError, Communicator};
use bigmac_schedule::Rank;

/// Replicas of a pipeline, and how their ranks are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Pipelines that share each step.
    pub replicas: usize,
    /// Ranks of each.
    pub stages: usize,
    /// Whether consecutive ranks are the replicas of a stage, not the stages of a pipeline.
    replicas_first: bool,
}

impl Grid {
    /// `replicas` pipelines of `stages` ranks each, whose processes run on so many `hosts`.
    pub fn new(replicas: usize, stages: usize, order: RankOrder, hosts: usize) -> Self {
        let replicas_first = match order {
            RankOrder::PpFirst => false,
            RankOrder::DpFirst => true,
            RankOrder::Auto => hosts > 1,
        };
        Grid { replicas, stages, replicas_first }
    }

    /// One pipeline.
    pub fn single(stages: usize) -> Self {
        Grid { replicas: 1, stages, replicas_first: false }
    }

    /// How many ranks there are.
    pub fn ranks(&self) -> usize {
        self.replicas * self.stages
    }

    /// The replica that a rank belongs to.
    pub fn replica(&self, rank: usize) -> usize {
        if self.replicas_first { rank % self.replicas.max(1) } else { rank / self.stages.max(1) }
    }

    /// A rank's place in its pipeline.
    pub fn stage(&self, rank: usize) -> Rank {
        Rank(if self.replicas_first { rank / self.replicas.max(1) } else { rank % self.stages.max(1) })
    }
}

/// One rank's ends of the groups that it belongs to.
#[derive(Debug)]
pub struct Groups<'a> {
    world: &'a dyn Communicator,
    /// Only where there are several pipelines.
    several: Option<Several>,
}

#[derive(Debug)]
struct Several {
    replica: usize,
    pipeline: Box<dyn Communicator>,
    copies: Box<dyn Communicator>,
}

impl<'a> Groups<'a> {
    /// A collective that cuts `world` as the grid says.
    ///
    /// # Errors
    /// Those of [`Communicator::split`].
    pub fn of(world: &'a dyn Communicator, grid: Grid) -> Result<Self, CommError> {
        if grid.replicas == 1 {
            return Ok(Groups::single(world));
        }
        let (replica, stage) = (grid.replica(world.rank()), grid.stage(world.rank()));
        let pipeline = world.split(replica as u64, stage.0 as i64)?;
        let copies = world.split(stage.0 as u64, replica as i64)?;
        Ok(Groups { world, several: Some(Several { replica, pipeline, copies }) })
    }

    /// The groups of a run of one pipeline.
    pub fn single(world: &'a dyn Communicator) -> Self {
        Groups { world, several: None }
    }

    /// All ranks.
    pub fn world(&self) -> &dyn Communicator {
        self.world
    }

    /// The ranks of this pipeline, in the order of its stages.
    pub fn pipeline(&self) -> &dyn Communicator {
        self.several.as_ref().map_or(self.world, |several| &*several.pipeline)
    }

    /// The ranks that hold the same stage, in the order of their replicas; none where there is one pipeline.
    pub fn copies(&self) -> Option<&dyn Communicator> {
        self.several.as_ref().map(|several| &*several.copies)
    }

    /// Which replica of the pipeline this is.
    pub fn replica(&self) -> usize {
        self.several.as_ref().map_or(0, |several| several.replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_stage_of_every_replica_has_one_rank() {
        for (order, hosts) in
            [(RankOrder::PpFirst, 4), (RankOrder::DpFirst, 1), (RankOrder::Auto, 1), (RankOrder::Auto, 2)]
        {
            for (replicas, stages) in [(1, 1), (1, 5), (4, 1), (2, 3), (3, 2)] {
                let grid = Grid::new(replicas, stages, order, hosts);
                let places: BTreeSet<_> =
                    (0..grid.ranks()).map(|rank| (grid.replica(rank), grid.stage(rank).0)).collect();
                let all: BTreeSet<_> = (0..replicas).flat_map(|r| (0..stages).map(move |s| (r, s))).collect();
                assert_eq!(places, all, "{grid:?}");
                assert_eq!((grid.replica(0), grid.stage(0)), (0, Rank(0)));
            }
        }
    }

    #[test]
    fn consecutive_ranks_are_a_pipeline_or_share_a_stage() {
        let stages = |order, hosts| {
            let grid = Grid::new(2, 3, order, hosts);
            (0..6).map(|rank| grid.stage(rank).0).collect::<Vec<_>>()
        };
        assert_eq!(stages(RankOrder::PpFirst, 2), [0, 1, 2, 0, 1, 2]);
        assert_eq!(stages(RankOrder::DpFirst, 1), [0, 0, 1, 1, 2, 2]);
        assert_eq!(stages(RankOrder::Auto, 1), stages(RankOrder::PpFirst, 1));
        assert_eq!(stages(RankOrder::Auto, 2), stages(RankOrder::DpFirst, 1));
    }
}
