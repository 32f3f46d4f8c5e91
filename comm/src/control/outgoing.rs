//! What is sent over a connection: a queue and the thread that empties it, so that no one waits for a peer that does not
//! read.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// The stack of the control plane's threads, in bytes: they do little, and a hub has two for every rank.
const STACK: usize = 256 << 10;

/// The sending side of a connection.
pub(super) struct Outgoing {
    queue: Sender<Arc<[u8]>>,
}

impl Outgoing {
    /// Starts the thread. It ends when this is dropped and everything is sent, and says so to the peer. When the peer
    /// is gone, or its write deadline passes, it closes the connection both ways, so that the reader ends too.
    pub fn start(stream: TcpStream) -> std::io::Result<Outgoing> {
        let (queue, frames) = channel();
        spawn("control-send", move || send(&stream, &frames))?;
        Ok(Outgoing { queue })
    }

    /// Sends the bytes of a frame, later. To a peer that is gone nothing is sent: the reader tells of that.
    pub fn put(&self, frame: &Arc<[u8]>) {
        let _ = self.queue.send(frame.clone());
    }
}

fn send(mut stream: &TcpStream, frames: &Receiver<Arc<[u8]>>) {
    for frame in frames {
        if stream.write_all(&frame).is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// A thread of the control plane.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work)
}
