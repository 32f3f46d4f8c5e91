//! Waiting for a device no longer than the user allows, for kernels that hang.

use super::error::{OpenError, TIMEOUT};
use crate::shared::variable;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

/// How long the device is asked without a pause, so that short work is met right at its end.
const WITHOUT_PAUSE: Duration = Duration::from_micros(100);
/// Pauses grow from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LAST_PAUSE: Duration = Duration::from_millis(1);

/// The time in [`TIMEOUT`]; `None` when it is not set or empty.
pub(super) fn from_environment() -> Result<Option<Duration>, OpenError> {
    variable(TIMEOUT).map(|value| parse(&value)).transpose()
}

fn parse(value: &OsStr) -> Result<Duration, OpenError> {
    let seconds = value.to_str().and_then(|text| text.trim().parse().ok()).filter(|&seconds| seconds > 0.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| OpenError::Timeout { given: value.to_string_lossy().into_owned() })
}

/// Asks until the answer is yes, or for `limit`. False when it never was.
pub(super) fn poll<E>(limit: Duration, mut passed: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if passed()? {
            return Ok(true);
        }
        let waited = began.elapsed();
        if waited >= limit {
            return Ok(false);
        }
        if waited < WITHOUT_PAUSE {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(pause.min(limit - waited));
            pause = LAST_PAUSE.min(pause * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_and_anything_else_is_refused() {
        assert_eq!(parse("30".as_ref()).unwrap(), Duration::from_secs(30));
        assert_eq!(parse(" 0.25 ".as_ref()).unwrap(), Duration::from_millis(250));
        for wrong in ["0", "-1", "ten", "10s", "nan", "inf", "1e30"] {
            let error = parse(wrong.as_ref()).unwrap_err().to_string();
            assert!(error.contains(TIMEOUT) && error.contains(&format!("'{wrong}'")), "{error}");
        }
    }

    #[test]
    fn asking_ends_with_a_yes_an_error_or_the_limit() {
        let long = Duration::from_secs(3600);
        let mut asked = 0;
        let fifth = || {
            asked += 1;
            Ok::<_, ()>(asked == 5)
        };
        assert_eq!((poll(long, fifth), asked), (Ok(true), 5));
        assert_eq!(poll(long, || Err(3)), Err(3));
        let (began, limit) = (Instant::now(), Duration::from_millis(20));
        assert_eq!(poll(limit, || Ok::<_, ()>(false)), Ok(false));
        assert!(began.elapsed() >= limit);
        // What is done by the end of the last pause is done in time.
        let mut asked = 0;
        let second = || {
            asked += 1;
            Ok::<_, ()>(asked == 2)
        };
        assert_eq!(poll(Duration::from_nanos(1), second).map(|_| ()), Ok(()));
    }
}
