//! Attention rollout: how much of each input token there is in each output token, going by attention alone.

use lara_shaders::ROLLOUT;

use super::fuse_heads::fuse_heads_at;
use super::{Fusion, discard};
use crate::ops::{Layout, Operand, Product};
use crate::{Error, Recorder, Tensor, Variant};

/// One workgroup a row where workgroups are cheap to synchronise, one invocation a row where they are not.
const VARIANTS: [Variant; 2] = [Variant::FORWARD, Variant::FORWARD_ROWS];

/// Records the rollout [N, N] (Abnar and Zuidema, 2020) of the explicit attention maps [1, heads, N, N] of all layers,
/// first layer first: the heads of every layer are fused into one map, its lowest entries are discarded
/// ([`discard`], with the ratio `ratio` `[1]`, an input of the plan, and `prefix` class tokens), the residual
/// connection is taken for as much as attention, a = (a + I) / 2 with rows normalised to sum 1, and the layers are
/// multiplied, a_L .. a_1. Row n says where output token n comes from; it sums to 1.
///
/// Besides the layers' own maps it holds three times as many N x N numbers as there are layers. No layer, and layers of
/// different or other shapes, are the recording's error.
pub fn rollout(rec: &mut Recorder, layers: &[Tensor], fusion: Fusion, ratio: Tensor, prefix: usize) -> Tensor {
    let tokens = match layers.first().map(|first| first.dims()) {
        Some(&[1, _, rows, cols]) if rows == cols && layers.iter().all(|l| l.shape() == layers[0].shape()) => rows,
        _ => {
            let shapes: Vec<String> = layers.iter().map(|layer| layer.shape().to_string()).collect();
            rec.fail(Error::Shape(format!(
                "no rollout of {} layers ({}); it takes at least one, each [1, heads, N, N]",
                layers.len(),
                shapes.join(", ")
            )));
            return rec.scratch("rollout", [1, 1]);
        }
    };
    // All layers in one tensor, so that they are worked on side by side.
    let fused = rec.scratch("fused layers", [layers.len(), tokens, tokens]);
    for (at, &layer) in layers.iter().enumerate() {
        fuse_heads_at(rec, layer, fusion, (fused, at * tokens * tokens));
    }
    let kept = discard(rec, fused, ratio, prefix);
    let mixed = with_residual(rec, kept);
    let layer = |at: usize| Operand { tensor: mixed, offset: at * tokens * tokens };
    let product =
        Product { layout: Layout::Nn, batch: 1, m: tokens, n: tokens, k: tokens, scale: 1.0, accumulate: false };
    let mut result = layer(0);
    for at in 1..layers.len() {
        let next = rec.scratch("rollout", [tokens, tokens]);
        product.record(rec, layer(at), result, None, next);
        result = next.into();
    }
    if layers.len() == 1 { mixed.reshape([tokens, tokens]) } else { result.tensor }
}

/// (x + I) / 2 with rows normalised to sum 1, for maps x [.., N, N] (a row that sums to no positive number passes its own
/// token on).
fn with_residual(rec: &mut Recorder, x: Tensor) -> Tensor {
    let y = rec.scratch("with residual", x.shape());
    let (rows, cols) = (x.rows(), x.last());
    let key = format!("rollout {} {}", rows.next_power_of_two(), cols.next_power_of_two());
    let variant = rec.choose(&key, &VARIANTS, &|rec, variant| {
        let [x, y] = ["x", "y"].map(|label| rec.scratch(label, [rows, cols]));
        record(rec, variant, [x, y]);
    });
    record(rec, variant, [x, y]);
    y
}

fn record(rec: &mut Recorder, variant: Variant, [x, y]: [Tensor; 2]) {
    rec.step(&ROLLOUT, variant.name())
        .bind("x", x)
        .bind("y", y)
        .uint("rows", x.rows())
        .uint("tokens", x.last())
        .dispatch_rows(x.rows());
}
