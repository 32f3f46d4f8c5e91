use super::*;
use crate::data::pack::{GroupCounts, balance};
use bigmac_runtime::rng::Purpose;
use proptest::prelude::*;
use std::collections::BTreeMap;

const TEST: Purpose = Purpose::new("packing test");

/// A set of captions, drawings and texts of several lengths.
fn mixed(samples: usize) -> Set {
    let lines: Vec<String> = (0..samples)
        .map(|i| {
            let text = "abcdefghijklmnopqrstuvwxyz!"[..1 + i * 7 % 27].to_owned();
            match i % 3 {
                0 => format!(r#"{{"text": "<image>{text}", "images": ["a.png"]}}"#),
                1 => format!(r#"{{"prompt": "{text}", "draw": "b.png"}}"#),
                _ => format!(r#"{{"prompt": "{text}", "text": "{text}<image>", "images": ["sub/c.png"], "draw": "a.png"}}"#),
            }
        })
        .collect();
    Set::new("train.jsonl", lines.join("\n"))
}

#[test]
fn a_step_is_laid_out_as_the_executor_reads_it() {
    let set = Set::lines(&[
        r#"{"text": "<image>ab", "images": ["a.png"]}"#,
        r#"{"prompt": "c", "draw": "b.png"}"#,
        r#"{"text": "d"}"#,
    ]);
    let plan = pack(&set.load().unwrap(), &[0, 1, 2], 2).unwrap();
    assert_eq!((plan.target_tokens, plan.drawn_samples, plan.drawn_elements), (3 + 1 + 2, 1, 3 * 4 * 4));
    let [first, second] = plan.microbatches.as_slice() else {
        panic!("{} microbatches", plan.microbatches.len())
    };
    assert_eq!((&first.samples[..], &first.tokens), (&[0][..], &ids("BIIIIabE")));
    assert_eq!((&first.images[0].rows, first.images[0].size, first.images[0].sample), (&(1..5), 8, 0));
    assert_eq!(second.tokens, ids("BcDBdE"));
    assert_eq!(second.targets, targets(".D.dE."));
    assert_eq!(second.positions, [0, 1, 2, 0, 1, 2]);
    assert_eq!(
        (&second.bounds[..], &second.samples[..], &second.records[..]),
        (&[0, 3, 6][..], &[1, 2][..], &[1, 2][..])
    );
    assert_eq!((&second.draws[0].cond_rows, second.draws[0].size, second.draws[0].sample), (&(0..2), 4, 1));
    assert_eq!(load_draw_item(&second.draws[0], &LAYOUT.limits).unwrap().len(), 48);
    assert_eq!(load_image_item(&first.images[0], &LAYOUT.limits).unwrap().len(), 192);
}

#[test]
fn a_step_depends_on_seed_and_number_alone() {
    let set = mixed(50);
    let planner = set.planner(12, 3, 7);
    let plans: Vec<StepPlan> = (0..20).map(|step| planner.step(step)).collect();
    // Asked in any order, by another planner, from a set read again.
    for step in [19, 3, 11, 0] {
        assert_eq!(set.planner(12, 3, 7).step(step), plans[step as usize]);
    }
    assert_ne!(set.planner(12, 3, 8).step(0), plans[0]);
    assert_ne!(plans[0], plans[1]);
}

#[test]
fn an_epoch_shows_every_sample_once_across_steps() {
    let planner = mixed(50).planner(12, 3, 7);
    // 25 steps of 12 are 6 epochs of 50.
    let stream: Vec<usize> = (0..25).flat_map(|step| planner.records(step)).collect();
    let epochs: Vec<&[usize]> = stream.chunks(50).collect();
    for epoch in &epochs {
        let mut sorted = epoch.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
    assert!(epochs.windows(2).all(|pair| pair[0] != pair[1]));
    assert_ne!(epochs[0], (0..50).collect::<Vec<_>>());
}

#[test]
fn a_batch_may_be_larger_than_the_set() {
    let plan = mixed(3).planner(8, 2, 0).step(5);
    let mut counts = BTreeMap::new();
    plan.microbatches.iter().flat_map(|m| &m.records).for_each(|r| *counts.entry(*r).or_insert(0) += 1);
    assert!(counts.values().all(|&count| count == 2 || count == 3 || count == 4), "{counts:?}");
    let mut samples: Vec<u32> = plan.microbatches.iter().flat_map(|m| m.samples.clone()).collect();
    samples.sort_unstable();
    assert_eq!(samples, (0..8).collect::<Vec<_>>());
}

#[test]
fn settings_that_cannot_be_met_are_errors() {
    let data = Arc::new(mixed(5).load().unwrap());
    for (batch, microbatches) in [(0, 1), (3, 0), (3, 4)] {
        let shape = StepShape { batch, microbatches, replicas: 1, seed: 0 };
        let error = Planner::new(Arc::clone(&data), shape).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{batch} samples cannot fill {microbatches} microbatches")),
            "{error}"
        );
    }
    assert!(pack(&data, &[5], 1).unwrap_err().to_string().contains("no sample 5"));
}

#[test]
fn orders_are_even() {
    // Over many seeds every sample comes to every place equally often: 2,000 draws over 6 samples, expected 333.3 each,
    // chi-squared with 5 degrees of freedom stays below 25.7 with probability 0.9999.
    for place in 0..6 {
        let mut counts = [0f64; 6];
        (0..2000).for_each(|seed| counts[EpochOrder::new(seed, TEST, 6).at(place)] += 1.0);
        let chi: f64 = counts.iter().map(|c| (c - 2000.0 / 6.0).powi(2) / (2000.0 / 6.0)).sum();
        assert!(chi < 25.7, "place {place}: {counts:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_order_is_a_permutation(len in 1usize..3000, seed: u64, epoch in 0u64..5) {
        let order = EpochOrder::new(seed, TEST, len);
        let mut seen = vec![false; len];
        for place in 0..len as u64 {
            seen[order.at(epoch * len as u64 + place)] = true;
        }
        prop_assert!(seen.into_iter().all(|s| s));
    }

    #[test]
    fn groups_hold_every_item_once_within_capacity_and_evenly(
        lengths in proptest::collection::vec(1usize..100, 1..80),
        fewest in 1usize..12,
        spare in 0usize..200,
        multiple in 1usize..5,
    ) {
        let fewest = fewest.min(lengths.len());
        let longest = *lengths.iter().max().unwrap();
        let capacity = longest + spare;
        let groups = balance(&lengths, GroupCounts { fewest, multiple }, capacity);
        let mut items: Vec<usize> = groups.concat();
        items.sort_unstable();
        prop_assert_eq!(items, (0..lengths.len()).collect::<Vec<_>>());
        prop_assert!(groups.len() >= fewest && groups.iter().all(|g| !g.is_empty() && g.is_sorted()));
        let loads: Vec<usize> = groups.iter().map(|g| g.iter().map(|&i| lengths[i]).sum()).collect();
        let (least, most) = (*loads.iter().min().unwrap(), *loads.iter().max().unwrap());
        prop_assert!(most <= capacity);
        // Whatever went onto the fullest group went there when it was the lightest.
        prop_assert!(most - least <= longest);
        prop_assert_eq!(most, fullest(&lengths, groups.len()));
        // Replicas get as many each, where there are items enough.
        prop_assert!(groups.len().is_multiple_of(multiple) || groups.len() == lengths.len());
        // The next fewer would have been too few, or fewer than asked for.
        let least = fewest.next_multiple_of(multiple).min(lengths.len());
        if groups.len() > least {
            let fewer = least + (groups.len() - 1 - least) / multiple * multiple;
            prop_assert!(fullest(&lengths, fewer) > capacity);
        }
    }

    #[test]
    fn packed_samples_are_the_samples_themselves(samples in 1usize..40, batch in 1usize..30, wanted in 1usize..6, step in 0u64..1000, seed: u64) {
        let planner = mixed(samples).planner(batch, wanted.min(batch), seed);
        let data = planner.dataset();
        let plan = planner.step(step);
        let records = planner.records(step);
        let mut seen = vec![false; batch];
        let (mut target_tokens, mut draws) = (0, 0);
        for m in &plan.microbatches {
            prop_assert!(!m.is_empty() && m.len() <= LAYOUT.tokens_per_microbatch);
            prop_assert!(m.tokens.len() == m.targets.len() && m.tokens.len() == m.positions.len());
            prop_assert_eq!(m.bounds.len(), m.samples.len() + 1);
            prop_assert_eq!((m.bounds[0], *m.bounds.last().unwrap()), (0, m.len()));
            for (i, &sample) in m.samples.iter().enumerate() {
                prop_assert!(!std::mem::replace(&mut seen[sample as usize], true));
                prop_assert_eq!(m.records[i], records[sample as usize]);
                let (start, end) = (m.bounds[i], m.bounds[i + 1]);
                let alone = data.expand(m.records[i]);
                prop_assert_eq!(&m.tokens[start..end], &alone.tokens[..]);
                prop_assert_eq!(&m.targets[start..end], &alone.targets[..]);
                prop_assert!(m.positions[start..end].iter().copied().eq(0..(end - start) as u32));
                prop_assert_eq!(m.targets[end - 1], IGNORE);
                let rows: Vec<_> = m.images.iter().filter(|item| item.sample == sample).map(|item| item.rows.clone()).collect();
                let wanted: Vec<_> = alone.images.iter().map(|p| start + p.rows.start..start + p.rows.end).collect();
                prop_assert_eq!(rows, wanted);
                let cond: Vec<_> = m.draws.iter().filter(|item| item.sample == sample).map(|item| item.cond_rows.clone()).collect();
                let wanted: Vec<_> = alone.draw_at.iter().map(|at| start..start + at).collect();
                prop_assert_eq!(cond, wanted);
            }
            let image = data.tokenizer.specials().image;
            let mut marked: Vec<usize> = m.images.iter().flat_map(|item| item.rows.clone()).collect();
            marked.sort_unstable();
            let tokens: Vec<usize> = (0..m.len()).filter(|&i| m.tokens[i] == image).collect();
            prop_assert_eq!(marked, tokens);
            target_tokens += m.targets.iter().filter(|&&t| t != IGNORE).count();
            draws += m.draws.len();
        }
        prop_assert!(seen.into_iter().all(|s| s));
        prop_assert_eq!((plan.target_tokens, plan.drawn_samples, plan.drawn_elements), (target_tokens, draws, draws * 48));
    }
}

/// Load of the fullest of `groups` groups under longest first to the lightest, written plainly.
fn fullest(lengths: &[usize], groups: usize) -> usize {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let mut loads = vec![0; groups];
    for length in sorted {
        *loads.iter_mut().min().unwrap() += length;
    }
    loads.into_iter().max().unwrap()
}
