//! One sample from each proposal.

use lara_shaders::NOISE;

use crate::ops::quads;
use crate::{Backward, Forward, Op, Recorder, Tensor};

/// y = x + std e, e standard normal from the counter-based generator. Output has x's shape.
#[derive(Debug)]
pub struct Perturb {
    /// Standard deviation; 0 copies.
    pub std: f32,
    /// Number of the random stream, from [`Recorder::next_stream`].
    pub stream: u32,
}

impl Perturb {
    fn record(&self, rec: &mut Recorder, entry: &'static str, binds: [(&'static str, Tensor); 2], accumulate: bool) {
        let [from, to] = binds;
        rec.step(&NOISE, entry)
            .bind(from.0, from.1)
            .bind(to.0, to.1)
            .uint("quads", quads(to.1.len()))
            .uint("stream", self.stream as usize)
            .float("deviation", self.std)
            .flag("accumulate", accumulate)
            .dispatch_items(quads(to.1.len()));
    }
}

impl Op for Perturb {
    fn name(&self) -> &'static str {
        "noise"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("proposals", x[0].shape());
        self.record(rec, "forward", [("x", x[0]), ("y", y)], false);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            self.record(rec, "backward", [("dy", dy), ("dx", slot.grad)], slot.accumulate);
        }
    }
}
