//! Layer normalisation over the last dimension (Ba et al. 2016).

use lara_shaders::LAYERNORM;

use super::column_sum;
use crate::{Backward, Forward, Op, Recorder, Slot, Tensor, Variant};

/// Inputs: x [.., cols], gain `[cols]`, bias `[cols]`. Output: y of x's shape.
#[derive(Debug)]
pub struct LayerNorm {
    /// Added to the variance: 1e-6 in ViTs, 1e-5 in landmark generators.
    pub eps: f32,
}

/// One workgroup a row where workgroups are cheap to synchronise, one invocation a row where they are not.
const VARIANTS: [Variant; 2] = [Variant::FORWARD, Variant::FORWARD_ROWS];

/// Rows whose parameter gradients one workgroup sums, at least; and the most workgroups in a dimension.
const BLOCK: usize = 64;
const MOST_BLOCKS: usize = 65_535;

impl LayerNorm {
    fn variant(rec: &Recorder, x: Tensor) -> Variant {
        let (rows, cols) = (x.rows().min(16_384), x.last());
        let key = format!("layernorm {} {cols}", rows.next_power_of_two());
        rec.choose(&key, &VARIANTS, &|rec, variant| {
            let (x, gain, bias) = (rec.scratch("x", [rows, cols]), rec.scratch("g", [cols]), rec.scratch("b", [cols]));
            LayerNorm { eps: 1e-6 }.record_forward(rec, [x, gain, bias], variant);
        })
    }

    fn record_forward(&self, rec: &mut Recorder, [x, gain, bias]: [Tensor; 3], variant: Variant) -> Forward {
        let y = rec.scratch("norm", x.shape());
        let statistics = rec.scratch("statistics", [x.rows(), 2]);
        rec.step(&LAYERNORM, variant.name())
            .bind("x", x)
            .bind("gain", gain)
            .bind("bias", bias)
            .bind("y", y)
            .bind("statistics", statistics)
            .uint("rows", x.rows())
            .uint("cols", x.last())
            .uint("block", BLOCK)
            .float("eps", self.eps)
            .flag("accumulate", false)
            .dispatch_rows(x.rows());
        Forward { y: vec![y], saved: vec![statistics] }
    }

    fn backward_params(&self, rec: &mut Recorder, pass: &Backward<'_>, dy: Tensor) {
        let x = pass.x[0];
        let block = x.rows().div_ceil(MOST_BLOCKS).max(BLOCK);
        let blocks = x.rows().div_ceil(block);
        let parts = ["dgain", "dbias"].map(|label| rec.scratch(label, [blocks, x.last()]));
        rec.step(&LAYERNORM, "backward_params")
            .bind("x", x)
            .bind("saved", pass.saved[0])
            .bind("dy", dy)
            .bind("dgain", parts[0])
            .bind("dbias", parts[1])
            .uint("rows", x.rows())
            .uint("cols", x.last())
            .uint("block", block)
            .float("eps", self.eps)
            .flag("accumulate", false)
            .dispatch_grid(x.last(), [blocks, 1]);
        for (part, slot) in parts.into_iter().zip(&pass.dx[1..]) {
            if let Some(Slot { grad, accumulate }) = *slot {
                column_sum(rec, part, [1, blocks, x.last()], grad, 1.0, accumulate);
            }
        }
    }
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layernorm"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let variant = Self::variant(rec, x[0]);
        self.record_forward(rec, [x[0], x[1], x[2]], variant)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let Some(dy) = pass.dy[0] else { return };
        let x = pass.x[0];
        if let Some(slot) = pass.dx[0] {
            let entry = if Self::variant(rec, x) == Variant::FORWARD { "backward" } else { "backward_rows" };
            rec.step(&LAYERNORM, entry)
                .bind("x", x)
                .bind("gain", pass.x[1])
                .bind("saved", pass.saved[0])
                .bind("dy", dy)
                .bind("dx", slot.grad)
                .uint("rows", x.rows())
                .uint("cols", x.last())
                .uint("block", BLOCK)
                .float("eps", self.eps)
                .flag("accumulate", slot.accumulate)
                .dispatch_rows(x.rows());
        }
        if pass.dx[1].is_some() || pass.dx[2].is_some() {
            self.backward_params(rec, pass, dy);
        }
    }
}
