//! What is measured, row by row.

use indicatif::ProgressBar;
use lara_runtime::{Gpu, Tune};
use serde::Serialize;

use super::measure::Times;

/// One measurement.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// Median of the runs.
    pub(super) milliseconds: f64,
    /// Fastest run.
    pub(super) fastest_milliseconds: f64,
    pub(super) runs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gflops: Option<f64>,
    /// GFLOP/s of the median run over the FMA peak of this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) of_peak: Option<f64>,
    /// Pooled activations, saved values and gradients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) activation_bytes: Option<u64>,
}

/// What every part of the benchmark works with.
pub(super) struct Bench<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) tune: Tune,
    pub(super) bar: ProgressBar,
    pub(super) peak: f64,
    pub(super) rows: Vec<Row>,
    pub(super) left_out: Vec<String>,
}

impl Bench<'_> {
    pub(super) fn push(&mut self, name: String, times: &Times, flops: Option<f64>, activation_bytes: Option<u64>) {
        let gflops = flops.map(|f| f / times.median / 1e9);
        self.rows.push(Row {
            name,
            milliseconds: times.median * 1e3,
            fastest_milliseconds: times.fastest * 1e3,
            runs: times.runs,
            gflops,
            of_peak: gflops.map(|g| g / self.peak),
            activation_bytes,
        });
    }
}
