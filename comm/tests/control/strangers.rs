//! Who connects and is no member: dropped within seconds, and no one is disturbed.

use super::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// What is sent by them.
fn garbage() -> Vec<Vec<u8>> {
    let magic = |rest: &[u8]| [&b"BIGMACcp"[..], &2u32.to_le_bytes(), rest].concat();
    vec![
        vec![],
        b"G".to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        b"BIGMACcp".to_vec(),
        magic(&[]),
        // Lengths of a frame that no one could hold.
        magic(&[0xff; 16]),
        magic(&[0xff; 7]),
        // A frame whose head is no greeting.
        magic(&[&2u64.to_le_bytes()[..], &0u64.to_le_bytes(), b"{}"].concat()),
        // One that never ends.
        magic(&[&1000u64.to_le_bytes()[..], &0u64.to_le_bytes(), b"{"].concat()),
        // Another protocol.
        [&b"BIGMACcp"[..], &9u32.to_le_bytes()].concat(),
    ]
}

fn visit(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    // It may be closed in the middle of it.
    let _ = stream.write_all(bytes);
    stream
}

/// Reads until the other side closes.
fn wait_for_end(mut stream: TcpStream) {
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("not dropped: {error}"),
        }
    }
}

#[test]
fn garbage_is_dropped_and_disturbs_nobody() {
    let hub = hub(2, LIMITS);
    let address = hub.address();
    let begun = Instant::now();
    let before: Vec<_> = garbage().iter().map(|bytes| visit(address, bytes)).collect();
    let members = join_all(&address.to_string(), vec![hello(0, 2), hello(1, 2)], LIMITS);
    let members: Vec<_> = members.into_iter().map(Result::unwrap).collect();
    let during: Vec<_> = garbage().iter().map(|bytes| visit(address, bytes)).collect();
    std::thread::scope(|scope| {
        for member in &members {
            scope.spawn(move || assert_eq!(member.gather("x", vec![1]).unwrap(), [[1], [1]]));
        }
    });
    before.into_iter().chain(during).for_each(wait_for_end);
    // They have 5 s each, all at once.
    assert!(begun.elapsed() < LONG / 2);
    assert_eq!(hub.failure(), None);
    members.into_iter().for_each(Member::leave);
    assert_eq!(hub.finish(LONG), None);
}

#[test]
fn a_crowd_of_silent_strangers_only_delays() {
    let hub = hub(2, LIMITS);
    let address = hub.address();
    let crowd: Vec<_> = (0..150).map(|_| visit(address, &[])).collect();
    for member in join_all(&address.to_string(), vec![hello(0, 2), hello(1, 2)], LIMITS) {
        member.unwrap().leave();
    }
    assert_eq!(hub.finish(LONG), None);
    crowd.into_iter().for_each(wait_for_end);
}
