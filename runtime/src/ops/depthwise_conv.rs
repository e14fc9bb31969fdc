//! Depthwise convolution of tokens on a grid (`torch.nn.Conv2d` with as many groups as channels), stride 1, same size.

use lara_shaders::{DEPTHWISE_CONV_SCALAR, DEPTHWISE_CONV_VECTOR, Module};

use super::column_sum;
use crate::{Backward, Error, Forward, Op, Recorder, Slot, StepBuilder, Tensor};

/// Inputs: x [batch, height width, channels], weight [channels, 1, side, side] with an odd side, bias `[channels]`. Output:
/// y of x's shape; x counts as zero beyond the grid (padding side / 2).
#[derive(Clone, Copy, Debug)]
pub struct DepthwiseConv {
    /// Rows and columns of the tokens.
    pub grid: [usize; 2],
}

/// Pixels of a line that are summed before anything else; the shader's `PIECE`.
const PIECE: usize = 128;

/// Most blocks of pieces that are summed side by side while a block holds no more than [`PIECE`] of them.
const BLOCKS: usize = 256;

/// What the kernels count through.
struct Sizes {
    batch: usize,
    grid: [usize; 2],
    channels: usize,
    side: usize,
}

impl Sizes {
    /// Where channels are whole vec4s, the kernel that reads them so.
    fn module(&self) -> &'static Module {
        if self.channels.is_multiple_of(4) { &DEPTHWISE_CONV_VECTOR } else { &DEPTHWISE_CONV_SCALAR }
    }

    /// Numbers of a pixel, as the module counts them.
    fn depth(&self) -> usize {
        if self.channels.is_multiple_of(4) { self.channels / 4 } else { self.channels }
    }

    fn lines(&self) -> usize {
        self.batch * self.grid[0]
    }

    fn flops(&self) -> f64 {
        let sizes = [self.lines(), self.grid[1], self.channels, self.side, self.side];
        2.0 * sizes.map(|size| size as f64).iter().product::<f64>()
    }

    fn params<'r>(&self, step: StepBuilder<'r>, [depth, lines, block]: [usize; 3]) -> StepBuilder<'r> {
        step.uint("height", self.grid[0])
            .uint("width", self.grid[1])
            .uint("depth", depth)
            .uint("side", self.side)
            .uint("lines", lines)
            .uint("block", block)
    }

    /// weight [channels, 1, side, side] -> [side side, channels].
    fn arrange(&self, rec: &mut Recorder, weight: Tensor) -> Tensor {
        let arranged = rec.scratch("arranged", [self.side * self.side, self.channels]);
        let step = rec.step(&DEPTHWISE_CONV_SCALAR, "arrange").bind("weight", weight).bind("arrangement", arranged);
        let step = self.params(step, [self.channels, self.lines(), 1]);
        let step = step.flag("has_bias", false).flag("reverse", false).flag("accumulate", false);
        step.dispatch_items(arranged.len());
        arranged
    }

    /// A convolution with the places of the weight in their order, or in reverse.
    fn convolve(&self, rec: &mut Recorder, [x, arranged, y]: [Tensor; 3], bias: Option<Tensor>, add: Option<bool>) {
        let step = rec.step(self.module(), "convolve").bind("x", x).bind("arranged", arranged).bind("y", y);
        let step = self.params(step.bind_or_absent("bias", bias), [self.depth(), self.lines(), 1]);
        step.flag("has_bias", bias.is_some())
            .flag("reverse", add.is_some())
            .flag("accumulate", add == Some(true))
            .flops(self.flops())
            .dispatch_grid(self.depth() * self.grid[1].div_ceil(4), [self.lines(), 1]);
    }

    fn backward_weight(&self, rec: &mut Recorder, x: Tensor, dy: Tensor, slot: Slot) {
        let pieces = self.lines() * self.grid[1].div_ceil(PIECE);
        let block = (pieces / BLOCKS).clamp(1, PIECE);
        let blocks = pieces.div_ceil(block);
        let columns = self.channels * self.side * self.side;
        let parts = rec.scratch("dweight", [blocks, columns]);
        let step = rec.step(self.module(), "backward_weight").bind("x", x).bind("dy", dy).bind("parts", parts);
        let step = self.params(step, [self.depth(), pieces, block]);
        step.flag("has_bias", false)
            .flag("reverse", false)
            .flag("accumulate", false)
            .flops(self.flops())
            .dispatch_grid(self.depth() * self.side * self.side.div_ceil(4), [blocks, 1]);
        column_sum(rec, parts, [1, blocks, columns], slot.grad, 1.0, slot.accumulate);
    }
}

impl DepthwiseConv {
    fn sizes(&self, x: &[Tensor]) -> Result<Sizes, Error> {
        let [x, weight, bias] = x else {
            return Err(Error::Shape("depthwise_conv takes tokens, a weight and a bias".into()));
        };
        let [height, width] = self.grid;
        let &[batch, tokens, channels] = x.dims() else {
            return Err(Error::Shape(format!("depthwise_conv takes [batch, tokens, channels], not {}", x.shape())));
        };
        if height.checked_mul(width) != Some(tokens) {
            let what =
                format!("depthwise_conv on a grid of {height} x {width} does not take the tokens of {}", x.shape());
            return Err(Error::Shape(what));
        }
        let side = weight.last();
        if weight.dims() != [channels, 1, side, side] || side % 2 == 0 || bias.dims() != [channels] {
            return Err(Error::Shape(format!(
                "depthwise_conv of {channels} channels takes a weight [{channels}, 1, side, side] of an odd side and a \
                 bias [{channels}], not {} and {}",
                weight.shape(),
                bias.shape()
            )));
        }
        Ok(Sizes { batch, grid: self.grid, channels, side })
    }
}

impl Op for DepthwiseConv {
    fn name(&self) -> &'static str {
        "depthwise_conv"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let sizes = match self.sizes(x) {
            Ok(sizes) => sizes,
            Err(error) => {
                rec.fail(error);
                return Forward::one(x[0]);
            }
        };
        let y = rec.scratch("depthwise", x[0].shape());
        let arranged = sizes.arrange(rec, x[1]);
        sizes.convolve(rec, [x[0], arranged, y], Some(x[2]), None);
        Forward { y: vec![y], saved: vec![arranged] }
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let (Some(dy), Ok(sizes)) = (pass.dy[0], self.sizes(pass.x)) else { return };
        let [dx, dweight, dbias] = [0, 1, 2].map(|at| pass.dx[at]);
        if let Some(slot) = dx {
            sizes.convolve(rec, [dy, pass.saved[0], slot.grad], None, Some(slot.accumulate));
        }
        if let Some(slot) = dweight {
            sizes.backward_weight(rec, pass.x[0], dy, slot);
        }
        if let Some(slot) = dbias {
            let rows = sizes.lines() * sizes.grid[1];
            column_sum(rec, dy, [1, rows, sizes.channels], slot.grad, 1.0, slot.accumulate);
        }
    }
}
