//! Cross-entropy with index targets, mixtures of two classes (Zhang et al. 2018) and label smoothing (Szegedy et al. 2016).

use lara_shaders::CROSS_ENTROPY;

use crate::{Backward, Forward, Op, Recorder, StepBuilder, Tensor};

/// Inputs: logits [rows, classes], targets [rows, 3]: a class, another class, and the other's share of the target (0 where
/// there is no other). Classes are whole numbers below `classes`; a row whose first class is negative does not count
/// (PyTorch's `ignore_index`).
///
/// Outputs: loss `[1]`, the mean over the rows that count (0 where none does), and statistics `[3]`: mean loss, accuracy (the
/// class with the larger share is the likeliest) and number of rows that count; under gradient accumulation, where they must
/// be pinned, over all micro-steps of the cycle so far.
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
        let per_row = rec.scratch("row losses", [x[0].rows(), 4]);
        let loss = rec.scratch("loss", [1]);
        let statistics = rec.scratch("statistics", [3]);
        let counted = rec.scratch("rows that count", [1]);
        let step = rec.step(&CROSS_ENTROPY, "forward").bind("x", x[0]).bind("targets", x[1]).bind("per_row", per_row);
        self.sizes(step, x[0], false).dispatch_items(x[0].rows());
        let step = rec
            .step(&CROSS_ENTROPY, "summarize")
            .bind("targets", x[1])
            .bind("per_row", per_row)
            .bind("loss", loss)
            .bind("statistics", statistics)
            .bind("counted", counted);
        self.sizes(step, x[0], false).dispatch([1, 1, 1]);
        Forward { y: vec![loss, statistics], saved: vec![per_row, counted] }
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dloss), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let step = rec
                .step(&CROSS_ENTROPY, "backward")
                .bind("x", pass.x[0])
                .bind("targets", pass.x[1])
                .bind("per_row", pass.saved[0])
                .bind("counted", pass.saved[1])
                .bind("dloss", dloss)
                .bind("dx", slot.grad);
            self.sizes(step, pass.x[0], slot.accumulate).dispatch_items(pass.x[0].rows());
        }
    }
}
