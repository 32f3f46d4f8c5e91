//! Numbers in sentences.

use std::time::Duration;

/// `rank 3`, `ranks 0 to 2`, `ranks 0, 2 and 5 to 7`: of ascending ranks.
pub(super) fn ranks(ranks: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &rank in ranks {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == rank => *last = rank,
            _ => runs.push((rank, rank)),
        }
    }
    let run = |&(first, last): &(usize, usize)| match last - first {
        0 => vec![first.to_string()],
        1 => vec![first.to_string(), last.to_string()],
        _ => vec![format!("{first} to {last}")],
    };
    let words: Vec<String> = runs.iter().flat_map(run).collect();
    format!("{} {}", if ranks.len() == 1 { "rank" } else { "ranks" }, list(&words))
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(words: &[String]) -> String {
    match words {
        [] => "none".into(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// `30 s`, `0.5 s`.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{} s", (duration.as_secs_f64() * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_ranks_are_put_together() {
        assert_eq!(ranks(&[3]), "rank 3");
        assert_eq!(ranks(&[0, 1]), "ranks 0 and 1");
        assert_eq!(ranks(&[0, 1, 2]), "ranks 0 to 2");
        assert_eq!(ranks(&[0, 2, 5, 6, 7]), "ranks 0, 2 and 5 to 7");
        assert_eq!(ranks(&[1, 2, 4]), "ranks 1, 2 and 4");
        assert_eq!(seconds(Duration::from_millis(3040)), "3 s");
        assert_eq!(seconds(Duration::from_millis(500)), "0.5 s");
    }
}
