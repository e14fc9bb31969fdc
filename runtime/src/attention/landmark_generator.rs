//! Where the proposals of LARA are centred: pooled queries and keys, projected and mixed as asked (spec 1.5).

use super::{
    Attend, AttentionConfig, Context, Grid, JoinHeads, Landmarks, MASKED, Mask, PoolModule, Pooling, ProposalGen, Qkv,
    RealLandmarks, RealTokens, SplitHeads, ValueNorms,
};
use crate::ops::{LayerNorm, Linear, fill};
use crate::{Init, Tape, Tensor};

/// Epsilon of the landmark generators' LayerNorm (the released code's default).
const EPS: f32 = 1e-5;

/// Query and key landmarks, each [batch, heads, C, D]. A proposal's mean is the sum of its two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generated {
    pub(super) queries: Tensor,
    pub(super) keys: Tensor,
    /// Which of them a sample has, if some of its tokens are padding.
    pub(super) real: Option<RealLandmarks>,
}

/// Records the landmark generator of a configuration. Learned parts are `q_landmarks` and `k_landmarks` in the scope.
pub(super) fn generate(tape: &mut Tape<'_>, config: &AttentionConfig, qkv: Qkv, context: &Context) -> Generated {
    let Qkv { q, k, v } = qkv;
    let generator = Generator { config, context };
    let poolings @ [query_pooling, key_pooling] = generator.poolings(q, k);
    let real = generator.real(tape, q, k, poolings);
    let [of_queries, of_keys] = [0, 1].map(|side| real.map(|real| real.sides[side]));
    let queries = generator.landmarks(tape, "q_landmarks", q, query_pooling, of_queries);
    let keys = generator.landmarks(tape, "k_landmarks", k, key_pooling, of_keys);
    let missing = real.map(|real| real.missing);
    let keys = match config.proposal_gen {
        ProposalGen::PoolMixed | ProposalGen::NoParamPoolMixed => mix(tape, context.scale(q), keys, None, missing),
        ProposalGen::PoolVmixed => {
            let values = generator.pool(tape, v, key_pooling, of_keys);
            let norms = tape.apply(ValueNorms, &[values]);
            mix(tape, context.scale(q), keys, Some(norms), missing)
        }
        _ => keys,
    };
    Generated { queries, keys, real }
}

/// Landmarks that attend to each other, with an additive term; missing ones are not seen.
fn mix(tape: &mut Tape<'_>, scale: f32, x: Tensor, bias: Option<Tensor>, missing: Option<Tensor>) -> Tensor {
    let bias = match missing {
        Some(missing) => {
            let bias = bias.unwrap_or_else(|| {
                let zeros = tape.rec.scratch("no bias", &x.dims()[..3]);
                fill(&mut tape.rec, zeros, 0.0);
                zeros
            });
            Some(tape.apply(Mask { fill: MASKED }, &[bias, missing]))
        }
        None => bias,
    };
    let inputs: Vec<Tensor> = [x; 3].into_iter().chain(bias).collect();
    tape.apply_all(Attend::new(scale), &inputs)[0]
}

struct Generator<'a> {
    config: &'a AttentionConfig,
    context: &'a Context,
}

impl Generator<'_> {
    /// How queries and keys are pooled: to the same number of landmarks. Grids decide it; on sequences it is what was
    /// asked for or the length of the shorter one.
    fn poolings(&self, q: Tensor, k: Tensor) -> [Pooling; 2] {
        let wanted = self.config.num_landmarks.max(1);
        let lengths = [q, k].map(|x| x.dims()[2].saturating_sub(self.context.prefix));
        let same = if q.dims()[2] == k.dims()[2] { self.context.grid } else { Grid::Sequence };
        let grids = match self.config.proposal_gen {
            ProposalGen::Adaptive1d => [Grid::Sequence; 2],
            _ => [self.context.grid, self.context.key_grid.unwrap_or(same)],
        };
        let on_grid = |grid: Grid| match grid {
            Grid::Sequence => None,
            Grid::Plane(grid) => Some(Pooling::Grid { grid, side: wanted.isqrt() }),
            Grid::Volume(grid) => Some(Pooling::Volume { grid, side: cube_root(wanted) }),
        };
        let decided = grids.into_iter().find_map(on_grid).map(|pooling| pooling.landmarks());
        let landmarks = decided.unwrap_or(wanted.min(lengths[0]).min(lengths[1]).max(1));
        [0, 1].map(|i| on_grid(grids[i]).unwrap_or(Pooling::Segments { tokens: lengths[i], landmarks }))
    }

    /// What is real of the tokens, if one side has a mask that counts. A side without one then has a mask of its own: its
    /// sequence is cut into as many segments as the other's.
    fn real(&self, tape: &mut Tape<'_>, q: Tensor, k: Tensor, poolings: [Pooling; 2]) -> Option<RealLandmarks> {
        let masks =
            [self.context.hidden_queries(self.config.padding, q), self.context.hidden_keys(self.config.padding)];
        if masks == [None; 2] {
            return None;
        }
        let rec = &mut tape.rec;
        let ranks = |rec: &mut crate::Recorder, mask: Option<Tensor>, x: Tensor| {
            let sizes @ [batch, tokens] = [x.dims()[0], x.dims()[2]];
            let mask = mask.unwrap_or_else(|| {
                let zeros = rec.scratch("no padding", [batch, tokens]);
                fill(rec, zeros, 0.0);
                zeros
            });
            RealTokens::record(rec, mask, sizes)
        };
        let queries = ranks(rec, masks[0], q);
        let keys = if masks[0] == masks[1] { queries } else { ranks(rec, masks[1], k) };
        Some(RealLandmarks::record(rec, self.context.prefix, [queries, keys], poolings))
    }

    fn pool(&self, tape: &mut Tape<'_>, x: Tensor, pooling: Pooling, real: Option<[Tensor; 3]>) -> Tensor {
        let inputs: Vec<Tensor> = [x].into_iter().chain(real.into_iter().flatten()).collect();
        tape.apply(Landmarks { prefix: self.context.prefix, pooling }, &inputs)
    }

    fn landmarks(
        &self,
        tape: &mut Tape<'_>,
        name: &str,
        x: Tensor,
        pooling: Pooling,
        real: Option<[Tensor; 3]>,
    ) -> Tensor {
        if self.config.proposal_gen == ProposalGen::Adaptive1d {
            let projected = self.project(tape, name, x);
            return self.pool(tape, projected, pooling, real);
        }
        let pooled = self.pool(tape, x, pooling, real);
        let on_sequence = matches!(pooling, Pooling::Segments { .. });
        let plain = matches!(self.config.proposal_gen, ProposalGen::NoParamPool | ProposalGen::NoParamPoolMixed);
        if plain || on_sequence { pooled } else { self.project(tape, name, pooled) }
    }

    /// LN(Linear(x)) of [batch, heads, rows, D], for each head or across the heads.
    fn project(&self, tape: &mut Tape<'_>, name: &str, x: Tensor) -> Tensor {
        if self.config.pool_module_type == PoolModule::Light {
            return self.linear_and_norm(tape, name, x);
        }
        let heads = x.dims()[1];
        let merged = tape.apply(JoinHeads, &[x]);
        let projected = self.linear_and_norm(tape, name, merged);
        tape.apply(SplitHeads { heads, parts: 1 }, &[projected])
    }

    fn linear_and_norm(&self, tape: &mut Tape<'_>, name: &str, x: Tensor) -> Tensor {
        let dim = x.last();
        tape.scope(name, |tape| {
            let weight = tape.parameter("linear.weight", [dim, dim], Init::TruncNormal(0.02));
            let bias = tape.parameter("linear.bias", [dim], Init::Zeros);
            let projected = tape.apply(Linear, &[x, weight, bias]);
            let gain = tape.parameter("norm.weight", [dim], Init::Ones);
            let shift = tape.parameter("norm.bias", [dim], Init::Zeros);
            tape.apply(LayerNorm { eps: EPS }, &[projected, gain, shift])
        })
    }
}

/// floor(cbrt(n)).
fn cube_root(n: usize) -> usize {
    (1..).take_while(|r: &usize| r.saturating_pow(3) <= n).last().unwrap_or(1)
}
