//! What is wrong with an environment.

/// What is wrong with what launchers left in the environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// Half of what is needed.
    #[error("{given} is set and {missing} is not; set both, or neither")]
    Half {
        /// What is there.
        given: String,
        /// What is not.
        missing: String,
    },
    /// A value that cannot be.
    #[error("{name} is '{value}'; expected {expected}")]
    Value {
        /// The variable or flag.
        name: String,
        /// Its value.
        value: String,
        /// What it could be.
        expected: String,
    },
    /// A rank beyond the number of ranks.
    #[error(
        "{rank_name} is {rank} and {size_name} is {size}; expected a rank below the number of ranks, from 0"
    )]
    Range {
        /// The variable or flag of the rank.
        rank_name: String,
        /// The rank.
        rank: usize,
        /// The variable or flag of the number of ranks.
        size_name: String,
        /// The number.
        size: usize,
    },
    /// Two launchers that say different things.
    #[error(
        "{first_name} is {first} and {second_name} is {second}: the environment holds what two launchers left, and they \
         contradict each other; unset the variables of one of them, or set BIGMAC_RANK and BIGMAC_WORLD_SIZE with \
         `env -u {first_name} -u {second_name}`"
    )]
    Contradiction {
        /// The variable of the one.
        first_name: String,
        /// Its value.
        first: usize,
        /// The variable of the other.
        second_name: String,
        /// Its value.
        second: usize,
    },
    /// An environment that says which node this is, not which rank.
    #[error(
        "{name} is '{value}', which numbers nodes (pods), not ranks: start the ranks of this node with `{command}`"
    )]
    Pod {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// What to call instead.
        command: String,
    },
}
