//! The way to the hub.

use super::Hello;
use super::link::Link;
use crate::control::error::ControlError;
use crate::control::frame::{self, Until};
use crate::control::wire::{Greeting, LONGEST_GREETING, LONGEST_HEAD, MAGIC, PROTOCOL, Role, ToMember};
use crate::control::{GREETING, Limits};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Before the next try: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How a try ended.
enum Ended {
    /// It may go better later.
    Again(String),
    For(ControlError),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Ended::Again(error.to_string())
    }
}

/// Connects, and is welcomed, before `limits.join` has passed.
pub(super) fn connect(
    address: &str,
    role: Role,
    hello: &Hello,
    limits: Limits,
) -> Result<Arc<Link>, ControlError> {
    let begun = Instant::now();
    let mut pause = RETRY.0;
    loop {
        let last = match attempt(address, role, hello, limits, begun + limits.join) {
            Ok(link) => return Ok(link),
            Err(Ended::For(error)) => return Err(error),
            Err(Ended::Again(reason)) => reason,
        };
        if begun.elapsed() + pause >= limits.join {
            return Err(ControlError::Unreachable { address: address.into(), waited: limits.join, last });
        }
        std::thread::sleep(pause);
        pause = RETRY.1.min(pause * 2);
    }
}

fn attempt(
    address: &str,
    role: Role,
    hello: &Hello,
    limits: Limits,
    until: Instant,
) -> Result<Arc<Link>, Ended> {
    let stream = open(address, until)?;
    let mut reader = Until { stream: &stream, end: Instant::now() + GREETING };
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(GREETING))?;
    (&mut &stream).write_all(&[&MAGIC[..], &PROTOCOL.to_le_bytes()].concat())?;
    let nonce = opening(address, &mut reader)?;
    let greeting = Greeting {
        role,
        rank: hello.rank,
        world: hello.world,
        restart: hello.restart,
        host: hello.host.clone(),
        pid: hello.pid,
        version: hello.version.clone(),
        facts: hello.facts.clone(),
        proof: hello.token.proof(&nonce).to_vec(),
    };
    let greeting = frame::encode(&greeting, &[])?;
    if greeting.len() > LONGEST_GREETING {
        let (what, given, most) = ("facts".into(), greeting.len(), LONGEST_GREETING);
        return Err(Ended::For(ControlError::TooLarge { what, given, most }));
    }
    (&mut &stream).write_all(&greeting)?;
    let (answer, _) = frame::read(&mut reader, LONGEST_HEAD, 0)?;
    let end = Ended::For;
    match answer {
        ToMember::Welcome => Link::start(stream, address, hello.world, limits).map_err(end),
        ToMember::Again { reason } => Err(Ended::Again(reason)),
        ToMember::Refused { reason } => Err(end(ControlError::Refused(reason))),
        ToMember::Lost(loss) => Err(end(ControlError::Lost(loss))),
        _ => Err(end(ControlError::NotControl { address: address.into() })),
    }
}

/// The first of the name's addresses that answers.
fn open(address: &str, until: Instant) -> Result<TcpStream, Ended> {
    let mut last = Ended::Again("the name has no address".into());
    // A name may have no address yet: the others' hosts come up at the same time.
    for one in address.to_socket_addrs()? {
        let left = until.saturating_duration_since(Instant::now()).clamp(RETRY.0, GREETING);
        match TcpStream::connect_timeout(&one, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// The hub's random bytes.
fn opening(address: &str, reader: &mut Until<'_>) -> Result<[u8; 32], Ended> {
    let mut magic = [0; MAGIC.len()];
    match reader.read_exact(&mut magic) {
        Ok(()) if magic == MAGIC => {}
        Ok(()) => return Err(Ended::For(ControlError::NotControl { address: address.into() })),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(Ended::Again("it closed the connection without an answer".into()));
        }
        Err(error) => return Err(error.into()),
    }
    let mut protocol = [0; 4];
    reader.read_exact(&mut protocol)?;
    let there = u32::from_le_bytes(protocol);
    if there != PROTOCOL {
        let address = address.into();
        return Err(Ended::For(ControlError::Protocol { address, here: PROTOCOL, there }));
    }
    let mut nonce = [0; 32];
    reader.read_exact(&mut nonce)?;
    Ok(nonce)
}
