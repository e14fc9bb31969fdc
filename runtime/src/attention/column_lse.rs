//! Log-sum-exp over the rows of each matrix.

use lara_shaders::COLUMN_LSE;

use crate::ops::{FEW_BLOCKS, SHARERS, blocks};
use crate::{Backward, Forward, Op, Recorder, StepBuilder, Tensor};

/// x [batch, heads, rows, cols] -> y [batch, heads, cols], y_c = log sum_n exp x_nc, and beside it [batch, heads, cols, 2] the
/// largest x and the sum of exp(x - largest): y without the rounding of a large number. Who reads these sends the gradient
/// to y.
#[derive(Debug)]
pub struct ColumnLse;

fn sizes<'r>(step: StepBuilder<'r>, x: Tensor, accumulate: bool) -> StepBuilder<'r> {
    let rows = x.dims()[2];
    let (block, blocks) = blocks(rows);
    step.uint("batch", x.dims()[0] * x.dims()[1])
        .uint("rows", rows)
        .uint("cols", x.last())
        .uint("block", block)
        .uint("blocks", blocks)
        .flag("accumulate", accumulate)
}

impl Op for ColumnLse {
    fn name(&self) -> &'static str {
        "column_lse"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let x = x[0];
        let (batch, heads, rows, cols) = (x.dims()[0], x.dims()[1], x.dims()[2], x.last());
        let (_, blocks) = blocks(rows);
        let parts = rec.scratch("partial lse", [batch * heads, blocks, 2, cols]);
        let y = rec.scratch("column lse", [batch, heads, cols]);
        let step = rec.step(&COLUMN_LSE, "partial").bind("x", x).bind("parts", parts);
        sizes(step, x, false).dispatch_grid(cols, [blocks, batch * heads]);
        let (entry, sharers) = if blocks > FEW_BLOCKS { ("combine_many", SHARERS) } else { ("combine", 1) };
        let peak_and_sum = rec.scratch("column peak and sum", [batch, heads, cols, 2]);
        let step = rec.step(&COLUMN_LSE, entry).bind("parts", parts).bind("y", y).bind("peak_and_sum", peak_and_sum);
        sizes(step, x, false).dispatch_items(sharers * y.len());
        Forward { y: vec![y, peak_and_sum], saved: vec![] }
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let step = rec
                .step(&COLUMN_LSE, "backward")
                .bind("x", pass.x[0])
                .bind("saved", pass.y[1])
                .bind("dy", dy)
                .bind("dx", slot.grad);
            sizes(step, pass.x[0], slot.accumulate).dispatch_items(pass.x[0].len());
        }
    }
}
