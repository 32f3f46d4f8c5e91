//! The processes of this node's ranks.

use super::output::Outputs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// How long output is waited for once all ranks have ended: what they started themselves may keep it open.
const OUTPUT: Duration = Duration::from_secs(1);

/// How long the last error of a rank that has ended is waited for: what it has started may keep its output open.
const LAST_ERROR: Duration = Duration::from_millis(200);

/// One of them.
struct Running {
    rank: usize,
    child: Child,
    /// Brings its last error.
    error: Option<Receiver<String>>,
    ended: bool,
}

/// All of them; killed when this is dropped.
#[derive(Default)]
pub(super) struct Family {
    children: Vec<Running>,
    outputs: Outputs,
}

impl Family {
    /// Starts one, in a process group of its own: what a terminal sends to all comes to this process alone, which
    /// passes it on.
    ///
    /// # Errors
    /// When the system refuses the process.
    pub fn start(&mut self, rank: usize, command: &mut Command) -> std::io::Result<()> {
        command.process_group(0).stdin(Stdio::null()).stderr(Stdio::piped());
        // So that --json works as it does without a launcher.
        command.stdout(if rank == 0 { Stdio::inherit() } else { Stdio::piped() });
        let child = command.spawn()?;
        self.children.push(Running { rank, child, error: None, ended: false });
        let Some(Running { child, error, .. }) = self.children.last_mut() else { return Ok(()) };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        if let Some(stdout) = stdout {
            self.outputs.forward(rank, stdout)?;
        }
        if let Some(stderr) = stderr {
            *error = Some(self.outputs.forward(rank, stderr)?);
        }
        Ok(())
    }

    /// The ranks that have ended since the last call, and how.
    pub fn ended(&mut self) -> std::io::Result<Vec<(usize, ExitStatus)>> {
        let mut all = Vec::new();
        for running in self.children.iter_mut().filter(|running| !running.ended) {
            if let Some(status) = running.child.try_wait()? {
                running.ended = true;
                all.push((running.rank, status));
            }
        }
        Ok(all)
    }

    /// The last error that a rank which has ended wrote.
    pub fn last_error(&self, rank: usize) -> Option<String> {
        let running = self.children.iter().find(|running| running.rank == rank)?;
        running.error.as_ref()?.recv_timeout(LAST_ERROR).ok()
    }

    /// Whether all have ended.
    pub fn is_over(&self) -> bool {
        self.children.iter().all(|running| running.ended)
    }

    /// Sends a signal to all that have not ended, with their process groups.
    pub fn signal(&self, signal: i32) {
        for running in self.children.iter().filter(|running| !running.ended) {
            // A number of Linux fits.
            let Ok(group) = i32::try_from(running.child.id()) else { continue };
            // SAFETY: it sends a signal. The group's leader was not waited for, so that the number is still its own.
            unsafe { libc::kill(-group, signal) };
        }
    }

    /// Kills those that are stopped (SIGSTOP, a debugger), where the system tells; whether there were any.
    pub fn kill_stopped(&self) -> bool {
        let mut killed = false;
        for running in self.children.iter().filter(|running| !running.ended) {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.child.id()));
            // The state comes after the name, which is in parentheses and may hold anything.
            let state = stat.ok().and_then(|stat| stat.rsplit(')').next()?.trim_start().chars().next());
            if let (Some('T' | 't'), Ok(group)) = (state, i32::try_from(running.child.id())) {
                // SAFETY: as in `signal`.
                unsafe { libc::kill(-group, libc::SIGKILL) };
                killed = true;
            }
        }
        killed
    }

    /// Waits for what they have written to be passed on.
    pub fn drain(&mut self) {
        self.outputs.wait(OUTPUT);
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        for running in self.children.iter_mut().filter(|running| !running.ended) {
            let _ = running.child.wait();
        }
    }
}
