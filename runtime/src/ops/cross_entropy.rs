//! Cross-entropy with soft targets and label smoothing (Szegedy et al. 2016).

use lara_shaders::CROSS_ENTROPY;

use crate::{Backward, Forward, Op, Recorder, StepBuilder, Tensor};

/// Inputs: logits [rows, classes], targets [rows, classes] (rows sum to 1; one-hot for labels).
/// Outputs: loss `[1]`, the mean over rows, and statistics `[2]`: mean loss and accuracy; under gradient accumulation, where
/// they must be pinned, their mean over the micro-steps of the cycle so far.
#[derive(Debug)]
pub struct CrossEntropy {
    /// Label smoothing e: targets become (1 - e) t + e / classes.
    pub smoothing: f32,
}

impl CrossEntropy {
    fn sizes<'r>(&self, step: StepBuilder<'r>, x: Tensor, accumulate: bool) -> StepBuilder<'r> {
        step.uint("rows", x.rows())
            .uint("classes", x.last())
            .float("smoothing", self.smoothing)
            .flag("accumulate", accumulate)
    }
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let per_row = rec.scratch("row losses", [x[0].rows(), 3]);
        let loss = rec.scratch("loss", [1]);
        let statistics = rec.scratch("statistics", [2]);
        let step = rec.step(&CROSS_ENTROPY, "forward").bind("x", x[0]).bind("targets", x[1]).bind("per_row", per_row);
        self.sizes(step, x[0], false).dispatch_items(x[0].rows());
        let step = rec
            .step(&CROSS_ENTROPY, "summarize")
            .bind("per_row", per_row)
            .bind("loss", loss)
            .bind("statistics", statistics);
        self.sizes(step, x[0], false).dispatch([1, 1, 1]);
        Forward { y: vec![loss, statistics], saved: vec![per_row] }
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dloss), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let step = rec
                .step(&CROSS_ENTROPY, "backward")
                .bind("x", pass.x[0])
                .bind("targets", pass.x[1])
                .bind("per_row", pass.saved[0])
                .bind("dloss", dloss)
                .bind("dx", slot.grad);
            self.sizes(step, pass.x[0], slot.accumulate).dispatch_items(pass.x[0].rows());
        }
    }
}
