//! A tensor of one number.

use lara_shaders::FILL;

use super::quads;
use crate::{Recorder, Tensor};

/// Records y = value, for a y of any shape.
pub fn fill(rec: &mut Recorder, y: Tensor, value: f32) {
    let quads = quads(y.len());
    rec.step(&FILL, "forward").bind("y", y).uint("quads", quads).float("value", value).dispatch_items(quads);
}
