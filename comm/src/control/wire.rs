//! What hub and members say to each other.
//!
//! A connection begins with the member's [`MAGIC`] and [`PROTOCOL`]; the hub answers with its own and 32 random bytes.
//! From there on both send frames, the member's first one being its greeting.

use super::loss::{At, Loss, Peer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The first bytes of both sides.
pub(super) const MAGIC: [u8; 8] = *b"BIGMACcp";
/// Counts up whenever what follows changes.
pub(super) const PROTOCOL: u32 = 2;
/// The longest greeting, in bytes: room for any configuration, and not too much to be read from strangers.
pub(super) const LONGEST_GREETING: usize = 1 << 20;
/// The longest head of any other frame, in bytes: room for the peers of the largest job.
pub(super) const LONGEST_HEAD: usize = 16 << 20;
/// The most bytes a rank may gather at once.
pub(super) const LARGEST: usize = 16 << 20;

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    Rank,
    /// The launcher of that rank and of those that follow on its node.
    Launcher,
}

/// A member's first frame.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    pub role: Role,
    pub rank: usize,
    pub world: usize,
    pub restart: u32,
    pub host: String,
    pub pid: u32,
    pub version: String,
    pub facts: BTreeMap<String, String>,
    /// Made from the token and the hub's random bytes.
    pub proof: Vec<u8>,
}

/// What a member says after its greeting.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToHub {
    Beat {
        at: Option<At>,
    },
    /// Its part is the frame's tail. `number` counts this member's gathers.
    Gather {
        number: u64,
        what: String,
    },
    Fail {
        reason: String,
        at: Option<At>,
    },
    Leave,
    /// A launcher's: a process that was to be this rank has ended.
    Gone {
        rank: usize,
        cause: String,
        is_input: bool,
    },
}

/// What the hub says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToMember {
    /// The greeting was good; the others are waited for.
    Welcome,
    /// Not now: the same greeting may be good later.
    Again {
        reason: String,
    },
    /// The ranks do not agree.
    Refused {
        reason: String,
    },
    /// All are there.
    Joined {
        peers: Vec<Peer>,
    },
    Beat,
    /// All parts below each other are the frame's tail.
    Gathered {
        number: u64,
        lengths: Vec<usize>,
    },
    Lost(Loss),
    /// The answer to [`ToHub::Leave`]: no one will miss the connection. To launchers, once all ranks have left.
    Farewell,
}
