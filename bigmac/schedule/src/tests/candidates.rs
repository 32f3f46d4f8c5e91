//! What each candidate of `nested`'s search is worth: a step for each that takes longer without it.

use super::run;
use crate::{ChunkCost, ItemCost, Load, PerModule, Workload};

/// A step under 1F1B with transfers that cost nothing. Backwards of items take twice their forwards.
struct Step {
    /// The candidate of `schedules/nested.rs` without which the step takes longer.
    needs: &'static str,
    ranks: usize,
    /// F, B and W of a stage.
    llm: [f64; 3],
    /// Forward of an image, and how many each microbatch has.
    image: f64,
    images: &'static [usize],
    /// Forward of a drawing, and how many each microbatch has.
    drawing: f64,
    drawings: &'static [usize],
    /// What the step takes, and may at most.
    time: f64,
    /// What it takes without the candidate.
    without: f64,
}

impl Step {
    fn workload(&self) -> Workload {
        let items = |forward, count| vec![ItemCost { forward, backward: 2.0 * forward }; count];
        let [forward, input, weight] = self.llm;
        let chunk = ChunkCost::of_parts(forward, input, weight);
        let loads = self.images.iter().zip(self.drawings).map(|(images, drawings)| Load {
            encoder: items(self.image, *images),
            generator: items(self.drawing, *drawings),
            llm: vec![chunk; self.ranks],
        });
        Workload::new(self.ranks, 1, loads.collect(), PerModule::all(true), 0.0).unwrap()
    }
}

/// Short steps found by random search, such that a candidate's removal makes its own step slower and no other.
const STEPS: &[Step] = &[
    Step {
        needs: "extra warm-up of 1",
        ranks: 2,
        llm: [4.0, 4.0, 0.0],
        image: 3.0,
        images: &[1, 1, 0, 0, 1, 0, 0, 0],
        drawing: 2.0,
        drawings: &[1, 1, 0, 0, 1, 0, 0, 0],
        time: 98.0,
        without: 102.0,
    },
    Step {
        needs: "extra warm-up of 2",
        ranks: 3,
        llm: [1.0, 3.0, 1.0],
        image: 4.0,
        images: &[2; 8],
        drawing: 4.0,
        drawings: &[2; 8],
        time: 184.0,
        without: 191.0,
    },
    Step {
        needs: "a head start of the encoder",
        ranks: 2,
        llm: [3.0, 3.0, 3.0],
        image: 4.0,
        images: &[1, 3, 0, 1, 3, 3],
        drawing: 1.0,
        drawings: &[2, 0, 3, 3, 3, 3],
        time: 149.0,
        without: 154.0,
    },
    Step {
        needs: "Flow(1)",
        ranks: 3,
        llm: [3.0, 4.0, 0.0],
        image: 4.0,
        images: &[1, 1, 1, 4, 1],
        drawing: 3.0,
        drawings: &[1, 1, 1, 4, 1],
        time: 103.0,
        without: 109.0,
    },
    Step {
        needs: "Flow(2)",
        ranks: 4,
        llm: [2.0, 2.0, 2.0],
        image: 3.0,
        images: &[3; 9],
        drawing: 4.0,
        drawings: &[3; 9],
        time: 209.0,
        without: 215.0,
    },
    Step {
        needs: "Flow(4)",
        ranks: 3,
        llm: [1.0, 3.0, 1.0],
        image: 4.0,
        images: &[0, 1, 0, 1, 0, 3, 0, 0, 1],
        drawing: 2.0,
        drawings: &[1, 0, 1, 0, 0, 2, 0, 1, 1],
        time: 97.0,
        without: 103.0,
    },
    Step {
        needs: "Grouped(2)",
        ranks: 4,
        llm: [2.0, 1.0, 0.0],
        image: 4.0,
        images: &[1, 1, 0, 0, 2, 1, 3, 1],
        drawing: 3.0,
        drawings: &[1, 1, 0, 0, 2, 1, 3, 1],
        time: 88.0,
        without: 92.0,
    },
    Step {
        needs: "Grouped(4)",
        ranks: 3,
        llm: [1.0, 4.0, 1.0],
        image: 1.0,
        images: &[1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0],
        drawing: 1.0,
        drawings: &[1, 0, 1, 1, 0, 1, 0, 0, 0, 1, 0, 1],
        time: 99.0,
        without: 102.0,
    },
    Step {
        needs: "Grouped(8)",
        ranks: 4,
        llm: [4.0, 4.0, 4.0],
        image: 3.0,
        images: &[2, 0, 0, 0, 2, 0, 0, 0, 2, 0],
        drawing: 4.0,
        drawings: &[2, 0, 0, 0, 2, 0, 0, 0, 2, 0],
        time: 186.0,
        without: 202.0,
    },
];

#[test]
fn every_candidate_of_the_search_is_worth_its_time() {
    let mut slower = Vec::new();
    for step in STEPS {
        let time = run("nested", &step.workload()).time();
        if time > step.time + 1e-9 {
            slower.push(format!("{}: {time} > {} ({} without it)", step.needs, step.time, step.without));
        }
    }
    assert!(slower.is_empty(), "slower by a candidate that is missing: {slower:#?}");
}
