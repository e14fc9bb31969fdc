//! One token added to all tokens of its head.

use lara_shaders::ADD_TOKEN;

use crate::ops::{column_sum, pass_on};
use crate::{Backward, Error, Forward, Op, Recorder, Tensor};

/// Inputs: x [batch, heads, N, D] and a token t [batch, heads, 1, D]. Output: x + t, of x's shape.
#[derive(Debug)]
pub struct AddToken;

impl Op for AddToken {
    fn name(&self) -> &'static str {
        "add_token"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let (to, token) = (x[0].dims(), x[1].dims());
        if to.len() != 4 || token != [to[0], to[1], 1, to[3]] {
            let (to, token) = (x[0].shape(), x[1].shape());
            rec.fail(Error::Shape(format!("a token {token} cannot be added to the tokens of {to}")));
            return Forward::one(x[0]);
        }
        let y = rec.scratch("with token", x[0].shape());
        rec.step(&ADD_TOKEN, "forward")
            .bind("x", x[0])
            .bind("token", x[1])
            .bind("y", y)
            .uint("len", y.len())
            .uint("tokens", to[2])
            .uint("dim", to[3])
            .dispatch_items(y.len());
        Forward::one(y)
    }

    fn passes_on(&self, _: &[Tensor], input: usize) -> bool {
        input == 0
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let Some(dy) = pass.dy[0] else { return };
        if let Some(slot) = pass.dx[0] {
            pass_on(rec, dy, slot);
        }
        if let Some(slot) = pass.dx[1] {
            let [batch, heads, tokens, dim] = [0, 1, 2, 3].map(|i| dy.dims()[i]);
            column_sum(rec, dy, [batch * heads, tokens, dim], slot.grad, 1.0, slot.accumulate);
        }
    }
}
