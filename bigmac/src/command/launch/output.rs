//! What ranks write: passed on to standard error, line by line, with the rank before each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How a line begins that says why a program failed.
const ERROR: &[u8] = b"error: ";

/// Longer lines are passed on in parts, in bytes.
const LONGEST: u64 = 64 << 10;

/// The threads that pass on; each holds a sender that no one sends with: it is gone when they all have ended.
pub(super) struct Outputs {
    open: Sender<()>,
    ended: Receiver<()>,
}

impl Default for Outputs {
    fn default() -> Self {
        let (open, ended) = channel();
        Outputs { open, ended }
    }
}

impl Outputs {
    /// Passes on what comes, until it ends; then brings the last error in it, if any.
    pub fn forward(&self, rank: usize, from: impl Read + Send + 'static) -> io::Result<Receiver<String>> {
        let open = self.open.clone();
        let (tell, last) = channel();
        let work = move || {
            let mut error = None;
            // Where no one reads it the rank goes on all the same.
            let _ = pass_on(rank, from, |prefix, line| {
                if let Some(text) = line.strip_prefix(ERROR) {
                    error = Some(String::from_utf8_lossy(text).trim_end().to_owned());
                }
                // At once, so that lines of different ranks do not mix.
                let _ = io::stderr().lock().write_all(&[prefix.as_bytes(), line].concat());
            });
            error.map(|error| tell.send(error));
            drop(open);
        };
        std::thread::Builder::new().name(format!("output-{rank}")).spawn(work)?;
        Ok(last)
    }

    /// Waits for all of them to end.
    pub fn wait(&mut self, limit: Duration) {
        // Its own sender would keep it open.
        self.open = channel().0;
        let end = Instant::now() + limit;
        while let Ok(()) | Err(RecvTimeoutError::Timeout) =
            self.ended.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            if Instant::now() >= end {
                return;
            }
        }
    }
}

/// Calls `write` with the rank's prefix and each line.
fn pass_on(rank: usize, from: impl Read, mut write: impl FnMut(&str, &[u8])) -> io::Result<()> {
    let prefix = format!("[r{rank}] ");
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        write(&prefix, &line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_gets_its_rank() {
        let passed = |text: &[u8]| {
            let mut all = Vec::new();
            pass_on(2, text, |prefix, line| all.extend([prefix.as_bytes(), line].concat())).unwrap();
            String::from_utf8_lossy(&all).into_owned()
        };
        assert_eq!(passed(b""), "");
        assert_eq!(passed(b"a\n\nb"), "[r2] a\n[r2] \n[r2] b\n");
        assert_eq!(passed(b"\xff\n"), "[r2] \u{fffd}\n");
        let long = passed(&vec![b'x'; 3 << 16]);
        assert_eq!(long.lines().count(), 3);
        assert_eq!(long.len(), (3 << 16) + 3 * "[r2] \n".len());
    }

    #[test]
    fn the_last_error_is_brought() {
        let last = |text: &'static str| Outputs::default().forward(2, text.as_bytes()).unwrap().recv().ok();
        assert_eq!(last("a\nerror: first\nerror: second\nb\n").as_deref(), Some("second"));
        assert_eq!(last("no error: here\n"), None);
    }
}
