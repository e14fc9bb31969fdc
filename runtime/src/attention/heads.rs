//! Packed projections to heads and back.

use lara_shaders::HEADS;

use crate::{Backward, Forward, Op, Recorder, Tensor};

/// x [batch, tokens, parts * heads * dim] -> `parts` tensors [batch, heads, tokens, dim]: queries, keys and values of
/// one Linear, in timm's layout [3, heads, head_dim].
#[derive(Debug)]
pub struct SplitHeads {
    /// Number of heads.
    pub heads: usize,
    /// 3 for packed queries, keys and values.
    pub parts: usize,
}

/// x [batch, heads, tokens, dim] -> [batch, tokens, heads * dim].
#[derive(Debug)]
pub struct JoinHeads;

/// What both directions of both operations record.
struct Move {
    sizes: [usize; 5],
    part: usize,
    zero: bool,
    accumulate: bool,
}

impl Move {
    fn record(&self, rec: &mut Recorder, entry: &'static str, binds: &[(&'static str, Tensor)]) {
        let [batch, tokens, parts, heads, dim] = self.sizes;
        let mut step = rec.step(&HEADS, entry);
        for (name, tensor) in binds {
            step = step.bind(name, *tensor);
        }
        step.uint("batch", batch)
            .uint("tokens", tokens)
            .uint("heads", heads)
            .uint("dim", dim)
            .uint("parts", parts)
            .uint("part", self.part)
            .flag("zero", self.zero)
            .flag("accumulate", self.accumulate)
            .dispatch_grid(tokens * dim.div_ceil(4), [heads, batch]);
    }
}

impl SplitHeads {
    fn sizes(&self, x: Tensor) -> [usize; 5] {
        [x.dims()[0], x.dims()[1], self.parts, self.heads, x.last() / (self.parts * self.heads)]
    }
}

impl Op for SplitHeads {
    fn name(&self) -> &'static str {
        "heads"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let sizes @ [batch, tokens, parts, heads, dim] = self.sizes(x[0]);
        let names = ["q", "k", "v"];
        let y: Vec<Tensor> = (0..parts)
            .map(|part| {
                let y = rec.scratch(names.get(part).copied().unwrap_or("part"), [batch, heads, tokens, dim]);
                let step = Move { sizes, part, zero: false, accumulate: false };
                step.record(rec, "split", &[("packed", x[0]), ("to_heads", y)]);
                y
            })
            .collect();
        Forward { y, saved: vec![] }
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let Some(slot) = pass.dx[0] else { return };
        let sizes = self.sizes(pass.x[0]);
        for (part, dy) in pass.dy.iter().enumerate() {
            // A part that nothing depends on still has its place in the packed gradient: zeros.
            let step = Move { sizes, part, zero: dy.is_none(), accumulate: slot.accumulate };
            let from = dy.unwrap_or(pass.y[part]);
            step.record(rec, "join", &[("heads", from), ("to_packed", slot.grad)]);
        }
    }
}

impl Op for JoinHeads {
    fn name(&self) -> &'static str {
        "heads"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let (batch, heads, tokens, dim) = (x[0].dims()[0], x[0].dims()[1], x[0].dims()[2], x[0].last());
        let y = rec.scratch("joined", [batch, tokens, heads * dim]);
        let step = Move { sizes: [batch, tokens, 1, heads, dim], part: 0, zero: false, accumulate: false };
        step.record(rec, "join", &[("heads", x[0]), ("to_packed", y)]);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let x = pass.x[0].dims();
            let step = Move { sizes: [x[0], x[2], 1, x[1], x[3]], part: 0, zero: false, accumulate: slot.accumulate };
            step.record(rec, "split", &[("packed", dy), ("to_heads", slot.grad)]);
        }
    }
}
