//! One case: checked, then timed in turns with its twin.

use super::case::{Case, Ready, Variant};
use super::clock::{Clock, Taken};
use super::compare::{Values, compare, first_difference};
use super::data::Noise;
use super::families::Family;
use super::peer::Torch;
use bigmac::cost::Spread;
use bigmac_gpu::Gpu;
use bigmac_runtime::{Context, Error};
use serde::Serialize;

/// What became of a variant.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "reason")]
pub enum Verdict {
    /// It agrees with its reference.
    Right,
    /// It does not.
    Wrong(String),
    /// It did not run.
    Failed(String),
    /// The variant was asked for, and is not for such a device or shape.
    Refused(String),
    /// The operator has no kernel.
    NoKernel,
}

/// What a case, or one variant of it, gave.
#[derive(Debug)]
pub struct Row {
    /// The variant that was asked for; none: the operator's own choice.
    pub variant: Option<Variant>,
    /// Whether it is right.
    pub verdict: Verdict,
    /// The largest error relative to its norm.
    pub error: Option<f64>,
    /// Bytes of a run.
    pub bytes: f64,
    /// Times, where it was timed.
    pub timing: Option<Timing>,
    /// Why PyTorch's side has none.
    pub missing: Option<String>,
}

/// Times of ours, and of theirs in the same turns.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// Seconds of a run.
    pub seconds: Spread,
    /// Runs of a sample.
    pub runs: usize,
    /// Sets of buffers that runs rotate over.
    pub sets: usize,
    /// True where the device waited for launches: the time is the CPU's.
    pub waits_for_launches: bool,
    /// Seconds of a run of PyTorch's.
    pub peer_seconds: Option<Spread>,
    /// Their seconds over ours, turn by turn: how many times as fast ours is.
    pub ratio: Option<Spread>,
}

/// How much is measured of a case.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Samples of each side; with none everything is only checked.
    pub samples: usize,
    /// Device time of a sample at least, in seconds.
    pub sample: f64,
    /// The operator's own choice alone, without its variants.
    pub choice: bool,
}

/// A device, and what its kernels are compared with.
pub struct Lab<'a> {
    gpu: &'a Gpu,
    ctx: &'a Context,
    cpu: &'a Context,
    noise: &'a Noise,
    torch: Option<Torch>,
    effort: Effort,
}

fn describe(error: &anyhow::Error, variant: Option<&Variant>) -> Verdict {
    match (error.downcast_ref(), variant) {
        (Some(Error::NotOnHost { .. }), _) => Verdict::NoKernel,
        (Some(Error::Argument { message, .. }), Some(_)) => Verdict::Refused(message.clone()),
        _ => Verdict::Failed(format!("{error:#}")),
    }
}

fn unmeasured(variant: Option<Variant>, verdict: Verdict) -> Row {
    Row { variant, verdict, error: None, bytes: 0.0, timing: None, missing: None }
}

impl<'a> Lab<'a> {
    /// A lab that makes that effort.
    pub fn new(
        gpu: &'a Gpu,
        [ctx, cpu]: [&'a Context; 2],
        noise: &'a Noise,
        torch: Option<Torch>,
        effort: Effort,
    ) -> Lab<'a> {
        Lab { gpu, ctx, cpu, noise, torch, effort }
    }

    /// Checks and times a case, or those of its variants that are asked for.
    ///
    /// # Errors
    /// Where PyTorch's process has ended. What goes wrong on our side is in the rows.
    pub fn measure(&mut self, family: &Family, case: &Case, asked: &[u32]) -> anyhow::Result<Vec<Row>> {
        let all = if self.effort.choice { Vec::new() } else { case.subject.variants(self.ctx) }.into_iter();
        let mut variants: Vec<Option<Variant>> =
            all.filter(|v| asked.is_empty() || asked.contains(&v.number)).map(Some).collect();
        // What the operator takes by itself stands first.
        if asked.is_empty() {
            variants.insert(0, None);
        }
        let prepared = case.subject.prepare(self.ctx, self.noise).and_then(|mut ready| {
            let wanted = ready.reference(self.cpu)?;
            Ok((ready, wanted))
        });
        let (mut ready, wanted) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                return Ok(variants.into_iter().map(|v| unmeasured(v, describe(&error, None))).collect());
            }
        };
        let check = |variant| checked(&mut *ready, case, &wanted, variant);
        let mut rows: Vec<Row> = variants.into_iter().map(check).collect();
        self.time(family, case, &mut *ready, &mut rows)?;
        Ok(rows)
    }

    /// Times the rows that are right.
    fn time(
        &mut self,
        family: &Family,
        case: &Case,
        ready: &mut dyn Ready,
        rows: &mut [Row],
    ) -> anyhow::Result<()> {
        let right = rows.iter_mut().filter(|row| matches!(row.verdict, Verdict::Right));
        let mut right: Vec<&mut Row> = right.collect();
        if self.effort.samples == 0 || right.is_empty() {
            return Ok(());
        }
        let (clock, sets) = (Clock::new(self.gpu, self.effort.sample), ready.sets());
        let mut theirs = None;
        if let Some(torch) = &mut self.torch {
            match torch.seconds(family, case, sets, 0)? {
                // As long a sample as ours.
                Ok(seconds) => theirs = Some((torch, clock.repeats(seconds))),
                Err(reason) => right.iter_mut().for_each(|row| row.missing = Some(reason.clone())),
            }
        }
        let number = |row: &Row| row.variant.as_ref().map(|v| v.number);
        let mut runs = Vec::new();
        for row in &right {
            let variant = number(row);
            runs.push(clock.runs(|i| ready.run(variant, i % sets))?);
        }
        let mut taken: Vec<Vec<Taken>> = vec![Vec::new(); right.len()];
        let mut peer = Vec::new();
        for _ in 0..self.effort.samples {
            for ((row, &runs), taken) in right.iter().zip(&runs).zip(&mut taken) {
                let variant = number(row);
                taken.push(clock.take(runs, |i| ready.run(variant, i % sets))?);
            }
            if let Some((torch, repeats)) = &mut theirs {
                clock.wait()?;
                peer.extend(torch.seconds(family, case, sets, *repeats)?);
            }
        }
        if let Some((torch, _)) = theirs {
            torch.free()?;
        }
        for ((row, &runs), taken) in right.iter_mut().zip(&runs).zip(&taken) {
            let seconds = || taken.iter().map(|t| t.seconds);
            let Some(spread) = Spread::of(seconds()) else { continue };
            let issued = Spread::of(taken.iter().map(|t| t.issued / t.seconds));
            row.timing = Some(Timing {
                seconds: spread,
                runs,
                sets,
                waits_for_launches: issued.is_some_and(|share| share.median > 0.9),
                peer_seconds: Spread::of(peer.iter().copied()),
                ratio: Spread::of(peer.iter().zip(seconds()).map(|(theirs, ours)| theirs / ours)),
            });
        }
        Ok(())
    }
}

/// Runs a variant twice, and compares both with each other and with what is wanted.
fn checked(ready: &mut dyn Ready, case: &Case, wanted: &Values, variant: Option<Variant>) -> Row {
    let number = variant.as_ref().map(|v| v.number);
    let bytes = ready.bytes();
    let mut run = || -> anyhow::Result<Result<f64, String>> {
        let first = ready.check(number)?;
        let error = match compare(&first, wanted, case.tolerance) {
            Ok(error) => error,
            Err(reason) => return Ok(Err(reason)),
        };
        Ok(match first_difference(&first, &ready.check(number)?) {
            Some(difference) => Err(format!("not the same twice: {difference}")),
            None => Ok(error),
        })
    };
    match run() {
        Ok(Ok(error)) => {
            Row { variant, verdict: Verdict::Right, error: Some(error), bytes, timing: None, missing: None }
        }
        Ok(Err(reason)) => unmeasured(variant, Verdict::Wrong(reason)),
        Err(error) => {
            let verdict = describe(&error, variant.as_ref());
            unmeasured(variant, verdict)
        }
    }
}
