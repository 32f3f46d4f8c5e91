//! Ranks that do not belong together: one sentence, the same on all of them.

use super::*;

/// What all of them are told: the same sentence, an error of the input.
fn sentence(world: usize, hellos: Vec<Hello>) -> String {
    let hub = hub(world, LIMITS);
    let results = join_all(&hub.address().to_string(), hellos, LIMITS);
    let errors: Vec<_> = results.into_iter().map(Result::unwrap_err).collect();
    for error in &errors {
        assert!(error.is_input() && !error.is_loss(), "{error}");
        assert_eq!(error.to_string(), errors[0].to_string());
    }
    assert_eq!(hub.failure(), None);
    errors[0].to_string().replace(&hub.address().to_string(), "HUB")
}

#[test]
fn facts_that_differ_are_named_with_values_and_ranks() {
    let mut hellos: Vec<_> = (0..4).map(|rank| hello(rank, 4)).collect();
    for hello in &mut hellos {
        let value = if hello.rank == 3 { "phased" } else { "nested" };
        hello.facts.insert("pipeline.schedule".into(), value.into());
    }
    assert_eq!(
        sentence(4, hellos),
        "pipeline.schedule is 'nested' on ranks 0 to 2 and 'phased' on rank 3: start all ranks with the same \
         configuration, on hosts of the same kind"
    );
}

#[test]
fn versions_that_differ_are_named() {
    let hellos = vec![hello(0, 2), Hello { version: "2".into(), ..hello(1, 2) }];
    assert_eq!(
        sentence(2, hellos),
        "the version of BigMac is '1' on rank 0 and '2' on rank 1: run the same program on all hosts, from the same \
         build"
    );
}

#[test]
fn two_processes_of_one_rank_are_named() {
    let hellos =
        vec![Hello { pid: 11, ..hello(1, 3) }, Hello { pid: 11, host: "other".into(), ..hello(1, 3) }];
    let said = sentence(3, hellos);
    assert!(said.starts_with("two processes are rank 1: pid 11 on "), "{said}");
    assert!(said.contains("pid 11 on host1") && said.contains("pid 11 on other"), "{said}");
}

#[test]
fn ranks_beyond_the_job_and_other_numbers_of_ranks_are_named() {
    let beyond = Hello { pid: 5, ..hello(2, 2) };
    assert_eq!(
        sentence(2, vec![beyond, hello(0, 2)]),
        "rank 2 on host2 (pid 5) is not a rank of a job of 2: ranks count from 0 to 1"
    );
    let other = Hello { pid: 5, ..hello(1, 4) };
    assert_eq!(
        sentence(2, vec![hello(0, 2), other]),
        "the number of ranks is 4 on rank 1 on host1 (pid 5) and 2 for the control plane at HUB: start all ranks for \
         the same number"
    );
}

#[test]
fn another_token_is_named_without_saying_it() {
    let other = Hello { token: Token::new("open", "in a test").unwrap(), ..hello(1, 2) };
    let said = sentence(2, vec![hello(0, 2), other]);
    assert_eq!(
        said,
        "rank 1 at 127.0.0.1 has another token than the control plane at HUB: give all ranks the same token, or another \
         port if this is another job"
    );
    assert!(!said.contains("open ") && !said.contains("sesame"));
}

#[test]
fn members_of_another_job_do_not_disturb_one_that_comes_together() {
    let hub = hub(2, LIMITS);
    let address = hub.address().to_string();
    let stranger = Hello { token: Token::random().unwrap(), ..hello(1, 2) };
    assert!(Member::join(&address, stranger, LIMITS).unwrap_err().is_input());
    for member in join_all(&address, vec![hello(0, 2), hello(1, 2)], LIMITS) {
        member.unwrap().leave();
    }
    assert_eq!(hub.finish(LONG), None);
}
