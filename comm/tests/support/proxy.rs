//! A proxy of TCP that can stop to forward without closing anything: what a cut cable or a dead switch looks like.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a connection looks whether it is cut or closed.
const LOOK: Duration = Duration::from_millis(10);

/// Forwards every connection to one address.
pub struct Proxy {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    is_closed: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens on a free port of the loopback interface.
    pub fn to(target: SocketAddr) -> std::io::Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (is_cut, is_closed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let flags = (is_cut.clone(), is_closed.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), false) = (stream, flags.1.load(Ordering::SeqCst)) else { return };
                let Ok(onward) = TcpStream::connect(target) else { continue };
                for (from, to) in [(&stream, &onward), (&onward, &stream)] {
                    let (Ok(from), Ok(to), flags) = (from.try_clone(), to.try_clone(), flags.clone()) else {
                        return;
                    };
                    std::thread::spawn(move || forward(from, to, &flags.0, &flags.1));
                }
            }
        });
        Ok(Proxy { address, is_cut, is_closed })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing passes any more, in both directions; nothing is closed.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool, is_closed: &AtomicBool) {
    let _ = (from.set_read_timeout(Some(LOOK)), to.set_nodelay(true));
    let mut buffer = vec![0; 1 << 16];
    while !is_closed.load(Ordering::SeqCst) {
        if is_cut.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK);
            continue;
        }
        match from.read(&mut buffer) {
            // What came while it was cut is lost, as is the end of a connection.
            _ if is_cut.load(Ordering::SeqCst) => {}
            Ok(0) => break,
            Ok(length) if to.write_all(&buffer[..length]).is_err() => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
}
