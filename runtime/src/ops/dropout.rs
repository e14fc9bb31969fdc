//! Dropout and drop-path from the counter-based generator.

use lara_shaders::DROPOUT;

use crate::{Backward, Forward, Op, Recorder, Tensor};

/// Zeroes groups of neighbouring elements with probability `probability` and scales the others by 1 / (1 - probability).
#[derive(Debug)]
pub struct Dropout {
    /// Probability of being zeroed, 0 <= p < 1.
    pub probability: f32,
    /// Elements that share a fate: 1 for dropout, the size of a sample for drop-path (Huang et al. 2016).
    pub group: usize,
    /// Number of the random stream, from [`Recorder::next_stream`].
    pub stream: u32,
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("dropout", x[0].shape());
        rec.step(&DROPOUT, "forward")
            .bind("x", x[0])
            .bind("y", y)
            .uint("len", y.len())
            .uint("group", self.group)
            .uint("stream", self.stream as usize)
            .float("probability", self.probability)
            .flag("accumulate", false)
            .dispatch_items(y.len());
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            rec.step(&DROPOUT, "backward")
                .bind("dy", dy)
                .bind("dx", slot.grad)
                .uint("len", dy.len())
                .uint("group", self.group)
                .uint("stream", self.stream as usize)
                .float("probability", self.probability)
                .flag("accumulate", slot.accumulate)
                .dispatch_items(dy.len());
        }
    }
}
