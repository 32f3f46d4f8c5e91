//! Connections to peers: a queue and a thread for each.

use super::{PATIENCE, Shared, spawn};
use crate::process::{Frame, MAX_HEADER};
use std::io::{Error, ErrorKind, Result, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Frames up to this size go to the system in one piece.
const ONE_PIECE: usize = 4 * MAX_HEADER;

#[derive(Default)]
struct State {
    /// Where frames for each rank go; opened at the first one.
    queues: Vec<Option<Sender<Frame>>>,
    /// Threads that may still have something to write.
    writing: usize,
    finished: bool,
}

/// The queues to all peers.
pub(super) struct Outgoing {
    state: Mutex<State>,
    changed: Condvar,
}

impl Outgoing {
    pub fn new(size: usize) -> Self {
        let state = State { queues: (0..size).map(|_| None).collect(), ..State::default() };
        Outgoing { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Every critical section leaves the state whole, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, at most for `limit`, until every frame was written, and takes no more of them.
    pub fn finish(&self, limit: Duration) {
        let mut state = self.lock();
        state.finished = true;
        state.queues.clear();
        let until = Instant::now() + limit;
        while state.writing > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn written(&self) {
        self.lock().writing -= 1;
        self.changed.notify_all();
    }
}

/// Queues a frame for rank `to`.
pub(super) fn send(shared: &Arc<Shared>, to: usize, frame: Frame) {
    let mut state = shared.outgoing.lock();
    if state.finished {
        return;
    }
    let queue = match &state.queues[to] {
        Some(queue) => queue.clone(),
        None => {
            let (queue, frames) = channel();
            let writing = shared.clone();
            let started =
                spawn(format!("tcp-{}-to-{to}", shared.rank), move || write_all(&writing, to, frames));
            if let Err(error) = started {
                drop(state);
                shared.arrivals.mailbox().fail(shared.rank, &error.to_string());
                return;
            }
            state.writing += 1;
            state.queues[to] = Some(queue.clone());
            queue
        }
    };
    drop(state);
    // A queue that no one reads is that of a peer that can't be reached, which is known by then or soon.
    let sent = queue.send(frame);
    if sent.is_err() {
        drop(sent);
        shared.arrivals.mailbox().nudge();
    }
}

fn write_all(shared: &Arc<Shared>, to: usize, frames: Receiver<Frame>) {
    let outcome = write_frames(shared, to, &frames);
    // What is left can't be sent.
    drop(frames);
    shared.arrivals.mailbox().nudge();
    // Before the wait for word: whoever closes need not wait for that.
    shared.outgoing.written();
    if let Err(error) = outcome {
        let address = shared.addresses[to];
        shared.lost(to, &format!("it cannot be reached at {address} from rank {}: {error}", shared.rank));
    }
}

fn write_frames(shared: &Arc<Shared>, to: usize, frames: &Receiver<Frame>) -> Result<()> {
    // The queue closes when the rank ends; the first frame was put in before.
    let mut stream = None;
    let mut buffer = Vec::with_capacity(ONE_PIECE);
    for frame in frames {
        let stream = match &mut stream {
            Some(stream) => stream,
            none => none.insert(connect(shared, to)?),
        };
        let payload = frame.payload();
        if frame.header.len() + payload.len() <= ONE_PIECE {
            buffer.clear();
            buffer.extend_from_slice(&frame.header);
            buffer.extend_from_slice(payload);
            stream.write_all(&buffer)?;
        } else {
            stream.write_all(&frame.header)?;
            stream.write_all(payload)?;
        }
        drop(frame);
        shared.arrivals.mailbox().nudge();
    }
    Ok(())
}

fn connect(shared: &Arc<Shared>, to: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&shared.addresses[to], PATIENCE)?;
    if stream.peer_addr()? == stream.local_addr()? {
        // A free port that is connected to from itself answers itself.
        return Err(Error::new(ErrorKind::ConnectionRefused, "no one listens there"));
    }
    stream.set_nodelay(true)?;
    shared.register(&stream)?;
    stream.write_all(&shared.hello())?;
    Ok(stream)
}
