//! The idle times of a simulated table, to be filled.

use crate::clock::simulate::Simulation;

/// Per rank the intervals in which it idles, until its last op ends on any rank.
pub(crate) struct Gaps {
    ranks: Vec<Vec<(f64, f64)>>,
}

impl Gaps {
    /// The gaps of a simulation, from 0 to its end.
    pub(crate) fn new(simulation: &Simulation) -> Gaps {
        let end = simulation.time();
        let ranks = simulation.spans.iter().map(|spans| {
            let mut gaps = Vec::new();
            let mut free = 0.0;
            for span in spans {
                if span.start > free {
                    gaps.push((free, span.start));
                }
                free = span.end.max(free);
            }
            if end > free {
                gaps.push((free, end));
            }
            gaps
        });
        Gaps { ranks: ranks.collect() }
    }

    /// Takes the latest interval of a length of `cost(rank)` on any rank that ends by `deadline`; its rank and start.
    pub(crate) fn take_latest(&mut self, deadline: f64, cost: impl Fn(usize) -> f64) -> Option<(usize, f64)> {
        let latest = |(rank, gaps): (usize, &Vec<(f64, f64)>)| {
            let cost = cost(rank);
            let count = gaps.partition_point(|(start, _)| *start < deadline);
            let fits = |(start, end): &(f64, f64)| end.min(deadline) - start >= cost;
            let index = gaps[..count].iter().rposition(fits)?;
            Some((gaps[index].1.min(deadline) - cost, rank, index, cost))
        };
        let candidates = self.ranks.iter().enumerate().filter_map(latest);
        // Of equally late ones that of the lowest rank.
        let best = candidates.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let (start, rank, index, cost) = best?;
        self.cut(rank, index, start, cost);
        Some((rank, start))
    }

    /// Takes the earliest interval of length `cost` on `rank` that starts at `release` or later; its start.
    pub(crate) fn take_earliest(&mut self, rank: usize, release: f64, cost: f64) -> Option<f64> {
        let gaps = &self.ranks[rank];
        let first = gaps.partition_point(|(_, end)| *end <= release);
        let fits = |(start, end): &(f64, f64)| end - start.max(release) >= cost;
        let index = first + gaps[first..].iter().position(fits)?;
        let start = gaps[index].0.max(release);
        self.cut(rank, index, start, cost);
        Some(start)
    }

    fn cut(&mut self, rank: usize, index: usize, start: f64, cost: f64) {
        let (from, to) = self.ranks[rank][index];
        let left = [(from, start), (start + cost, to)].into_iter().filter(|(from, to)| to > from);
        self.ranks[rank].splice(index..=index, left);
    }
}
