//! What the ranks of one process share: an inbox per rank, and whether each of them still lives.

use crate::error::{CommError, Result};
use crate::tag::Tag;
use bigmac_runtime::Tensor;
use std::any::Any;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Number of a group within its world; 0 is the world itself.
pub(super) type GroupId = usize;

/// Where a message lies: group, sender (numbered as in the world), tag.
type MessageKey = (GroupId, usize, Tag);
/// Where a rank's part in a collective lies: group, sender, number of the collective, round within it.
type PartKey = (GroupId, usize, u64, u8);

/// One rank's part in one round of a collective.
pub(super) struct Part {
    /// The call that it belongs to, arguments included, to be compared with the receiver's.
    pub call: Arc<str>,
    pub content: Box<dyn Any + Send>,
}

/// A peer made another collective call than this rank.
pub(super) struct OtherCall {
    pub peer: usize,
    pub call: Arc<str>,
}

/// What has arrived at a rank and was not received yet.
#[derive(Default)]
pub(super) struct Inbox {
    messages: HashMap<MessageKey, VecDeque<Tensor>>,
    parts: HashMap<PartKey, Part>,
}

impl Inbox {
    pub fn put_message(&mut self, key: MessageKey, tensor: Tensor) {
        self.messages.entry(key).or_default().push_back(tensor);
    }

    /// The oldest message under `key`, if there is one.
    pub fn take_message(&mut self, key: MessageKey) -> Option<Tensor> {
        let queue = self.messages.get_mut(&key)?;
        let tensor = queue.pop_front();
        if queue.is_empty() {
            self.messages.remove(&key);
        }
        tensor
    }

    pub fn put_part(&mut self, key: PartKey, part: Part) {
        self.parts.insert(key, part);
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
}

#[derive(Default)]
struct Place {
    inbox: Mutex<Inbox>,
    changed: Condvar,
    ended: AtomicBool,
}

impl Place {
    /// Every critical section leaves an inbox whole, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first failure of a world.
#[derive(Debug)]
pub(super) struct Failure {
    pub rank: usize,
    pub reason: String,
}

/// A round of a collective.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
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
    pub fn key(&self, from: usize) -> PartKey {
        (self.group, from, self.call, self.round)
    }
}

/// What is waited for.
#[derive(Clone, Copy)]
pub(super) enum Awaited<'a> {
    /// A message.
    Message(MessageKey),
    /// The parts of all ranks of a group.
    Parts(Round<'a>),
}

impl Awaited<'_> {
    /// The ranks whose message or part is not there.
    fn missing(&self, inbox: &Inbox) -> Vec<usize> {
        match *self {
            Awaited::Message(key) => {
                if inbox.messages.contains_key(&key) {
                    Vec::new()
                } else {
                    vec![key.1]
                }
            }
            Awaited::Parts(round) => {
                let is_missing = |from: &usize| !inbox.parts.contains_key(&round.key(*from));
                round.members.iter().copied().filter(is_missing).collect()
            }
        }
    }

    fn describe(&self, missing: &[usize]) -> String {
        match self {
            Awaited::Message((_, from, tag)) => format!("a message from rank {from} under tag {tag}"),
            Awaited::Parts(Round { text, .. }) => match missing {
                [] => text.to_string(),
                [one] => format!("rank {one} to join {text}"),
                several => format!("ranks {several:?} to join {text}"),
            },
        }
    }
}

/// The shared state of a world of ranks.
pub(super) struct World {
    places: Vec<Place>,
    failure: OnceLock<Failure>,
    /// Groups by parent, number of the collective that cut the parent, and color.
    groups: Mutex<HashMap<(GroupId, u64, u64), GroupId>>,
    timeout: Duration,
}

impl World {
    pub fn new(size: usize, timeout: Duration) -> Self {
        World {
            places: (0..size).map(|_| Place::default()).collect(),
            failure: OnceLock::new(),
            groups: Mutex::default(),
            timeout,
        }
    }

    /// The group that ranks with this color become; the same for all of them.
    pub fn group(&self, parent: GroupId, call: u64, color: u64) -> GroupId {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let next = groups.len() + 1;
        *groups.entry((parent, call, color)).or_insert(next)
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// Records a failure, unless there was one before, and wakes all ranks.
    pub fn fail(&self, rank: usize, reason: &str) {
        if self.failure.set(Failure { rank, reason: reason.to_owned() }).is_ok() {
            self.wake_all();
        }
    }

    /// Records that a rank makes no more calls, and wakes all ranks.
    pub fn end(&self, rank: usize) {
        self.places[rank].ended.store(true, Ordering::Release);
        self.wake_all();
    }

    /// A rank that has checked for failures and ends holds its lock until it sleeps: taking the lock once means that no
    /// rank sleeps through the news.
    fn wake_all(&self) {
        for place in &self.places {
            drop(place.lock());
            place.changed.notify_all();
        }
    }

    /// In words, the messages that lie in a rank's inbox; `None` when there are none.
    pub fn unreceived(&self, rank: usize) -> Option<String> {
        let inbox = self.places[rank].lock();
        let keys: BTreeSet<_> = inbox.messages.keys().map(|&(_, from, tag)| (from, tag)).collect();
        let words: Vec<_> = keys.iter().map(|(from, tag)| format!("tag {tag} from rank {from}")).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    fn check_failure(&self, rank: usize) -> Result<()> {
        match self.failure.get() {
            None => Ok(()),
            Some(f) => Err(CommError::Poisoned { rank, by: f.rank, reason: f.reason.clone() }),
        }
    }

    /// Puts something into the inbox of `to`.
    ///
    /// # Errors
    /// [`CommError::Poisoned`] when some rank has failed or `to` has ended.
    pub fn deliver(&self, rank: usize, to: usize, put: impl FnOnce(&mut Inbox)) -> Result<()> {
        self.check_failure(rank)?;
        let place = &self.places[to];
        let mut inbox = place.lock();
        if place.ended.load(Ordering::Acquire) {
            let reason = format!("it ended before it received everything that rank {rank} had for it");
            return Err(CommError::Poisoned { rank, by: to, reason });
        }
        put(&mut inbox);
        place.changed.notify_all();
        Ok(())
    }

    /// Takes out of the inbox of `rank` what is awaited, once `take` finds it there; the time limit counts from
    /// `began`.
    ///
    /// # Errors
    /// [`CommError::Poisoned`] when some rank has failed, or one has ended and its message or part is not there;
    /// [`CommError::Timeout`]; [`CommError::InsidePool`].
    pub fn wait<T>(
        &self,
        rank: usize,
        awaited: Awaited<'_>,
        began: Instant,
        mut take: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<T> {
        if rayon::current_thread_index().is_some() {
            return Err(CommError::InsidePool { rank, what: awaited.describe(&[]) });
        }
        let place = &self.places[rank];
        let mut inbox = place.lock();
        loop {
            self.check_failure(rank)?;
            if let Some(found) = take(&mut inbox) {
                return Ok(found);
            }
            let missing = awaited.missing(&inbox);
            // What a rank sends before it ends lies in the inbox before its end shows, so this comes second.
            let ended = |&from: &usize| self.places[from].ended.load(Ordering::Acquire);
            if let Some(&by) = missing.iter().find(|from| ended(from)) {
                let reason = format!("it ended while rank {rank} waited for {}", awaited.describe(&[by]));
                return Err(CommError::Poisoned { rank, by, reason });
            }
            let left = self.timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                let mut what = awaited.describe(&missing);
                if let Awaited::Message((group, from, _)) = awaited {
                    what += &format!(" (arrived from it under other tags: {})", inbox.tags_from(group, from));
                }
                return Err(CommError::Timeout { rank, what, seconds: self.timeout.as_secs_f64() });
            }
            inbox = place.changed.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
