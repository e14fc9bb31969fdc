//! Explicit attention maps weighted with their gradient.

use lara_shaders::WEIGH;

use crate::ops::quads;
use crate::{Error, Recorder, Tensor};

/// Records max(0, a b), element by element, of the shape of both: for explicit weights a [1, heads, N, M] and their
/// gradient b the gradient-weighted attention of every query and key. Shapes that differ are the recording's error.
pub fn weigh(rec: &mut Recorder, a: Tensor, b: Tensor) -> Tensor {
    let y = rec.scratch("weighed", a.shape());
    if a.shape() != b.shape() {
        let (a, b) = (a.shape(), b.shape());
        rec.fail(Error::Shape(format!("maps {a} cannot be weighed with {b}; their shapes must be the same")));
        return y;
    }
    let quads = quads(y.len());
    let step = rec.step(&WEIGH, "forward").bind("a", a).bind("b", b).bind("y", y);
    step.uint("quads", quads).dispatch_items(quads);
    y
}
