//! Sums down columns: bias gradients and terms that a batch shares.

use lara_shaders::COLUMN_SUM;

use crate::{Recorder, Tensor};

/// Blocks of rows that are summed side by side: as a rule up to 256 of at least 32 rows, else as many of 512 rows, whose sums are
/// exact still, and at most 2,048.
const USUAL_BLOCKS: usize = 256;
const ROWS: [usize; 2] = [32, 512];
const MOST_BLOCKS: usize = 2048;

/// Most blocks that one invocation puts together, and how many do it where there are more.
pub(crate) const FEW_BLOCKS: usize = 32;
pub(crate) const SHARERS: usize = 8;

/// Rows of a block and number of blocks when `rows` are summed in parts.
pub(crate) fn blocks(rows: usize) -> (usize, usize) {
    let [least, most] = ROWS;
    let block = rows.div_ceil(USUAL_BLOCKS).clamp(least, most).max(rows.div_ceil(MOST_BLOCKS));
    (block, rows.div_ceil(block))
}

/// y [batch, cols] = scale * sum over rows of x [batch, rows, cols], stored or added.
pub fn column_sum(rec: &mut Recorder, x: Tensor, sizes: [usize; 3], y: Tensor, scale: f32, accumulate: bool) {
    column_sum_at(rec, x, sizes, (y, 0), scale, accumulate);
}

/// As [`column_sum`], into y from an offset on.
pub(crate) fn column_sum_at(
    rec: &mut Recorder,
    x: Tensor,
    [batch, rows, cols]: [usize; 3],
    (y, offset): (Tensor, usize),
    scale: f32,
    accumulate: bool,
) {
    let (block, blocks) = blocks(rows);
    let parts = rec.scratch("column sums", [batch, blocks, cols]);
    rec.step(&COLUMN_SUM, "partial")
        .bind("x", x)
        .bind("parts", parts)
        .uint("batch", batch)
        .uint("rows", rows)
        .uint("cols", cols)
        .uint("block", block)
        .uint("blocks", blocks)
        .float("scale", scale)
        .uint("offset", offset)
        .flag("accumulate", accumulate)
        .dispatch_grid(cols, [blocks, batch]);
    let (entry, sharers) = if blocks > FEW_BLOCKS { ("combine_many", SHARERS) } else { ("combine", 1) };
    rec.step(&COLUMN_SUM, entry)
        .bind("parts", parts)
        .bind("y", y)
        .uint("batch", batch)
        .uint("rows", rows)
        .uint("cols", cols)
        .uint("block", block)
        .uint("blocks", blocks)
        .float("scale", scale)
        .uint("offset", offset)
        .flag("accumulate", accumulate)
        .dispatch_items(sharers * batch * cols);
}
