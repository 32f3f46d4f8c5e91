//! What a measurement says, for people and machines.

use super::ledger::{Line, Observed, Phase};
use super::sizes::Sizes;
use super::trainer::Timed;
use bigmac::cost::Spread;
use serde_json::{Value, json};
use std::fmt::Write;

/// A measured step.
#[derive(Debug)]
pub struct Report<'a> {
    /// As it was asked for.
    pub model: &'a str,
    pub sizes: &'a Sizes,
    pub parameters: usize,
    /// For people.
    pub device: String,
    pub dtype: String,
    pub date: String,
    /// FLOP/s that the share is of.
    pub peak: f64,
    pub seconds: Spread,
    pub timed: Timed,
    pub observed: Observed,
    pub ideal_bytes: f64,
}

impl Report<'_> {
    fn flops(&self) -> f64 {
        self.observed.total(|line| line.flops)
    }

    fn bytes(&self) -> f64 {
        self.observed.total(|line| line.bytes)
    }

    fn tokens_per_second(&self) -> f64 {
        self.sizes.step_tokens() as f64 / self.seconds.median
    }

    fn mfu(&self) -> f64 {
        self.flops() / self.seconds.median / self.peak
    }

    /// Seconds that the device has nothing to do between the last kernel of a step and the first of the next, in the
    /// median: until the first operators are through, less what these take in a step that is observed.
    fn idle(&self) -> f64 {
        let until = Spread::of(self.timed.first.iter().copied()).map_or(0.0, |spread| spread.median);
        (until - self.observed.first).max(0.0)
    }

    fn issued(&self) -> f64 {
        Spread::of(self.timed.issued.iter().copied()).map_or(0.0, |spread| spread.median)
    }

    /// One object.
    pub fn json(&self) -> Value {
        let sizes = self.sizes;
        json!({
            "model": self.model,
            "framework": "bigmac",
            "sizes": sizes.model,
            "parameters": self.parameters,
            "device": self.device,
            "dtype": self.dtype,
            "date": self.date,
            "version": env!("CARGO_PKG_VERSION"),
            "tokens": sizes.tokens,
            "sequence": sizes.sequence,
            "microbatches": sizes.microbatches,
            "steps": self.timed.seconds.len(),
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second(),
            "peak": self.peak,
            "mfu": self.mfu(),
            "flops": self.flops(),
            "launches": self.timed.launches,
            "idle_seconds": self.idle(),
            "issue_seconds": self.issued(),
            "operators": self.observed.lines,
            "observed_seconds": self.observed.total(|line| line.seconds),
            "bytes": self.bytes(),
            "ideal_bytes": self.ideal_bytes,
            "losses": self.timed.losses,
            "gradient_norms": self.timed.norms,
        })
    }

    /// A table.
    // Writing to a String cannot fail, so the results of writeln! carry nothing.
    pub fn text(&self) -> String {
        let (sizes, milliseconds) = (self.sizes, |seconds: f64| seconds * 1e3);
        let Spread { median, lower, upper, .. } = self.seconds;
        let mut text = format!(
            "{} ({} parameters), {} on {}\n{} x {} tokens in sequences of {}\n\n",
            self.model,
            short(self.parameters as f64, "B"),
            self.dtype,
            self.device,
            sizes.microbatches,
            sizes.tokens,
            sizes.sequence
        );
        let _ = writeln!(
            text,
            "step      {:.2} ms (quartiles {:.2} to {:.2} of {} steps)\ntokens/s  {:.0}\nMFU       {:.1} % of {:.0} TFLOP/s ({:.4e} \
             operations)",
            milliseconds(median),
            milliseconds(lower),
            milliseconds(upper),
            self.timed.seconds.len(),
            self.tokens_per_second(),
            100.0 * self.mfu(),
            self.peak / 1e12,
            self.flops()
        );
        let launches = self.timed.launches.map_or("-".to_owned(), |launches| format!("{launches:.0}"));
        let _ = writeln!(
            text,
            "idle      {:.3} ms between steps; the host issues a step in {:.2} ms\nlaunches  {launches} per step\nbytes     {}B, \
             where {}B would do with everything fused",
            milliseconds(self.idle()),
            milliseconds(self.issued()),
            short(self.bytes(), "G"),
            short(self.ideal_bytes, "G")
        );
        if let [first, .., last] = self.timed.losses[..] {
            let _ = writeln!(text, "loss      {first:.4} to {last:.4}");
        }
        let all = self.observed.total(|line| line.seconds);
        let _ = writeln!(
            text,
            "\nOne step observed, {:.2} ms:\n{:<22}{:<17}{:>7}{:>11}{:>9}{:>10}{:>9}",
            milliseconds(all),
            "operator",
            "phase",
            "calls",
            "ms",
            "share",
            "TFLOP/s",
            "GB/s"
        );
        for line in &self.observed.lines {
            text += &row(line, all);
        }
        text.push('\n');
        for phase in Phase::ALL {
            let lines = self.observed.lines.iter().filter(|line| line.phase == phase);
            let seconds: f64 = lines.map(|line| line.seconds).sum();
            if seconds > 0.0 {
                let (time, share) = (milliseconds(seconds), 100.0 * seconds / all);
                let _ =
                    writeln!(text, "{:<22}{:<17}{:>7}{time:>11.3}{share:>7.1} %", "all", phase.name(), "");
            }
        }
        text
    }
}

/// A number in thousands, millions, or billions, which are called `billion`.
fn short(number: f64, billion: &str) -> String {
    let units = [(1e9, billion), (1e6, "M"), (1e3, "k")];
    let (unit, letter) = units.into_iter().find(|(unit, _)| number >= *unit).unwrap_or((1.0, ""));
    format!("{:.2} {letter}", number / unit)
}

fn row(line: &Line, all: f64) -> String {
    let rate = |amount: f64, unit: f64| match amount / line.seconds / unit {
        rate if amount > 0.0 && rate.is_finite() => format!("{rate:.1}"),
        _ => "-".to_owned(),
    };
    format!(
        "{:<22}{:<17}{:>7}{:>11.3}{:>7.1} %{:>10}{:>9}\n",
        line.operator,
        line.phase.name(),
        line.calls,
        line.seconds * 1e3,
        100.0 * line.seconds / all.max(f64::MIN_POSITIVE),
        rate(line.flops, 1e12),
        rate(line.bytes, 1e9)
    )
}
