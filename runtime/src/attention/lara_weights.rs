//! Weights of LARA's proposals against each other.

use lara_shaders::LARA_WEIGHTS;

use crate::ops::{column_sum, fill, pass_on};
use crate::{Backward, Forward, Op, Recorder, Tensor};

/// Inputs: g [batch, heads, C, C], g_cj = s mu_j.w_c, and norm [batch, heads, C], norm_j = -(s / 2) |mu_j|^2, or the
/// sentinel of a mask for a landmark that is missing: its balance is -1, its log q 0.
/// Outputs: balance heuristic [batch, heads, C] and log q_c(w_c) [batch, heads, C] (spec 1.4, mis-opt).
#[derive(Debug)]
pub struct LaraWeights;

impl Op for LaraWeights {
    fn name(&self) -> &'static str {
        "lara_weights"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let balance = rec.scratch("balance", x[1].shape());
        let log_q = rec.scratch("log q", x[1].shape());
        rec.step(&LARA_WEIGHTS, "forward")
            .bind("g", x[0])
            .bind("norm", x[1])
            .bind("balance", balance)
            .bind("log_q", log_q)
            .uint("rows", x[1].len())
            .uint("landmarks", x[1].last())
            .dispatch_items(x[1].len());
        Forward { y: vec![balance, log_q], saved: vec![] }
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let (g, norm) = (pass.x[0], pass.x[1]);
        let mut given = |dy: Option<Tensor>| {
            dy.unwrap_or_else(|| {
                let zeros = rec.scratch("zeros", norm.shape());
                fill(rec, zeros, 0.0);
                zeros
            })
        };
        let dy = [given(pass.dy[0]), given(pass.dy[1])];
        let dg = rec.scratch("dM", g.shape());
        rec.step(&LARA_WEIGHTS, "backward")
            .bind("g", g)
            .bind("norm", norm)
            .bind("dbalance", dy[0])
            .bind("dlog_q", dy[1])
            .bind("dg", dg)
            .uint("rows", norm.len())
            .uint("landmarks", norm.last())
            .dispatch_items(norm.len());
        if let Some(slot) = pass.dx[0] {
            pass_on(rec, dg, slot);
        }
        if let Some(slot) = pass.dx[1] {
            let landmarks = norm.last();
            let sizes = [norm.len() / landmarks, landmarks, landmarks];
            column_sum(rec, dg, sizes, slot.grad, 1.0, slot.accumulate);
        }
    }
}
