//! Moments in a device's work, or on the processor's clock where there is no device.

use bigmac_gpu::{DriverResult, Gpu, Mark};
use std::time::Instant;

/// Takes moments.
#[derive(Clone, Debug)]
pub struct Clock(Option<Gpu>);

/// The end of all work so far: on a device where there is a mark, else on the processor, which waits for its work.
#[derive(Debug)]
pub struct Moment {
    mark: Option<Mark>,
    host: Instant,
}

impl Clock {
    /// A clock of that device, or of the processor without one.
    pub fn new(gpu: Option<&Gpu>) -> Clock {
        Clock(gpu.cloned())
    }

    /// The moment when all work so far is done. It is not waited for.
    ///
    /// # Errors
    /// The driver's.
    pub fn now(&self) -> DriverResult<Moment> {
        let mark = self.0.as_ref().map(|gpu| gpu.driver().mark()).transpose()?;
        Ok(Moment { mark, host: Instant::now() })
    }

    /// Seconds from one moment to another; waits for both.
    ///
    /// # Errors
    /// The driver's.
    pub fn seconds(&self, from: &Moment, to: &Moment) -> DriverResult<f64> {
        match (&self.0, from.mark, to.mark) {
            (Some(gpu), Some(from), Some(to)) => gpu.driver().seconds_between(from, to),
            _ => Ok(to.host.duration_since(from.host).as_secs_f64()),
        }
    }

    /// Gives a moment back.
    pub fn forget(&self, moment: Moment) {
        if let (Some(gpu), Some(mark)) = (&self.0, moment.mark) {
            gpu.driver().forget(mark);
        }
    }

    /// Waits for the device.
    ///
    /// # Errors
    /// The driver's.
    pub fn wait(&self) -> DriverResult<()> {
        self.0.as_ref().map_or(Ok(()), |gpu| gpu.driver().synchronize())
    }
}
