//! Images to rows of patch pixels, so that the patch embedding is a matmul.

use lara_shaders::PATCHIFY;

use crate::{Backward, Error, Forward, Op, Recorder, Tensor};

/// x [batch, channels, height, width] -> y [batch, patches, channels * patch^2], patches row-major.
#[derive(Debug)]
pub struct Patchify {
    /// Side of a patch in pixels; must divide height and width.
    pub patch: usize,
}

impl Patchify {
    fn record(
        &self,
        rec: &mut Recorder,
        entry: &'static str,
        image: &[usize],
        binds: [(&'static str, Tensor); 2],
        add: bool,
    ) {
        let mut step = rec.step(&PATCHIFY, entry);
        for (name, tensor) in binds {
            step = step.bind(name, tensor);
        }
        let len = binds[0].1.len();
        step.uint("len", len)
            .uint("channels", image[1])
            .uint("height", image[2])
            .uint("width", image[3])
            .uint("side", self.patch)
            .flag("accumulate", add)
            .dispatch_items(len);
    }
}

impl Op for Patchify {
    fn name(&self) -> &'static str {
        "patchify"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let [batch, channels, height, width] = x[0].dims() else {
            rec.fail(Error::Shape(format!("patchify takes [batch, channels, height, width], not {}", x[0].shape())));
            return Forward::one(x[0]);
        };
        let p = self.patch;
        if p == 0 || height % p != 0 || width % p != 0 {
            rec.fail(Error::Shape(format!("a patch of {p} does not divide an image of {height}x{width}")));
            return Forward::one(x[0]);
        }
        let y = rec.scratch("patches", [*batch, (height / p) * (width / p), channels * p * p]);
        self.record(rec, "forward", x[0].dims(), [("x", x[0]), ("y", y)], false);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            self.record(rec, "backward", pass.x[0].dims(), [("dy", dy), ("dx", slot.grad)], slot.accumulate);
        }
    }
}
