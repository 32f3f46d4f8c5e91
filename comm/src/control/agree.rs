//! What all ranks must have in common, and the sentence about what they do not.

use super::words::{list, ranks};
use std::collections::{BTreeMap, BTreeSet};

/// What one rank says of itself.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub rank: usize,
    pub version: &'a str,
    pub facts: &'a BTreeMap<String, String>,
}

/// The longest value that is printed whole, in characters.
const LONGEST: usize = 120;

/// The first thing that differs, with all its values and ranks; none where all agree.
pub(super) fn difference(claims: &[Claim<'_>]) -> Option<String> {
    if let Some(values) = values(claims, |claim| Some(claim.version)) {
        return Some(format!(
            "the version of BigMac is {values}: run the same program on all hosts, from the same build"
        ));
    }
    let keys: BTreeSet<&str> =
        claims.iter().flat_map(|claim| claim.facts.keys().map(String::as_str)).collect();
    let of = |key: &str| values(claims, |claim| claim.facts.get(key).map(String::as_str));
    let mut differing = keys.into_iter().filter_map(|key| Some((key, of(key)?)));
    let (key, values) = differing.next()?;
    let more = match differing.count() {
        0 => String::new(),
        1 => " (and 1 more key differs)".into(),
        count => format!(" (and {count} more keys differ)"),
    };
    Some(format!(
        "{key} is {values}{more}: start all ranks with the same configuration, on hosts of the same kind"
    ))
}

/// `'a' on ranks 0 to 2 and 'b' on rank 3`; none when all have the same.
fn values<'a>(claims: &[Claim<'a>], of: impl Fn(&Claim<'a>) -> Option<&'a str>) -> Option<String> {
    let mut found: Vec<(Option<&str>, Vec<usize>)> = Vec::new();
    for claim in claims {
        let value = of(claim);
        match found.iter_mut().find(|(known, _)| *known == value) {
            Some((_, ranks)) => ranks.push(claim.rank),
            None => found.push((value, vec![claim.rank])),
        }
    }
    let said = |(value, on): &(Option<&str>, Vec<usize>)| {
        let value = value.map_or("not set".into(), |value| format!("'{}'", shortened(value)));
        format!("{value} on {}", ranks(on))
    };
    (found.len() > 1).then(|| list(&found.iter().map(said).collect::<Vec<_>>()))
}

fn shortened(value: &str) -> String {
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    fn said(all: &[BTreeMap<String, String>]) -> Option<String> {
        let claim = |(rank, facts)| Claim { rank, version: "1", facts };
        difference(&all.iter().enumerate().map(claim).collect::<Vec<_>>())
    }

    #[test]
    fn key_values_and_ranks_are_named() {
        let nested = facts(&[("pipeline.schedule", "nested"), ("seed", "1")]);
        let phased = facts(&[("pipeline.schedule", "phased"), ("seed", "2")]);
        assert_eq!(said(&[nested.clone(), nested.clone()]), None);
        assert_eq!(
            said(&[nested.clone(), nested.clone(), nested.clone(), phased]).unwrap(),
            "pipeline.schedule is 'nested' on ranks 0 to 2 and 'phased' on rank 3 (and 1 more key differs): start all \
             ranks with the same configuration, on hosts of the same kind"
        );
        let less = facts(&[("pipeline.schedule", "nested")]);
        assert!(said(&[less, nested]).unwrap().starts_with("seed is not set on rank 0 and '1' on rank 1: "));
        let long = |end: &str| facts(&[("prompt", &("ä".repeat(200) + end))]);
        assert!(said(&[long("a"), long("b")]).unwrap().len() < 800);
    }

    #[test]
    fn the_version_comes_first() {
        let (one, two) = (facts(&[("a", "1")]), facts(&[("a", "2")]));
        let claims = [("0.1", &one), ("0.2", &two)];
        let claim = |(rank, (version, facts))| Claim { rank, version, facts };
        assert_eq!(
            difference(&claims.into_iter().enumerate().map(claim).collect::<Vec<_>>()).unwrap(),
            "the version of BigMac is '0.1' on rank 0 and '0.2' on rank 1: run the same program on all hosts, from the \
             same build"
        );
    }

    proptest! {
        #[test]
        fn a_difference_is_found_exactly_where_there_is_one(
            all in prop::collection::vec(prop::collection::btree_map("[a-c]", "[xy]", 0..3), 1..5)
        ) {
            prop_assert_eq!(said(&all).is_none(), all.iter().all(|facts| *facts == all[0]));
        }
    }
}
