//! Position table and the tokens in front.

use lara_shaders::POSITION_EMBEDDING;

use crate::{Backward, Forward, Op, Recorder, StepBuilder, Tensor};

/// Inputs: x [batch, n, dim], position [tokens, dim] and, for tokens > n, the tokens - n that every sample has and that go
/// first [tokens - n, dim]: a class token, a distillation token, registers. Output: y [batch, tokens, dim].
#[derive(Debug)]
pub struct PositionEmbedding;

struct Sizes {
    batch: usize,
    tokens: usize,
    dim: usize,
    prefix: usize,
}

impl Sizes {
    fn of(x: &[Tensor]) -> Self {
        let (batch, n, dim) = (x[0].dims()[0], x[0].dims()[1], x[0].last());
        let prefix = x.get(2).map_or(0, |shared| shared.len() / dim);
        Sizes { batch, tokens: n + prefix, dim, prefix }
    }

    fn dispatch(&self, step: StepBuilder<'_>, accumulate: bool, items: usize) {
        step.uint("batch", self.batch)
            .uint("tokens", self.tokens)
            .uint("dim", self.dim)
            .uint("prefix", self.prefix)
            .flag("accumulate", accumulate)
            .dispatch_items(items);
    }
}

impl Op for PositionEmbedding {
    fn name(&self) -> &'static str {
        "position_embedding"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let sizes = Sizes::of(x);
        let y = rec.scratch("embedded", [sizes.batch, sizes.tokens, sizes.dim]);
        let step = rec
            .step(&POSITION_EMBEDDING, "forward")
            .bind("x", x[0])
            .bind("position", x[1])
            .bind_or_absent("shared_tokens", x.get(2).copied())
            .bind("y", y);
        sizes.dispatch(step, false, y.len());
        Forward::one(y)
    }

    fn passes_on(&self, x: &[Tensor], input: usize) -> bool {
        input == 0 && x.len() == 2
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let Some(dy) = pass.dy[0] else { return };
        let sizes = Sizes::of(pass.x);
        let entries = [("backward", "dx"), ("backward_position", "dposition"), ("backward_shared", "dshared")];
        for ((entry, name), slot) in entries.into_iter().zip(pass.dx) {
            if let Some(slot) = slot {
                let step = rec.step(&POSITION_EMBEDDING, entry).bind("dy", dy).bind(name, slot.grad);
                sizes.dispatch(step, slot.accumulate, slot.grad.len());
            }
        }
    }
}
