//! attend(q, k, v, key bias) -> (out, log-sum-exp): the one kernel that every mechanism is made of (spec, section 0).

use super::draw_keys::DrawKeys;
use super::softmax::{Given, Shapes};
use crate::{Backward, Error, Forward, Op, Recorder, Slot, Tensor, Variant};

/// Inputs: q [batch, heads, N, D], k and v [batch, heads, M, D] and, if given, an additive key term [batch, heads, M].
/// Outputs: out [batch, heads, N, D] and log-sum-exp [batch, heads, N] of the logits scale q.k + bias; both may receive
/// gradients. A key whose bias is <= -1e29 is masked; a query that sees no key gets 0 and -1e30.
#[derive(Debug)]
pub struct Attend {
    /// Logit scale, d^(-1/2).
    pub scale: f32,
    /// Key m is visible to query n only when m <= n + M - N.
    pub causal: bool,
}

/// [`Attend`] with its normaliser as a third output, [batch heads N, 2]: every query's largest logit and the sum of
/// exp(logit - largest), which are the log-sum-exp without the rounding of a large number (5e-4 at 1e4). Who reads these
/// sends the gradient to the log-sum-exp.
#[derive(Debug)]
pub struct AttendApart(pub Attend);

impl Op for AttendApart {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let Forward { mut y, saved } = self.0.forward(rec, x);
        y.push(saved[0]);
        Forward { y, saved }
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        self.0.backward(rec, &Backward { y: &pass.y[..2], dy: &pass.dy[..2], ..*pass });
    }
}

/// One streaming kernel, or, where these are not too many, matmuls over slabs of queries.
const VARIANTS: [Variant; 2] = [Variant::STREAMED, Variant::SLABS];

/// Most queries and keys that variants are compared on.
const LONGEST_MEASURED: usize = 1024;

impl Attend {
    /// Attention in which every query sees every key.
    pub fn new(scale: f32) -> Self {
        Attend { scale, causal: false }
    }

    fn shapes(&self, x: &[Tensor]) -> Shapes {
        let (q, k) = (x[0].dims(), x[1].dims());
        Shapes { batch: q[0] * q[1], queries: q[2], keys: k[2], channels: q[3], scale: self.scale, causal: self.causal }
    }

    /// One choice for both directions, measured on both.
    fn variant(rec: &Recorder, shapes: &Shapes) -> Variant {
        // Longer sequences behave like this one; measuring them would take longer than using them.
        let (queries, keys) = (shapes.queries.min(LONGEST_MEASURED), shapes.keys.min(LONGEST_MEASURED));
        let whole = *shapes;
        let shapes = Shapes { queries, keys, ..whole };
        let Shapes { batch, channels, .. } = shapes;
        let about = usize::next_power_of_two;
        let candidates = if whole.fits_slabs() { &VARIANTS[..] } else { &VARIANTS[..1] };
        let key = format!("attend {} {} {} {channels}", about(batch), about(queries), about(keys));
        rec.choose(&key, candidates, &|rec, variant| {
            let inputs @ [q, k, v] = [queries, keys, keys].map(|n| rec.scratch("x", [1, batch, n, channels]));
            let (out, normaliser) = (rec.scratch("out", q.shape()), shapes.normaliser(rec));
            let slot =
                |like: Tensor, rec: &mut Recorder| Slot { grad: rec.scratch("dx", like.shape()), accumulate: false };
            let slots = [Some(slot(q, rec)), Some(slot(k, rec)), Some(slot(v, rec)), None];
            let (peak_and_sum, dout) = (normaliser.peak_and_sum, Some(rec.scratch("dout", q.shape())));
            let given = Given { inputs, bias: None, out, peak_and_sum, dout, dlse: None };
            if variant == Variant::STREAMED {
                shapes.stream_forward(rec, inputs, None, out, normaliser);
                shapes.stream_backward(rec, &given, slots);
            } else {
                shapes.forward(rec, inputs, None, out, normaliser);
                shapes.backward(rec, &given, slots);
            }
        })
    }

    /// Probabilities [batch, heads, N, M], for looking at; not differentiable.
    pub fn probabilities(&self, rec: &mut Recorder, q: Tensor, k: Tensor, bias: Option<Tensor>) -> Tensor {
        let (batch, heads) = (q.dims()[0], q.dims()[1]);
        let shape = [batch, heads, q.dims()[2], k.dims()[2]];
        self.shapes(&[q, k]).probabilities(rec, q, k, bias).reshape(shape)
    }

    /// Keys drawn by their softmax weights, S for every query: [batch, heads, N S], numbers as f32, those of query n from
    /// n S on. No gradient; memory O(N S + M). A query that sees no key gets key 0.
    pub fn draw(&self, rec: &mut Recorder, [q, k]: [Tensor; 2], bias: Option<Tensor>, draw: DrawKeys) -> Tensor {
        let index = rec.scratch("drawn keys", [q.dims()[0], q.dims()[1], q.dims()[2] * draw.samples]);
        self.shapes(&[q, k]).draw(rec, [q, k], bias, draw, index);
        index
    }

    fn check(x: &[Tensor]) -> Option<Error> {
        let (q, k, v) = (x[0].dims(), x[1].dims(), x[2].dims());
        let fits = q.len() == 4 && k.len() == 4 && q[..2] == k[..2] && q[3] == k[3] && k == v;
        let bias = x.get(3).is_none_or(|b| b.len() == k[..3].iter().product::<usize>());
        let shapes = || x.iter().map(|t| t.shape().to_string()).collect::<Vec<_>>().join(", ");
        (!fits || !bias).then(|| Error::Shape(format!("attention over {} does not fit together", shapes())))
    }
}

impl Op for Attend {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        if let Some(error) = Self::check(x) {
            rec.fail(error);
            return Forward { y: vec![x[0], x[0]], saved: vec![x[0]] };
        }
        let shapes = self.shapes(x);
        let out = rec.scratch("attention", x[0].shape());
        let normaliser = shapes.normaliser(rec);
        let bias = x.get(3).copied();
        match Self::variant(rec, &shapes) {
            Variant::STREAMED => shapes.stream_forward(rec, [x[0], x[1], x[2]], bias, out, normaliser),
            _ => shapes.forward(rec, [x[0], x[1], x[2]], bias, out, normaliser),
        }
        let lse = normaliser.lse.reshape(&x[0].dims()[..3]);
        Forward { y: vec![out, lse], saved: vec![normaliser.peak_and_sum] }
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let x = pass.x;
        let given = Given {
            inputs: [x[0], x[1], x[2]],
            bias: x.get(3).copied(),
            out: pass.y[0],
            peak_and_sum: pass.saved[0],
            dout: pass.dy[0],
            dlse: pass.dy[1],
        };
        let slots = [pass.dx[0], pass.dx[1], pass.dx[2], pass.dx.get(3).copied().flatten()];
        let shapes = self.shapes(x);
        match Self::variant(rec, &shapes) {
            Variant::STREAMED => shapes.stream_backward(rec, &given, slots),
            _ => shapes.backward(rec, &given, slots),
        }
    }
}
