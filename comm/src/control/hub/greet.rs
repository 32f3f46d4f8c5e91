//! Connections: strangers are dropped within a few seconds, members are served until they close.

use super::roster::{Admitted, Roster};
use crate::control::GREETING;
use crate::control::frame::{self, Until};
use crate::control::outgoing::spawn;
use crate::control::silence::{Heard, Watched};
use crate::control::token::random;
use crate::control::wire::{
    Greeting, LARGEST, LONGEST_GREETING, LONGEST_HEAD, MAGIC, PROTOCOL, ToHub, ToMember,
};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many connections may be without a greeting at once, beyond one for every rank.
const STRANGERS: usize = 64;
/// Before the next try where the system has no connection to give, for want of file descriptors or memory.
const RETRY: Duration = Duration::from_millis(50);

/// Accepts connections until the hub closes.
pub(super) fn accept(roster: &Arc<Roster>, listener: &TcpListener) {
    let greeting = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept();
        if roster.is_closing() {
            return;
        }
        let Ok((stream, _)) = accepted else {
            std::thread::sleep(RETRY);
            continue;
        };
        // A member that is dropped here tries again.
        if greeting.load(Ordering::Relaxed) >= roster.job.world.saturating_add(STRANGERS) {
            continue;
        }
        let one = Counted::new(&greeting);
        let roster = roster.clone();
        // Without a thread for it the connection is dropped.
        let _ = spawn("control-member", move || meet(&roster, &stream, one));
    }
}

/// One of the connections without a greeting.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection, if it is a member's.
fn meet(roster: &Roster, stream: &TcpStream, greeting: Counted) {
    let Ok((greeted, nonce)) = greet(stream) else { return };
    drop(greeting);
    match roster.admit(greeted, &nonce, stream) {
        Ok(Admitted::Rank(rank, watched)) => {
            let ended = serve(roster, rank, stream, watched);
            roster.closed(rank, &ended);
        }
        Ok(Admitted::Launcher(number, host)) => {
            serve_launcher(roster, &host, stream);
            roster.launcher_closed(number);
        }
        Err(answer) => {
            // The peer closes once it has read the answer: closing first could take it away again.
            let _ = answer_and_drain(stream, &answer);
        }
    }
}

/// The member's greeting, and the random bytes that its proof must be made with.
fn greet(stream: &TcpStream) -> io::Result<(Greeting, [u8; 32])> {
    let mut until = Until { stream, end: Instant::now() + GREETING };
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(GREETING))?;
    let mut opening = [0; MAGIC.len() + 4];
    until.read_exact(&mut opening)?;
    let (magic, protocol) = opening.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(ErrorKind::InvalidData.into());
    }
    let nonce = random()?;
    (&mut &*stream).write_all(&[&MAGIC[..], &PROTOCOL.to_le_bytes(), &nonce].concat())?;
    if protocol != PROTOCOL.to_le_bytes() {
        let _ = until.read(&mut [0]);
        return Err(ErrorKind::Unsupported.into());
    }
    let (greeting, _) = frame::read(&mut until, LONGEST_GREETING, 0)?;
    Ok((greeting, nonce))
}

fn answer_and_drain(stream: &TcpStream, answer: &ToMember) -> io::Result<()> {
    (&mut &*stream).write_all(&frame::encode(answer, &[])?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut until = Until { stream, end: Instant::now() + GREETING };
    while until.read(&mut [0; 256])? > 0 {}
    Ok(())
}

/// Takes a launcher's messages until its connection ends. Only what happens to its ranks is a loss.
fn serve_launcher(roster: &Roster, host: &str, mut stream: &TcpStream) {
    while let Ok((message, _)) = frame::read(&mut stream, LONGEST_HEAD, 0) {
        if let ToHub::Gone { rank, cause, is_input } = message {
            roster.gone(host, rank, &cause, is_input);
        }
    }
}

/// Takes a member's messages until its connection ends; the cause, in words.
fn serve(roster: &Roster, rank: usize, stream: &TcpStream, watched: Watched) -> String {
    let mut heard = Heard { stream, watched };
    loop {
        match frame::read(&mut heard, LONGEST_HEAD, LARGEST) {
            Ok((ToHub::Beat { at }, _)) => roster.at(rank, at),
            Ok((ToHub::Gather { number, what }, part)) => roster.gather(rank, number, what, part),
            Ok((ToHub::Fail { reason, at }, _)) => roster.fail(rank, reason, at),
            Ok((ToHub::Leave, _)) => roster.leave(rank),
            Ok((ToHub::Gone { .. }, _)) => return "it spoke as a launcher".into(),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return format!("it sent what is not a message of the control plane ({error})");
            }
            Err(_) => {
                return "its connection closed without a farewell: its process was killed, or ended by itself".into();
            }
        }
    }
}
