//! Each query plus the keys that were drawn for it.

use lara_shaders::GATHER_KEYS;

use crate::{Backward, Error, Forward, Op, Recorder, StepBuilder, Tensor};

/// Inputs: q [batch, heads, N, D], k [batch, heads, M, D] and index [batch, heads, N S], numbers of keys as f32.
/// Output: mu [batch, heads, N S, D], row n S + s is q_n + k_index. The index gets no gradient; one out of range is
/// taken as the nearest key.
#[derive(Debug)]
pub struct GatherKeys {
    /// Keys a query S.
    pub samples: usize,
}

/// Invocations for `rows` rows, four channels an invocation.
fn items(rows: usize, dim: usize) -> usize {
    rows * dim.div_ceil(4)
}

impl GatherKeys {
    fn sizes<'r>(&self, step: StepBuilder<'r>, [q, k]: [Tensor; 2], accumulate: bool) -> StepBuilder<'r> {
        step.uint("batch", q.dims()[0] * q.dims()[1])
            .uint("queries", q.dims()[2])
            .uint("keys", k.dims()[2])
            .uint("samples", self.samples)
            .uint("dim", q.last())
            .flag("accumulate", accumulate)
    }

    /// What does not fit; the kernel trusts its sizes.
    fn check(&self, x: &[Tensor]) -> Option<Error> {
        let (q, k, index) = (x[0].dims(), x[1].dims(), x[2]);
        let alike = q.len() == 4 && k.len() == 4 && q[..2] == k[..2] && q[3] == k[3] && !x[1].is_empty();
        if !alike {
            return Some(Error::Shape(format!("keys {} cannot be added to queries {}", x[1].shape(), x[0].shape())));
        }
        let expected = [q[0], q[1], q[2] * self.samples];
        let (given, samples) = (index.shape(), self.samples);
        (index.dims() != expected).then(|| {
            Error::Shape(format!("an index of {samples} drawn keys a query has the shape {expected:?}, not {given}"))
        })
    }
}

impl Op for GatherKeys {
    fn name(&self) -> &'static str {
        "gather_keys"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        if let Some(error) = self.check(x) {
            rec.fail(error);
            return Forward::one(x[0]);
        }
        let [batch, heads, queries] = [0, 1, 2].map(|i| x[0].dims()[i]);
        let mu = rec.scratch("means", [batch, heads, queries * self.samples, x[0].last()]);
        let step = rec.step(&GATHER_KEYS, "forward").bind("q", x[0]).bind("k", x[1]).bind("drawn", x[2]).bind("mu", mu);
        self.sizes(step, [x[0], x[1]], false).dispatch_items(items(mu.rows(), mu.last()));
        Forward::one(mu)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let (Some(dmu), [q, k, index]) = (pass.dy[0], [pass.x[0], pass.x[1], pass.x[2]]) else { return };
        if let Some(slot) = pass.dx[0] {
            let step = rec.step(&GATHER_KEYS, "backward_q").bind("dmu", dmu).bind("dq", slot.grad);
            self.sizes(step, [q, k], slot.accumulate).dispatch_items(items(q.rows(), q.last()));
        }
        if let Some(slot) = pass.dx[1] {
            let step = rec.step(&GATHER_KEYS, "backward_k");
            let step = step.bind("drawn", index).bind("dmu", dmu).bind("dk", slot.grad);
            self.sizes(step, [q, k], slot.accumulate).dispatch_items(items(k.rows(), k.last()));
        }
    }
}
