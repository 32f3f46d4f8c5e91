//! LLM activations that ranks hold while a plan is made.

use super::tasks::{Hold, Tasks};

/// What each rank holds. Where ranks have several chunks, forwards of late microbatches could fill a rank before the
/// earliest one has run through all its chunks there, and all would wait for ever: room for that one is kept free.
#[derive(Debug)]
pub(super) struct LlmHeld {
    held: Vec<u64>,
    /// By rank, then by the order of the microbatches: how much is still to be acquired; empty with one chunk per rank,
    /// where the order of the stages rules such waits out.
    missing: Vec<Vec<u64>>,
    /// By rank: the first that is not 0.
    first: Vec<usize>,
}

impl LlmHeld {
    pub(super) fn new(graph: &Tasks, ranks: usize) -> LlmHeld {
        let mut missing = Vec::new();
        if graph.chunks_per_rank > 1 {
            missing = vec![vec![0u64; graph.microbatches]; ranks];
            for (index, task) in graph.tasks.iter().enumerate() {
                if let Hold::Llm(part) = task.acquire {
                    let missing = &mut missing[task.rank as usize][graph.position(index as u32)];
                    *missing = missing.saturating_add(part);
                }
            }
        }
        let mut held = LlmHeld { held: vec![0; ranks], missing, first: vec![0; ranks] };
        (0..ranks).for_each(|rank| held.advance(rank));
        held
    }

    /// Whether a rank that may hold `room` can take `part` for the microbatch at `position`.
    pub(super) fn fits(&self, rank: usize, part: u64, position: usize, room: u64) -> bool {
        let first = self.first[rank];
        let kept = self.missing.get(rank).and_then(|missing| missing.get(first)).copied().unwrap_or(0);
        let kept = if position == first { 0 } else { kept };
        self.held[rank].saturating_add(part).saturating_add(kept) <= room
    }

    pub(super) fn acquire(&mut self, rank: usize, part: u64, position: usize) {
        self.held[rank] = self.held[rank].saturating_add(part);
        if let Some(missing) = self.missing.get_mut(rank) {
            missing[position] = missing[position].saturating_sub(part);
            self.advance(rank);
        }
    }

    pub(super) fn release(&mut self, rank: usize, part: u64) {
        self.held[rank] = self.held[rank].saturating_sub(part);
    }

    fn advance(&mut self, rank: usize) {
        let Some(missing) = self.missing.get(rank) else { return };
        while missing.get(self.first[rank]) == Some(&0) {
            self.first[rank] += 1;
        }
    }
}
