//! Landmarks by average pooling, on grids and on sequences.

use lara_shaders::LANDMARKS;

use crate::{Backward, Error, Forward, Op, Recorder, StepBuilder, Tensor};

/// How tokens are pooled into landmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Tokens on a grid, adaptive average pooling to `side` x `side` (`torch.nn.AdaptiveAvgPool2d`).
    Grid {
        /// Rows and columns of the grid.
        grid: [usize; 2],
        /// Rows and columns of landmarks: floor(sqrt(num_landmarks)).
        side: usize,
    },
    /// Tokens in a video, adaptive average pooling to `side` x `side` x `side` (`torch.nn.AdaptiveAvgPool3d`).
    Volume {
        /// Frames, rows and columns of the grid.
        grid: [usize; 3],
        /// Frames, rows and columns of landmarks: floor(cbrt(num_landmarks)).
        side: usize,
    },
    /// A sequence cut into `landmarks` contiguous segments, the later ones a token longer where they do not divide.
    Segments {
        /// Number of tokens.
        tokens: usize,
        /// Number of segments, at most `tokens`.
        landmarks: usize,
    },
}

impl Pooling {
    /// Number of landmarks C.
    pub fn landmarks(&self) -> usize {
        match *self {
            Pooling::Grid { side, .. } => side * side,
            Pooling::Volume { side, .. } => side.pow(3),
            Pooling::Segments { landmarks, .. } => landmarks,
        }
    }

    /// Number of tokens that are pooled.
    pub fn tokens(&self) -> usize {
        match *self {
            Pooling::Grid { grid, .. } => grid[0] * grid[1],
            Pooling::Volume { grid, .. } => grid.iter().product(),
            Pooling::Segments { tokens, .. } => tokens,
        }
    }

    fn sizes<'r>(&self, step: StepBuilder<'r>) -> StepBuilder<'r> {
        let (grid, landmarks, segments) = match *self {
            Pooling::Grid { grid, side } => ([1, grid[0], grid[1]], [1, side, side], false),
            Pooling::Volume { grid, side } => (grid, [side; 3], false),
            Pooling::Segments { tokens, landmarks } => ([1, 1, tokens], [1, 1, landmarks], true),
        };
        step.uint("frames", grid[0])
            .uint("grid_height", grid[1])
            .uint("grid_width", grid[2])
            .uint("depth", landmarks[0])
            .uint("rows", landmarks[1])
            .uint("columns", landmarks[2])
            .flag("segments", segments)
    }
}

/// Workgroups for `rows` rows of `dim` channels, four channels an invocation.
fn groups(rows: usize, dim: usize) -> usize {
    (rows * dim.div_ceil(4)).div_ceil(64)
}

/// Inputs: x [batch, heads, prefix + tokens, dim] and, if padded tokens are to be left out of the means, a mask
/// [batch, prefix + tokens] (1 = padding). Output: landmarks [batch, heads, C, dim]; one without real tokens is zero.
#[derive(Debug)]
pub struct Landmarks {
    /// Tokens in front that no landmark covers: 1 for a class token.
    pub prefix: usize,
    /// Which tokens belong to which landmark.
    pub pooling: Pooling,
}

impl Landmarks {
    /// What does not fit; the kernel trusts its sizes.
    fn check(&self, x: Tensor, mask: Option<Tensor>) -> Option<Error> {
        let (tokens, landmarks) = (self.pooling.tokens(), self.pooling.landmarks());
        let expected = self.prefix + tokens;
        let shape = x.shape();
        if x.dims().len() != 4 || x.dims()[2] != expected {
            let what = format!(
                "landmarks take [batch, heads, {expected}, dim] ({} + {tokens} tokens), not {shape}",
                self.prefix
            );
            return Some(Error::Shape(what));
        }
        if let Some(mask) = mask.filter(|m| m.len() != x.dims()[0] * expected) {
            let mask = mask.shape();
            return Some(Error::Shape(format!(
                "a key_padding_mask {mask} does not fit {shape}; it is [batch, tokens]"
            )));
        }
        let segments = matches!(self.pooling, Pooling::Segments { .. });
        let impossible = landmarks == 0 || tokens == 0 || (segments && landmarks > tokens);
        impossible.then(|| Error::Shape(format!("{tokens} tokens cannot be pooled into {landmarks} landmarks")))
    }
}

impl Landmarks {
    fn sizes<'r>(&self, step: StepBuilder<'r>, x: &[Tensor], accumulate: bool) -> StepBuilder<'r> {
        let dims = x[0].dims();
        let step = step.uint("batch", dims[0] * dims[1]).uint("heads", dims[1]).uint("prefix", self.prefix);
        let step = self.pooling.sizes(step).uint("dim", dims[3]).flag("accumulate", accumulate);
        let mask = x.get(1).copied();
        let step = step.constant("HAS_PADDING", if mask.is_some() { 1.0 } else { 0.0 });
        step.bind_or_absent("padding", mask)
    }
}

impl Op for Landmarks {
    fn name(&self) -> &'static str {
        "landmarks"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        if let Some(error) = self.check(x[0], x.get(1).copied()) {
            rec.fail(error);
            return Forward::one(x[0]);
        }
        let (batch, heads, dim) = (x[0].dims()[0], x[0].dims()[1], x[0].last());
        let y = rec.scratch("landmarks", [batch, heads, self.pooling.landmarks(), dim]);
        let step = rec.step(&LANDMARKS, "forward").bind("x", x[0]).bind("y", y);
        let step = self.sizes(step, x, false);
        step.dispatch([groups(self.pooling.landmarks(), dim), batch * heads, 1]);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let x = pass.x[0];
            let step = rec.step(&LANDMARKS, "backward").bind("dy", dy).bind("dx", slot.grad);
            let step = self.sizes(step, pass.x, slot.accumulate);
            step.dispatch([groups(x.dims()[2], x.last()), x.dims()[0] * x.dims()[1], 1]);
        }
    }
}
