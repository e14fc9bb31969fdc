//! The windows of a convolution as rows, so that the convolution is a matmul (`torch.nn.Unfold`, in up to three dimensions).

use lara_shaders::UNFOLD;

use crate::{Backward, Error, Forward, Op, Recorder, Tensor};

/// Frames, rows and columns.
type Sides = [usize; 3];

/// The windows of a convolution: frames, rows and columns of each. What lies beyond the grid counts as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Sides of a window, cells.
    pub kernel: Sides,
    /// Cells from a window to the next.
    pub stride: Sides,
    /// Cells of zeros in front of the grid and behind it.
    pub padding: Sides,
}

impl Windows {
    /// Square windows in a plane.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Windows { kernel: [1, kernel, kernel], stride: [1, stride, stride], padding: [0, padding, padding] }
    }

    /// Windows along each side of a grid: floor((side + 2 padding - kernel) / stride) + 1, and 0 where none fits.
    pub fn count(&self, grid: Sides) -> Sides {
        [0, 1, 2].map(|at| {
            let padded = grid[at].saturating_add(self.padding[at].saturating_mul(2));
            let slack = padded.checked_sub(self.kernel[at]).and_then(|slack| slack.checked_div(self.stride[at]));
            slack.filter(|_| self.kernel[at] > 0).map_or(0, |steps| steps + 1)
        })
    }
}

/// Where the channels of a grid's cells lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Images [batch, channels, height, width] or clips [batch, channels, frames, height, width].
    First,
    /// Tokens [batch, frames height width, channels] on this grid of frames, rows and columns.
    Last(Sides),
}

/// x, of the shape that `channels` says -> y [batch, windows, channels kernel], windows in the order of frames, rows and
/// columns. Inside a row the channels are slowest, then frames, rows and columns of the window, so that with PyTorch's
/// weight [out, channels, (frames,) rows, columns], viewed as [out, channels kernel], a [`super::Linear`] of y is the
/// convolution.
#[derive(Clone, Copy, Debug)]
pub struct Unfold {
    /// The windows.
    pub windows: Windows,
    /// What x looks like.
    pub channels: Channels,
}

/// What the kernel counts through.
struct Sizes {
    batch: usize,
    channels: usize,
    grid: Sides,
    windows: Sides,
}

/// A product that saturates: what is too large is refused with the tensor that would hold it.
fn volume(sides: &[usize]) -> usize {
    sides.iter().fold(1, |product: usize, &side| product.saturating_mul(side))
}

impl Unfold {
    fn sizes(&self, x: Tensor) -> Result<Sizes, Error> {
        let (batch, channels, grid) = match (self.channels, x.dims()) {
            (Channels::First, &[batch, channels, height, width]) => (batch, channels, [1, height, width]),
            (Channels::First, &[batch, channels, frames, height, width]) => (batch, channels, [frames, height, width]),
            (Channels::Last(grid), &[batch, tokens, channels]) if tokens == volume(&grid) => (batch, channels, grid),
            (Channels::First, _) => {
                let shape = x.shape();
                let what = format!("unfold takes [batch, channels, (frames,) height, width], not {shape}");
                return Err(Error::Shape(what));
            }
            (Channels::Last([frames, height, width]), _) => {
                let (tokens, shape) = (volume(&[frames, height, width]), x.shape());
                let what = format!(
                    "unfold takes [batch, {tokens}, channels], tokens on {frames} x {height} x {width}, not {shape}"
                );
                return Err(Error::Shape(what));
            }
        };
        let windows = self.windows.count(grid);
        let Windows { kernel, stride, padding } = self.windows;
        if windows.contains(&0) {
            return Err(Error::Shape(format!(
                "no window of {kernel:?} with stride {stride:?} and padding {padding:?} fits a grid of {grid:?}"
            )));
        }
        // Places are counted with the padding on both sides.
        let longest = grid.iter().zip(padding).map(|(side, padding)| padding.saturating_mul(2).saturating_add(*side));
        if let Some(longest) = longest.max().filter(|longest| u32::try_from(*longest).is_err()) {
            let what = format!("a side of {longest} cells with its padding {padding:?} is longer than {}", u32::MAX);
            return Err(Error::Shape(what));
        }
        Ok(Sizes { batch, channels, grid, windows })
    }

    fn record(
        &self,
        rec: &mut Recorder,
        entry: &'static str,
        sizes: &Sizes,
        binds: [(&'static str, Tensor); 2],
        (items, accumulate): (usize, bool),
    ) {
        let [from, to] = binds;
        let cells = volume(&sizes.grid);
        let (cell, channel) = match self.channels {
            Channels::First => (1, cells),
            Channels::Last(_) => (sizes.channels, 1),
        };
        let Windows { kernel, stride, padding } = self.windows;
        let mut step = rec.step(&UNFOLD, entry).bind(from.0, from.1).bind(to.0, to.1);
        let sides = [
            (["frames", "height", "width"], sizes.grid),
            (["out_frames", "out_height", "out_width"], sizes.windows),
            (["kernel_frames", "kernel_height", "kernel_width"], kernel),
            (["stride_frames", "stride_height", "stride_width"], stride),
            (["padding_frames", "padding_height", "padding_width"], padding),
        ];
        for (name, side) in sides.into_iter().flat_map(|(names, sides)| names.into_iter().zip(sides)) {
            step = step.uint(name, side);
        }
        step.uint("items", items)
            .uint("channels", sizes.channels)
            .uint("cell_stride", cell)
            .uint("channel_stride", channel)
            .flag("accumulate", accumulate)
            .dispatch_items(items);
    }
}

impl Op for Unfold {
    fn name(&self) -> &'static str {
        "unfold"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let sizes = match self.sizes(x[0]) {
            Ok(sizes) => sizes,
            Err(error) => {
                rec.fail(error);
                return Forward::one(x[0]);
            }
        };
        let (windows, row) = (volume(&sizes.windows), sizes.channels.saturating_mul(volume(&self.windows.kernel)));
        let y = rec.scratch("windows", [sizes.batch, windows, row]);
        let items = volume(&[sizes.batch, windows, sizes.channels]);
        self.record(rec, "forward", &sizes, [("x", x[0]), ("y", y)], (items, false));
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot), Ok(sizes)) = (pass.dy[0], pass.dx[0], self.sizes(pass.x[0])) {
            let binds = [("dy", dy), ("dx", slot.grad)];
            self.record(rec, "backward", &sizes, binds, (slot.grad.len(), slot.accumulate));
        }
    }
}
