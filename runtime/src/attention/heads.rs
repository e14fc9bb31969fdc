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
#[derive(Clone, Copy)]
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

    /// Whether heads are whole vec4s.
    fn is_even(&self) -> bool {
        self.sizes[4].is_multiple_of(4)
    }

    fn split(&self, rec: &mut Recorder, packed: Tensor, to: Tensor) {
        match self.is_even() {
            true => self.record(rec, "split4", &[("packed4", packed), ("to_heads4", to)]),
            false => self.record(rec, "split", &[("packed", packed), ("to_heads", to)]),
        }
    }

    fn join(&self, rec: &mut Recorder, heads: Tensor, to: Tensor) {
        match self.is_even() {
            true => self.record(rec, "join4", &[("heads4", heads), ("to_packed4", to)]),
            false => self.record(rec, "join", &[("heads", heads), ("to_packed", to)]),
        }
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
        let part = |at| rec.scratch(names.get(at).copied().unwrap_or("part"), [batch, heads, tokens, dim]);
        let y: Vec<Tensor> = (0..parts).map(part).collect();
        let all = Move { sizes, part: 0, zero: false, accumulate: false };
        match y[..] {
            [q, k, v] if all.is_even() => {
                let binds = [("packed4", x[0]), ("to_heads4", q), ("to_second", k), ("to_third", v)];
                all.record(rec, "split3", &binds);
            }
            _ => y.iter().enumerate().for_each(|(part, y)| Move { part, ..all }.split(rec, x[0], *y)),
        }
        Forward { y, saved: vec![] }
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let Some(slot) = pass.dx[0] else { return };
        let all = Move { sizes: self.sizes(pass.x[0]), part: 0, zero: false, accumulate: slot.accumulate };
        if let ([Some(dq), Some(dk), Some(dv)], true) = (pass.dy, all.is_even()) {
            let binds = [("heads4", *dq), ("second", *dk), ("third", *dv), ("to_packed4", slot.grad)];
            all.record(rec, "join3", &binds);
            return;
        }
        for (part, dy) in pass.dy.iter().enumerate() {
            // A part that nothing depends on still has its place in the packed gradient: zeros.
            let step = Move { part, zero: dy.is_none(), ..all };
            step.join(rec, dy.unwrap_or(pass.y[part]), slot.grad);
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
        step.join(rec, x[0], y);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let x = pass.x[0].dims();
            let step = Move { sizes: [x[0], x[2], 1, x[1], x[3]], part: 0, zero: false, accumulate: slot.accumulate };
            step.split(rec, dy, slot.grad);
        }
    }
}
