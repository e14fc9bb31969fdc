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

    /// Frames, rows and columns of the tokens.
    pub(super) fn grid(&self) -> [usize; 3] {
        match *self {
            Pooling::Grid { grid, .. } => [1, grid[0], grid[1]],
            Pooling::Volume { grid, .. } => grid,
            Pooling::Segments { tokens, .. } => [1, 1, tokens],
        }
    }

    /// Whether tokens are one after the other.
    pub(super) fn is_segments(&self) -> bool {
        matches!(self, Pooling::Segments { .. })
    }

    fn sizes<'r>(&self, step: StepBuilder<'r>) -> StepBuilder<'r> {
        let (grid, landmarks) = match *self {
            Pooling::Grid { side, .. } => (self.grid(), [1, side, side]),
            Pooling::Volume { side, .. } => (self.grid(), [side; 3]),
            Pooling::Segments { landmarks, .. } => (self.grid(), [1, 1, landmarks]),
        };
        step.uint("frames", grid[0])
            .uint("grid_height", grid[1])
            .uint("grid_width", grid[2])
            .uint("depth", landmarks[0])
            .uint("rows", landmarks[1])
            .uint("columns", landmarks[2])
            .flag("segments", self.is_segments())
    }
}

/// Workgroups for `rows` rows of `dim` channels, four channels an invocation.
fn groups(rows: usize, dim: usize) -> usize {
    (rows * dim.div_ceil(4)).div_ceil(64)
}

/// Inputs: x [batch, heads, prefix + tokens, dim] and, if landmarks are to be those that a sample has without its padding,
/// ranks, extent and kept segments ([`super::RealLandmarks`]). Output: landmarks [batch, heads, C, dim]; a missing one is
/// zero.
#[derive(Debug)]
pub struct Landmarks {
    /// Tokens in front that no landmark covers: 1 for a class token.
    pub prefix: usize,
    /// Which tokens belong to which landmark.
    pub pooling: Pooling,
}

impl Landmarks {
    /// What does not fit; the kernel trusts its sizes.
    fn check(&self, x: Tensor, ranks: Option<Tensor>) -> Option<Error> {
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
        // Ranks are made for a mask, whose own length was checked.
        if let Some(ranks) = ranks.filter(|r| r.len() != x.dims()[0] * (expected + 1)) {
            let ranks = ranks.shape();
            return Some(Error::Shape(format!("the ranks {ranks} of real tokens are not those of {shape}")));
        }
        let segments = self.pooling.is_segments();
        let impossible = landmarks == 0 || tokens == 0 || (segments && landmarks > tokens);
        impossible.then(|| Error::Shape(format!("{tokens} tokens cannot be pooled into {landmarks} landmarks")))
    }
}

impl Landmarks {
    fn sizes<'r>(&self, step: StepBuilder<'r>, x: &[Tensor], accumulate: bool) -> StepBuilder<'r> {
        let dims = x[0].dims();
        let step = step.uint("batch", dims[0] * dims[1]).uint("heads", dims[1]).uint("prefix", self.prefix);
        let step = self.pooling.sizes(step).uint("dim", dims[3]).flag("accumulate", accumulate);
        let step = step.uint("copies", 1).constant("HAS_PADDING", if x.len() > 1 { 1.0 } else { 0.0 });
        let of = |i: usize| x.get(i).copied();
        step.bind_or_absent("ranks", of(1)).bind_or_absent("extent", of(2)).bind_or_absent("kept", of(3))
    }

    /// Records which landmarks are missing on one side, [batch, copies C] with 1 for missing; with `more` those that were
    /// missing already stay so.
    pub(super) fn missing(&self, rec: &mut Recorder, [ranks, extent, kept]: [Tensor; 3], lost: Tensor, more: bool) {
        let (batch, landmarks) = (lost.dims()[0], self.pooling.landmarks());
        let step = rec.step(&LANDMARKS, "missing").bind("ranks", ranks).bind("extent", extent).bind("kept", kept);
        let step = step.bind("lost", lost).constant("HAS_PADDING", 1.0).uint("batch", batch).uint("heads", 1);
        let step = self.pooling.sizes(step.uint("prefix", self.prefix)).uint("dim", 1).flag("accumulate", more);
        step.uint("copies", lost.last() / landmarks).dispatch_grid(landmarks, [batch, 1]);
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
