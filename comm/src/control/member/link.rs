//! A member's connection, once it was welcomed: what the hub says, and what is waited for.

use crate::control::Limits;
use crate::control::error::ControlError;
use crate::control::frame;
use crate::control::loss::{Loss, Peer};
use crate::control::outgoing::{Outgoing, spawn};
use crate::control::position::Position;
use crate::control::silence::{Heard, Watched};
use crate::control::wire::{LARGEST, LONGEST_HEAD, ToHub, ToMember};
use crate::control::words::seconds;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Watcher = Box<dyn Fn(&Loss) + Send + Sync>;

#[derive(Default)]
struct State {
    /// All ranks, once they are there.
    peers: Option<Vec<Peer>>,
    refused: Option<String>,
    loss: Option<Loss>,
    /// The last gather that is complete.
    gathered: Option<(u64, Vec<Vec<u8>>)>,
    watchers: Vec<Watcher>,
    /// This rank has failed or says its farewell: what happens from now on is no news.
    is_done: bool,
    /// Nothing more comes.
    has_ended: bool,
}

pub(super) struct Link {
    pub position: Position,
    address: String,
    limits: Limits,
    stream: TcpStream,
    out: Outgoing,
    watched: Watched,
    state: Mutex<State>,
    changed: Condvar,
}

impl Link {
    /// Starts the threads of a connection that was welcomed.
    pub fn start(
        stream: TcpStream,
        address: &str,
        world: usize,
        limits: Limits,
    ) -> Result<Arc<Link>, ControlError> {
        let start = || {
            stream.set_read_timeout(None)?;
            stream.set_write_timeout(Some(limits.silence))?;
            Ok((stream.try_clone()?, Outgoing::start(stream.try_clone()?)?))
        };
        let (stream, out) = start().map_err(ControlError::system("a connection"))?;
        let link = Arc::new(Link {
            position: Position::default(),
            address: address.into(),
            limits,
            stream,
            out,
            watched: Watched::new(limits.silence),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let (reading, beating) = (link.clone(), link.clone());
        let largest = LARGEST.saturating_mul(world);
        spawn("control-receive", move || reading.receive(largest))
            .and_then(|_| spawn("control-beat", move || beating.beat()))
            .map_err(|error| {
                link.close();
                ControlError::System { what: "a thread", cause: error.to_string() }
            })?;
        Ok(link)
    }

    /// This end's address.
    pub fn local_address(&self) -> Result<IpAddr, ControlError> {
        let address = self.stream.local_addr().map_err(ControlError::system("a socket's address"))?;
        Ok(address.ip())
    }

    /// Every critical section leaves the state whole, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message. Where the hub is gone, the thread that receives tells of it.
    pub fn say(&self, message: &ToHub, tail: &[u8]) {
        if let Ok(frame) = frame::encode(message, tail) {
            self.out.put(&frame.into());
        }
    }

    fn receive(&self, largest: usize) {
        let mut heard = Heard { stream: &self.stream, watched: self.watched.clone() };
        let end = loop {
            match frame::read(&mut heard, LONGEST_HEAD, largest) {
                Ok((ToMember::Beat, _)) => {}
                Ok((ToMember::Joined { peers }, _)) => self.change(|state| state.peers = Some(peers)),
                Ok((ToMember::Gathered { number, lengths }, tail)) => {
                    self.change(|state| state.gathered = Some((number, split(&lengths, &tail))));
                }
                Ok((ToMember::Refused { reason }, _)) => {
                    self.change(|state| state.refused = Some(reason));
                    break None;
                }
                Ok((ToMember::Lost(loss), _)) => break Some(loss),
                Ok((ToMember::Farewell, _)) => break None,
                Ok((ToMember::Welcome | ToMember::Again { .. }, _)) => {
                    break Some(self.loss("it sent a message out of order".into()));
                }
                Err(error) => {
                    break Some(self.loss(format!(
                        "its connection closed ({error}): the launcher, or rank 0, was killed or ended by itself"
                    )));
                }
            }
        };
        if let Some(loss) = end {
            self.lose(loss);
        }
        self.change(|state| state.has_ended = true);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Says every now and then where this rank is, and sees whether the hub does the like.
    fn beat(&self) {
        let pulse = self.limits.pulse();
        while self.wait(Some(Instant::now() + pulse), |state| state.has_ended.then_some(())).is_none() {
            self.say(&ToHub::Beat { at: self.position.get() }, &[]);
            if self.watched.lapsed() {
                let limit = seconds(self.limits.silence);
                self.lose(
                    self.loss(format!("did not answer for {limit}: it is stopped, or a host is cut off")),
                );
                // Ends the thread that receives.
                let _ = self.stream.shutdown(Shutdown::Both);
                return;
            }
        }
    }

    /// The loss of the hub.
    fn loss(&self, cause: String) -> Loss {
        Loss::control(&self.address, cause)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Records the first loss and tells it.
    fn lose(&self, loss: Loss) {
        let mut state = self.lock();
        if state.loss.is_some() || state.refused.is_some() {
            return;
        }
        state.loss = Some(loss.clone());
        let watchers = std::mem::take(&mut state.watchers);
        let is_done = state.is_done;
        drop(state);
        self.changed.notify_all();
        if !is_done {
            watchers.iter().for_each(|told| told(&loss));
        }
    }

    pub fn watch(&self, told: Watcher) {
        let mut state = self.lock();
        match state.loss.clone() {
            None => state.watchers.push(told),
            Some(loss) => {
                drop(state);
                told(&loss);
            }
        }
    }

    pub fn wait_for_all(&self) -> Result<Vec<Peer>, ControlError> {
        self.wait_or_end(|state| state.peers.clone())
    }

    pub fn wait_for_parts(&self, number: u64) -> Result<Vec<Vec<u8>>, ControlError> {
        self.wait_or_end(|state| {
            state.gathered.take_if(|(found, _)| *found == number).map(|(_, parts)| parts)
        })
    }

    /// Waits for what `found` finds, as long as the job lives.
    fn wait_or_end<T>(&self, mut found: impl FnMut(&mut State) -> Option<T>) -> Result<T, ControlError> {
        let outcome = self.wait(None, |state| {
            if let Some(loss) = &state.loss {
                return Some(Err(ControlError::Lost(loss.clone())));
            }
            if let Some(reason) = &state.refused {
                return Some(Err(ControlError::Refused(reason.clone())));
            }
            if let Some(found) = found(state) {
                return Some(Ok(found));
            }
            state.has_ended.then(|| Err(ControlError::Lost(self.loss("the connection was closed".into()))))
        });
        outcome.unwrap_or_else(|| Err(ControlError::Lost(self.loss("nothing came".into()))))
    }

    /// What `found` finds before `end`, which may be never.
    fn wait<T>(&self, end: Option<Instant>, mut found: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(found) = found(&mut state) {
                return Some(found);
            }
            state = match end.map(|end| end.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                // The hub's silence, if nothing else, ends it.
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The first loss, once it is known.
    pub fn loss_so_far(&self) -> Option<Loss> {
        self.lock().loss.clone()
    }

    /// Waits until nothing more comes.
    pub fn wait_for_end(&self, patience: Duration) {
        self.wait(Some(Instant::now() + patience), |state| state.has_ended.then_some(()));
    }

    /// Tells the hub that this rank failed, and waits until it has told everybody.
    pub fn fail(&self, reason: &str, patience: Duration) {
        self.lock().is_done = true;
        self.say(&ToHub::Fail { reason: reason.into(), at: self.position.get() }, &[]);
        self.wait_for_end(patience);
    }

    /// Says farewell, and waits for it to be heard.
    pub fn leave(&self, patience: Duration) {
        self.lock().is_done = true;
        self.say(&ToHub::Leave, &[]);
        self.wait_for_end(patience);
    }

    pub fn close(&self) {
        // No news for anybody here: who closes it knows.
        self.lock().is_done = true;
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// The parts of a tail; lengths that do not fit it give what there is.
fn split(lengths: &[usize], mut tail: &[u8]) -> Vec<Vec<u8>> {
    let part = |&length: &usize| {
        let (part, rest) = tail.split_at(length.min(tail.len()));
        tail = rest;
        part.to_vec()
    };
    lengths.iter().map(part).collect()
}
