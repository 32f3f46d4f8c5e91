//! What has arrived at a rank and was not received yet.

use crate::tag::Tag;
use bigmac_runtime::Tensor;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Number of a group within its world; 0 is the world itself. All members compute it alike.
pub type GroupId = u64;

/// A tensor from another rank, or why there was no room for it here.
pub type Arrived = Result<Tensor, bigmac_runtime::Error>;

/// Where a message lies: group, sender (numbered as in the world), tag.
pub type MessageKey = (GroupId, usize, Tag);
/// Where a rank's part in a collective lies: group, sender, number of the collective, round within it.
pub type PartKey = (GroupId, usize, u64, u8);

/// What a rank contributes to a round of a collective.
#[derive(Debug)]
pub enum Content {
    /// That it has come this far.
    Nothing,
    /// The group that it wants to be in, and its place there.
    Wish { color: u64, key: i64 },
    /// Values.
    Tensor(Arrived),
}

/// One rank's part in one round of a collective.
#[derive(Debug)]
pub struct Part {
    /// The call that it belongs to, arguments included, to be compared with the receiver's.
    pub call: Arc<str>,
    pub content: Content,
}

/// What one rank hands to another.
#[derive(Debug)]
pub enum Letter {
    /// A message of a group.
    Message { group: GroupId, tag: Tag, tensor: Arrived },
    /// A part in round `round` of collective `call` of a group.
    Part { group: GroupId, call: u64, round: u8, part: Part },
}

/// A peer made another collective call than this rank.
pub struct OtherCall {
    pub peer: usize,
    pub call: Arc<str>,
}

/// A round of a collective.
#[derive(Clone, Copy)]
pub struct Round<'a> {
    pub group: GroupId,
    /// The group's ranks.
    pub members: &'a [usize],
    /// Number of the collective in its group.
    pub call: u64,
    /// Number of the round in the collective.
    pub round: u8,
    /// The call, in words.
    pub text: &'a str,
}

impl Round<'_> {
    /// Where the part of `from` lies.
    fn key(&self, from: usize) -> PartKey {
        (self.group, from, self.call, self.round)
    }
}

/// What has arrived at a rank and was not received yet.
#[derive(Default)]
pub struct Inbox {
    messages: HashMap<MessageKey, VecDeque<Arrived>>,
    parts: HashMap<PartKey, Part>,
}

impl Inbox {
    /// Files what came from `from`.
    pub fn put(&mut self, from: usize, letter: Letter) {
        match letter {
            Letter::Message { group, tag, tensor } => {
                self.messages.entry((group, from, tag)).or_default().push_back(tensor);
            }
            Letter::Part { group, call, round, part } => {
                self.parts.insert((group, from, call, round), part);
            }
        }
    }

    /// The oldest message under `key`, if there is one.
    pub fn take_message(&mut self, key: MessageKey) -> Option<Arrived> {
        let queue = self.messages.get_mut(&key)?;
        let tensor = queue.pop_front();
        if queue.is_empty() {
            self.messages.remove(&key);
        }
        tensor
    }

    /// The parts of all members in a round, in their order, once all are there; or, as soon as one has come that
    /// belongs to another call.
    pub fn take_parts(&mut self, round: &Round<'_>) -> Option<Result<Vec<Part>, OtherCall>> {
        let mut found =
            round.members.iter().filter_map(|&from| Some((from, self.parts.get(&round.key(from))?)));
        if let Some((from, part)) = found.find(|(_, part)| *part.call != *round.text) {
            return Some(Err(OtherCall { peer: from, call: part.call.clone() }));
        }
        if round.members.iter().any(|&from| !self.parts.contains_key(&round.key(from))) {
            return None;
        }
        Some(Ok(round.members.iter().filter_map(|&from| self.parts.remove(&round.key(from))).collect()))
    }

    /// In words, what has arrived from `from` in that group under other tags: the first hint when a wait times out.
    fn tags_from(&self, group: GroupId, from: usize) -> String {
        let tags: BTreeSet<u64> =
            self.messages.keys().filter(|key| (key.0, key.1) == (group, from)).map(|key| key.2.0).collect();
        if tags.is_empty() { "none".into() } else { format!("{tags:?}") }
    }

    /// In words, the messages that no one took; `None` when there are none.
    pub fn unreceived(&self) -> Option<String> {
        let keys: BTreeSet<_> = self.messages.keys().map(|&(_, from, tag)| (from, tag)).collect();
        let words: Vec<_> = keys.iter().map(|(from, tag)| format!("tag {tag} from rank {from}")).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// What is waited for.
#[derive(Clone, Copy)]
pub enum Awaited<'a> {
    /// A message.
    Message(MessageKey),
    /// The parts of all ranks of a group.
    Parts(Round<'a>),
    /// That what this rank lent in the call has been sent.
    Sent(&'a str),
}

impl Awaited<'_> {
    /// The ranks whose message or part is not there.
    pub fn missing(&self, inbox: &Inbox) -> Vec<usize> {
        match *self {
            Awaited::Message(key) if inbox.messages.contains_key(&key) => Vec::new(),
            Awaited::Message((_, from, _)) => vec![from],
            Awaited::Parts(round) => {
                let is_missing = |from: &usize| !inbox.parts.contains_key(&round.key(*from));
                round.members.iter().copied().filter(is_missing).collect()
            }
            Awaited::Sent(_) => Vec::new(),
        }
    }

    /// In words, when these ranks are missing.
    pub fn describe(&self, missing: &[usize]) -> String {
        match self {
            Awaited::Message((_, from, tag)) => format!("a message from rank {from} under tag {tag}"),
            Awaited::Parts(Round { text, .. }) => match missing {
                [] => text.to_string(),
                [one] => format!("rank {one} to join {text}"),
                several => format!("ranks {several:?} to join {text}"),
            },
            Awaited::Sent(text) => format!("its peers to take what it sent in {text}"),
        }
    }

    /// What else is worth saying when the wait was too long.
    pub fn hint(&self, inbox: &Inbox) -> String {
        match *self {
            Awaited::Message((group, from, _)) => {
                format!(" (arrived from it under other tags: {})", inbox.tags_from(group, from))
            }
            _ => String::new(),
        }
    }
}
