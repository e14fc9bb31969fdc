//! Learning from a teacher's logits: from its answers (Touvron et al. 2021) or its probabilities (Hinton et al. 2015).

use lara_shaders::DISTILLATION;

use super::fill;
use crate::{Backward, Forward, Op, Recorder, StepBuilder, Tensor};

/// Inputs: the student's logits [rows, classes], the teacher's [rows, classes], the other loss `[1]` (against the labels) and
/// its statistics `[3]` ([`CrossEntropy`](super::CrossEntropy)'s, all of whose rows count).
///
/// Outputs: loss `[1]`, (1 - alpha) other + alpha distilled, and statistics `[3]`: mean loss, then what the other's have;
/// under gradient accumulation, where both must be pinned, over all micro-steps of the cycle so far.
///
/// The distilled loss is that of DeiT: cross-entropy against the teacher's most probable class (the first of several), or
/// tau^2 times the Kullback-Leibler divergence of softmax(student / tau) from softmax(teacher / tau), divided by
/// rows x classes. The teacher gets no gradient.
#[derive(Debug)]
pub struct Distillation {
    /// From the most probable class; else from the probabilities.
    pub hard: bool,
    /// Share of the distilled loss.
    pub alpha: f32,
    /// Temperature of the probabilities.
    pub tau: f32,
}

impl Distillation {
    fn sizes<'r>(&self, step: StepBuilder<'r>, x: Tensor, accumulate: bool) -> StepBuilder<'r> {
        let (rows, classes) = (x.rows() as f32, x.last() as f32);
        let tau = if self.hard { 1.0 } else { self.tau };
        let numbers = if self.hard { rows } else { rows * classes };
        step.uint("rows", x.rows())
            .uint("classes", x.last())
            .flag("hard", self.hard)
            .float("tau", tau)
            .float("alpha", self.alpha)
            .float("scale", tau * tau / numbers)
            .float("slope", self.alpha * tau / numbers)
            .flag("accumulate", accumulate)
    }
}

impl Op for Distillation {
    fn name(&self) -> &'static str {
        "distillation"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let per_row = rec.scratch("row terms", [x[0].rows(), 6]);
        let loss = rec.scratch("loss", [1]);
        let statistics = rec.scratch("statistics", [3]);
        let step = rec.step(&DISTILLATION, "forward").bind("x", x[0]).bind("teacher", x[1]).bind("per_row", per_row);
        self.sizes(step, x[0], false).dispatch_items(x[0].rows());
        let step = rec
            .step(&DISTILLATION, "summarize")
            .bind("per_row", per_row)
            .bind("other", x[2])
            .bind("others", x[3])
            .bind("loss", loss)
            .bind("statistics", statistics);
        self.sizes(step, x[0], false).dispatch([1, 1, 1]);
        Forward { y: vec![loss, statistics], saved: vec![per_row] }
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let Some(dloss) = pass.dy[0] else { return };
        if let Some(slot) = pass.dx[0] {
            let step = rec
                .step(&DISTILLATION, "backward")
                .bind("x", pass.x[0])
                .bind("teacher", pass.x[1])
                .bind("per_row", pass.saved[0])
                .bind("dloss", dloss)
                .bind("dx", slot.grad);
            self.sizes(step, pass.x[0], slot.accumulate).dispatch_items(pass.x[0].rows());
        }
        if let Some(slot) = pass.dx[2] {
            let step = rec.step(&DISTILLATION, "backward_other").bind("dloss", dloss).bind("dother", slot.grad);
            self.sizes(step, pass.x[0], slot.accumulate).dispatch([1, 1, 1]);
        }
        // The teacher is not taught, and statistics are only looked at.
        for slot in [pass.dx[1], pass.dx[3]].into_iter().flatten().filter(|slot| !slot.accumulate) {
            fill(rec, slot.grad, 0.0);
        }
    }
}
