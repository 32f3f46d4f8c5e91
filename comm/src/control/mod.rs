//! The control plane: who is there, who failed, and what all ranks must agree on. Plain TCP and threads, independent of
//! the engine that carries tensors.
//!
//! One [`Hub`] listens: in the launcher of node 0, or in the process of rank 0. Every rank is a [`Member`] with one
//! connection to it, and says over it every second where it is. A connection that closes without a farewell is a loss
//! at once, a rank that is silent for too long is one too, and every other rank is told; so is every rank when the hub
//! itself is gone. Launchers are told, too ([`LauncherMember`]), so that they end ranks that cannot end by themselves.
//!
//! ```
//! use bigmac_comm::control::{ControlError, Hello, Hub, Job, Limits, Member, Token};
//!
//! let token = Token::random()?;
//! let job = Job { world: 2, restart: 0, token: token.clone() };
//! let hub = Hub::bind("127.0.0.1:0", job, Limits::default())?;
//! let address = hub.address().to_string();
//! let run = |rank: usize| {
//!     let (address, token) = (address.clone(), token.clone());
//!     std::thread::spawn(move || {
//!         let hello = Hello {
//!             rank,
//!             world: 2,
//!             restart: 0,
//!             host: "here".into(),
//!             pid: std::process::id(),
//!             version: "0.1.0".into(),
//!             token,
//!             facts: Default::default(),
//!         };
//!         let member = Member::join(&address, hello, Limits::default())?;
//!         let all = member.gather("greetings", vec![rank as u8])?;
//!         member.leave();
//!         Ok::<_, ControlError>(all)
//!     })
//! };
//! for rank in [run(0), run(1)] {
//!     assert_eq!(rank.join().unwrap()?, [[0], [1]]);
//! }
//! assert!(hub.finish(std::time::Duration::from_secs(5)).is_none());
//! # Ok::<(), ControlError>(())
//! ```

mod agree;
mod error;
mod frame;
mod hub;
mod loss;
mod member;
mod outgoing;
mod position;
mod silence;
mod token;
mod wire;
mod words;

pub use error::ControlError;
pub use hub::{Hub, Job, MOST_RANKS};
pub use loss::{At, Loss, Peer};
pub use member::{Hello, LauncherMember, Member};
pub use position::Position;
pub use token::Token;

use std::time::Duration;

/// How long the control plane waits. The same on all ranks.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For all ranks to come.
    pub join: Duration,
    /// Between two signs of life, of the hub and of every member.
    pub beat: Duration,
    /// After this time without a sign of life, somebody is lost.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            join: Duration::from_secs(300),
            beat: Duration::from_secs(1),
            silence: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The time between two beats: a short limit of silence needs them more often than was asked for.
    fn pulse(&self) -> Duration {
        self.beat.min(self.silence / 4).max(Duration::from_millis(1))
    }
}

/// For the greeting of a connection, from the first byte on: who takes longer is a stranger.
const GREETING: Duration = Duration::from_secs(5);
