//! Signals to the launcher: ends of children, and requests to stop, which are passed on.

use super::super::stop;
use anyhow::Context;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Signals that have come.
pub(super) struct Signals {
    received: Receiver<i32>,
    asked: Vec<i32>,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// To stop: the ranks are to get this signal.
    Stop(i32),
    /// To end at once.
    End,
}

impl Signals {
    /// Listens for them from now on.
    ///
    /// # Errors
    /// When the system refuses the handler.
    pub fn listen() -> anyhow::Result<Signals> {
        let all = [SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGUSR2].into_iter();
        let all = all.chain((!stop::is_ignored(SIGHUP)).then_some(SIGHUP));
        let mut signals = iterator::Signals::new(all).context("cannot listen for signals")?;
        let (tell, received) = channel();
        // Where no one listens any more, the launcher ends.
        let listen = move || signals.forever().take_while(|&signal| tell.send(signal).is_ok()).for_each(drop);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(listen)
            .context("cannot listen for signals")?;
        Ok(Signals { received, asked: Vec::new() })
    }

    /// Waits for a signal; what it asks of the ranks, if anything. Each is passed on once; the second SIGINT ends.
    pub fn next(&mut self, limit: Duration) -> Option<Request> {
        match self.received.recv_timeout(limit) {
            Ok(SIGINT) if self.asked.contains(&SIGINT) => Some(Request::End),
            Ok(signal) if signal != SIGCHLD && !self.asked.contains(&signal) => {
                self.asked.push(signal);
                Some(Request::Stop(signal))
            }
            _ => None,
        }
    }

    /// The first signal that asked for an end.
    pub fn asked(&self) -> Option<i32> {
        self.asked.first().copied()
    }

    /// The same, waiting for one.
    pub fn asked_within(&mut self, limit: Duration) -> Option<i32> {
        let end = Instant::now() + limit;
        while self.asked.is_empty() && Instant::now() < end {
            self.next(end.saturating_duration_since(Instant::now()));
        }
        self.asked()
    }

    /// For tests: signals that this channel brings.
    #[cfg(test)]
    pub fn from_channel(received: Receiver<i32>) -> Signals {
        Signals { received, asked: Vec::new() }
    }
}
