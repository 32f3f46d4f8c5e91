//! Connections from peers: a thread for each, which reads frames to where they belong.

use super::{HELLO, MAGIC, PATIENCE, Shared, spawn};
use crate::process::{Malformed, header_length};
use std::io::{self, BufReader, Read, copy, sink};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Reads this much at once where frames are small.
const BUFFER: usize = 64 << 10;

/// Takes connections until the rank closes.
pub(super) fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for stream in listener.incoming() {
        if shared.closed.load(Ordering::SeqCst) {
            return;
        }
        match stream {
            Ok(stream) => {
                let reading = shared.clone();
                // Where no thread can be started, the connection is dropped, and its other end says so.
                let _ = spawn(format!("tcp-{}-from", shared.rank), move || read(&reading, stream));
            }
            // Out of descriptors, or the peer is gone again.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// How reading from a peer came to its end.
enum End {
    /// It said good-bye.
    Goodbye,
    /// The connection broke.
    Lost(io::Error),
    /// It sent what no rank sends.
    Malformed(Malformed),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Lost(error)
    }
}

impl From<Malformed> for End {
    fn from(malformed: Malformed) -> Self {
        End::Malformed(malformed)
    }
}

fn read(shared: &Arc<Shared>, mut stream: TcpStream) {
    // Whoever does not know the token, or who is there already, is a stranger and no one's failure.
    let Ok(Some(from)) = greet(shared, &mut stream) else { return };
    match read_frames(shared, from, stream) {
        End::Goodbye => {}
        End::Lost(error) => {
            let reason = format!("its connection to rank {} ended without a good-bye: {error}", shared.rank);
            shared.lost(from, &reason);
        }
        End::Malformed(malformed) => shared.blame(from, &malformed.to_string()),
    }
}

/// The rank at the other end, when it is one of this world.
fn greet(shared: &Shared, stream: &mut TcpStream) -> io::Result<Option<usize>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut hello = [0; HELLO];
    stream.read_exact(&mut hello)?;
    let (known, rank) = hello.split_at(HELLO - 4);
    if known[..8] != MAGIC || known[8..] != shared.secret {
        return Ok(None);
    }
    let rank = rank.iter().rev().fold(0, |rank, byte| rank << 8 | usize::from(*byte));
    if rank == shared.rank || shared.known.get(rank).is_none_or(|known| known.swap(true, Ordering::SeqCst)) {
        return Ok(None);
    }
    stream.set_read_timeout(None)?;
    shared.register(stream)?;
    Ok(Some(rank))
}

fn read_frames(shared: &Shared, from: usize, stream: TcpStream) -> End {
    let mut stream = BufReader::with_capacity(BUFFER, stream);
    let mut header = Vec::new();
    loop {
        match read_frame(shared, from, &mut stream, &mut header) {
            Ok(true) => {}
            Ok(false) => return End::Goodbye,
            Err(end) => return end,
        }
    }
}

/// Reads one frame; false when it was the last one.
fn read_frame(
    shared: &Shared,
    from: usize,
    stream: &mut impl Read,
    header: &mut Vec<u8>,
) -> Result<bool, End> {
    let mut start = [0; 4];
    stream.read_exact(&mut start)?;
    header.resize(header_length(start)?, 0);
    stream.read_exact(header)?;
    let mut landing = shared.arrivals.open(header)?;
    let bytes = landing.bytes();
    match landing.buffer() {
        Some(buffer) => stream.read_exact(buffer)?,
        // There was no room: the receiver gets that error, and the stream goes on.
        None => {
            copy(&mut stream.take(bytes as u64), &mut sink())?;
        }
    }
    Ok(shared.arrivals.land(from, landing)?)
}
