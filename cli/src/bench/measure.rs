//! Timing of plans.

use std::time::{Duration, Instant};

use lara_runtime::{Header, Plan};

use crate::fail::Outcome;

/// Seconds of one run.
pub(crate) struct Times {
    pub(crate) median: f64,
    pub(crate) fastest: f64,
    pub(crate) runs: usize,
}

/// Least and longest time spent on one measurement, after two runs that nobody counts.
const BUDGET: Duration = Duration::from_millis(1500);

/// Times a plan; short ones several times in one submit.
pub(super) fn time(plan: &Plan) -> Outcome<Times> {
    let once = |times: usize| -> Outcome<f64> {
        let start = Instant::now();
        plan.run().header(Header::default()).repeat(times).submit()?;
        plan.gpu().wait_blocking();
        Ok(start.elapsed().as_secs_f64() / times as f64)
    };
    once(1)?;
    let repeats = ((0.02 / once(1)?) as usize).clamp(1, 50);
    let begun = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < 3 || (begun.elapsed() < BUDGET && seconds.len() < 40) {
        seconds.push(once(repeats)?);
    }
    Ok(Times::of(seconds))
}

impl Times {
    /// Median and least of some seconds.
    pub(super) fn of(mut seconds: Vec<f64>) -> Times {
        seconds.sort_by(f64::total_cmp);
        Times { median: seconds[seconds.len() / 2], fastest: seconds[0], runs: seconds.len() }
    }
}
