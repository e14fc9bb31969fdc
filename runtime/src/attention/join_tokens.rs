//! Concatenation along the tokens, and repetition.

use lara_shaders::JOIN_TOKENS;

use crate::{Backward, Forward, Op, Recorder, StepBuilder, Tensor};

/// Inputs: one or more tensors [batch, heads, tokens, width]; their tokens one after the other, the whole `repeat` times
/// (`repeat` = 1 with one input is a copy). Output: [batch, heads, repeat * sum of tokens, width].
#[derive(Debug)]
pub struct JoinTokens {
    /// How often the inputs follow each other.
    pub repeat: usize,
}

impl JoinTokens {
    /// Every part with the number of its input and the elements of a matrix before it.
    fn parts(&self, x: &[Tensor]) -> Vec<(usize, usize)> {
        let mut offset = 0;
        let order = (0..self.repeat).flat_map(|_| 0..x.len());
        let place = |i: usize| {
            let at = offset;
            offset += size(x[i]);
            (i, at)
        };
        order.map(place).collect()
    }
}

/// Elements of one matrix.
fn size(x: Tensor) -> usize {
    x.dims()[2] * x.dims()[3]
}

fn sizes<'r>(step: StepBuilder<'r>, part: Tensor, whole: usize, offset: usize) -> StepBuilder<'r> {
    step.uint("len", part.len()).uint("part", size(part)).uint("whole", whole).uint("offset", offset)
}

impl Op for JoinTokens {
    fn name(&self) -> &'static str {
        "join_tokens"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let dims = x[0].dims();
        let tokens: usize = x.iter().map(|x| x.dims()[2]).sum();
        let y = rec.scratch("joined", [dims[0], dims[1], self.repeat * tokens, dims[3]]);
        for (i, offset) in self.parts(x) {
            let step = rec.step(&JOIN_TOKENS, "forward").bind("x", x[i]).bind("y", y).flag("accumulate", false);
            sizes(step, x[i], size(y), offset).dispatch_items(x[i].len());
        }
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let Some(dy) = pass.dy[0] else { return };
        for (at, (i, offset)) in self.parts(pass.x).into_iter().enumerate() {
            if let Some(slot) = pass.dx[i] {
                // Repetitions of an input add to what its first one stored.
                let accumulate = slot.accumulate || at >= pass.x.len();
                let step = rec.step(&JOIN_TOKENS, "backward").bind("dy", dy).bind("dx", slot.grad);
                let step = step.flag("accumulate", accumulate);
                sizes(step, pass.x[i], size(dy), offset).dispatch_items(pass.x[i].len());
            }
        }
    }
}
