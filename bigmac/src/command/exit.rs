//! Exit codes: 0 done; 1 failed; 2 bad input, so that the same call will fail again; 75 a peer was lost: start again; 130
//! a second Ctrl-C.

use bigmac::data::DataError;
use bigmac::job::JobError;
use bigmac::measure::MeasureError;
use bigmac::profile::ProfileError;
use bigmac::train::{Fault, TrainError};
use bigmac_comm::control::ControlError;
use std::error::Error;
use std::io;

const FAILED: u8 = 1;
/// A bad command line among it.
pub(super) const BAD_INPUT: u8 = 2;
/// `EX_TEMPFAIL` of sysexits.h.
pub(super) const START_AGAIN: u8 = 75;
/// Of a second Ctrl-C.
pub(super) const INTERRUPTED: u8 = ENDED + 2;
/// A program that a signal ended has this and the signal's number as its code, as shells report it.
pub(super) const ENDED: u8 = 128;

/// Input that cannot be used, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadInput(pub String);

/// Children that ended, with the code that this process is to end with for it.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub(super) struct Ended {
    pub code: u8,
    pub said: String,
}

impl Ended {
    /// After a second Ctrl-C.
    pub fn interrupted() -> Self {
        Ended { code: INTERRUPTED, said: "ended by a second Ctrl-C; nothing was saved by it".into() }
    }

    /// A signal came while there was no one to pass it on to.
    pub fn by_signal(signal: i32) -> Self {
        let code = u8::try_from(signal).ok().and_then(|signal| ENDED.checked_add(signal)).unwrap_or(FAILED);
        Ended { code, said: format!("stopped by signal {signal} before the ranks were started again") }
    }
}

/// The code that a command ends with.
pub(super) fn code(error: &anyhow::Error) -> u8 {
    if let Some(ended) = error.downcast_ref::<Ended>() {
        return ended.code;
    }
    // What is not known to be anything else is a value that does not fit another.
    match error.chain().find_map(fault).unwrap_or(Fault::Input) {
        Fault::Input => BAD_INPUT,
        Fault::Peer => START_AGAIN,
        Fault::Other => FAILED,
    }
}

/// Whose fault a cause is; none where it does not say.
fn fault(cause: &(dyn Error + 'static)) -> Option<Fault> {
    if let Some(error) = cause.downcast_ref::<TrainError>() {
        Some(error.fault())
    } else if let Some(error) = cause.downcast_ref::<JobError>() {
        Some(if error.is_input() {
            Fault::Input
        } else if error.is_loss() {
            Fault::Peer
        } else {
            Fault::Other
        })
    } else if let Some(MeasureError::Train(error)) = cause.downcast_ref() {
        Some(error.fault())
    } else if let Some(error) = cause.downcast_ref::<ControlError>() {
        Some(of_control(error))
    } else if let Some(error) = cause.downcast_ref::<DataError>() {
        Some(Fault::of_data(error))
    } else if let Some(ProfileError::Runtime(error)) = cause.downcast_ref() {
        Some(Fault::of_runtime(error))
    } else if let Some(error) = cause.downcast_ref::<bigmac_runtime::Error>() {
        Some(Fault::of_runtime(error))
    } else {
        cause.downcast_ref::<io::Error>().map(Fault::of_file)
    }
}

fn of_control(error: &ControlError) -> Fault {
    if error.is_loss() {
        Fault::Peer
    } else if error.is_input() {
        Fault::Input
    } else {
        Fault::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::path::Path;

    #[test]
    fn the_cause_decides_whatever_is_said_around_it() {
        let file = |kind: io::ErrorKind| bigmac_runtime::Error::io(Path::new("a"), kind.into());
        let said = |error: anyhow::Error| code(&error.context("around"));
        assert_eq!(said(TrainError::from(file(io::ErrorKind::NotFound)).into()), BAD_INPUT);
        assert_eq!(said(TrainError::from(file(io::ErrorKind::StorageFull)).into()), FAILED);
        assert_eq!(said(file(io::ErrorKind::StorageFull).into()), FAILED);
        assert_eq!(said(io::Error::from(io::ErrorKind::StorageFull).into()), FAILED);
        assert_eq!(said(BadInput("x".into()).into()), BAD_INPUT);
        let measured = MeasureError::Train(Box::new(file(io::ErrorKind::StorageFull).into()));
        assert_eq!(said(measured.into()), FAILED);
        let result: Result<(), _> =
            Err(io::Error::from(io::ErrorKind::BrokenPipe)).context("could not write");
        assert_eq!(code(&result.unwrap_err()), FAILED);
        let late = bigmac_comm::CommError::Timeout { rank: 0, what: "x".into(), seconds: 1.0 };
        assert_eq!(said(TrainError::from(late).into()), START_AGAIN);
        assert_eq!(said(ControlError::PortTaken { address: "a:1".into() }.into()), BAD_INPUT);
        let (waited, last) = (std::time::Duration::ZERO, String::new());
        assert_eq!(
            said(ControlError::Unreachable { address: "a:1".into(), waited, last }.into()),
            START_AGAIN
        );
        assert_eq!(said(ControlError::System { what: "a thread", cause: "none".into() }.into()), FAILED);
        assert_eq!(said(Ended::interrupted().into()), 130);
        assert_eq!(said(Ended::by_signal(15).into()), 143);
    }
}
