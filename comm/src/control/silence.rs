//! How long somebody has not been heard.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When a peer was heard last, as seen by somebody who looks again and again.
#[derive(Clone, Copy, Debug)]
struct Silence {
    limit: Duration,
    heard: Instant,
    looked: Instant,
}

impl Silence {
    fn new(limit: Duration, now: Instant) -> Self {
        Silence { limit, heard: now, looked: now }
    }

    /// A sign of life came.
    fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Whether the limit has passed. To be asked several times within the limit: whoever did not look for half of it
    /// was stopped itself (a suspended machine, SIGSTOP), and that time does not count against the peer, whose signs may
    /// be waiting unread.
    fn lapsed(&mut self, now: Instant) -> bool {
        let away = now.saturating_duration_since(self.looked);
        if away > self.limit / 2 {
            self.heard += away;
        }
        self.looked = now;
        now.saturating_duration_since(self.heard) > self.limit
    }
}

/// A peer's silence, shared by who reads from it and who watches it.
#[derive(Clone)]
pub(super) struct Watched(Arc<Mutex<Silence>>);

impl Watched {
    pub fn new(limit: Duration) -> Self {
        Watched(Arc::new(Mutex::new(Silence::new(limit, Instant::now()))))
    }

    /// See [`Silence::lapsed`].
    pub fn lapsed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lapsed(Instant::now())
    }
}

/// A connection on which every byte is a sign of life. Reading it has no deadline of its own: the watcher closes it.
pub(super) struct Heard<'a> {
    pub stream: &'a TcpStream,
    pub watched: Watched,
}

impl Read for Heard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        if length > 0 {
            self.watched.0.lock().unwrap_or_else(PoisonError::into_inner).heard(Instant::now());
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_lapses_only_for_somebody_who_listened() {
        let start = Instant::now();
        let mut silence = Silence::new(4 * SECOND, start);
        for second in 1..=4 {
            assert!(!silence.lapsed(start + second * SECOND));
        }
        assert!(silence.lapsed(start + 5 * SECOND));
        silence.heard(start + 5 * SECOND);
        assert!(!silence.lapsed(start + 6 * SECOND));
        // Away for an hour: the peer gets its time again.
        let back = start + 3600 * SECOND;
        assert!(!silence.lapsed(back));
        assert!(!silence.lapsed(back + 2 * SECOND));
        assert!(!silence.lapsed(back + 3 * SECOND));
        assert!(silence.lapsed(back + 4 * SECOND));
    }
}
