//! One sample from each proposal.

use lara_shaders::NOISE;

use crate::ops::quads;
use crate::{Backward, Forward, Op, Recorder, Tensor};

/// y = x + std e, e standard normal from the counter-based generator. Output has x's shape.
#[derive(Debug)]
pub struct Noise {
    /// Standard deviation; 0 copies.
    pub std: f32,
    /// Number of the random stream, from [`Recorder::next_stream`].
    pub stream: u32,
    /// Real ones before each of x's rows / `samples` tokens [batch, tokens + 1], if a sample x [batch, heads, rows, D] is to
    /// get the noise that it would get without its padding.
    pub ranks: Option<Tensor>,
    /// Rows a token, one behind the other; counts with `ranks` only.
    pub samples: usize,
}

impl Noise {
    fn record(&self, rec: &mut Recorder, entry: &'static str, binds: [(&'static str, Tensor); 2], accumulate: bool) {
        let [from, to] = binds;
        rec.step(&NOISE, entry)
            .bind(from.0, from.1)
            .bind(to.0, to.1)
            .uint("quads", quads(to.1.len()))
            .uint("stream", self.stream as usize)
            .float("deviation", self.std)
            .flag("accumulate", accumulate)
            .uint("heads", 1)
            .uint("rows", 1)
            .uint("dim", 1)
            .uint("samples", 1)
            .dispatch_items(quads(to.1.len()));
    }

    fn record_ranked(&self, rec: &mut Recorder, ranks: Tensor, x: Tensor, y: Tensor) {
        rec.step(&NOISE, "forward_ranked")
            .bind("mu", x)
            .bind("ranks", ranks)
            .bind("w", y)
            .uint("quads", quads(y.len()))
            .uint("stream", self.stream as usize)
            .float("deviation", self.std)
            .flag("accumulate", false)
            .uint("heads", x.dims()[1])
            .uint("rows", x.dims()[2])
            .uint("dim", x.last())
            .uint("samples", self.samples)
            .dispatch_items(y.len());
    }
}

impl Op for Noise {
    fn name(&self) -> &'static str {
        "noise"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("proposals", x[0].shape());
        match self.ranks {
            Some(ranks) => self.record_ranked(rec, ranks, x[0], y),
            None => self.record(rec, "forward", [("x", x[0]), ("y", y)], false),
        }
        Forward::one(y)
    }

    fn passes_on(&self, _: &[Tensor], _: usize) -> bool {
        true
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            self.record(rec, "backward", [("dy", dy), ("dx", slot.grad)], slot.accumulate);
        }
    }
}
