//! Kernels that measure an adapter.

use lara_shaders::PEAK;

use super::quads;
use crate::{Recorder, Tensor};

/// Multiply-adds that [`multiply_add`] does for every four elements and round.
pub const MULTIPLY_ADDS: usize = 16 * 8 * 4;

/// Records `rounds` rounds of multiply-adds in registers: x and y `[len]`.
pub fn multiply_add(rec: &mut Recorder, x: Tensor, y: Tensor, rounds: usize) {
    record(rec, "multiply_add", x, y, rounds);
}

/// Records y = x: reads and writes every byte once.
pub fn copy(rec: &mut Recorder, x: Tensor, y: Tensor) {
    record(rec, "copy", x, y, 0);
}

fn record(rec: &mut Recorder, entry: &'static str, x: Tensor, y: Tensor, rounds: usize) {
    rec.step(&PEAK, entry)
        .bind("x", x)
        .bind("y", y)
        .uint("quads", quads(y.len()))
        .uint("rounds", rounds)
        .dispatch_items(quads(y.len()));
}
