//! How far a mechanism is from exact softmax attention.

use lara_models::Error;
use lara_models::attend::{Array, Arrays, Layer, Setting, Want, map, shapes};
use lara_runtime::attention::{AttentionConfig, MechanismKind};
use lara_runtime::{Gpu, Mode, Tune};
use pollster::block_on;
use serde::Serialize;

use crate::fail::Outcome;

/// Differences from exact softmax attention with the same masks.
#[derive(Serialize)]
pub(super) struct Difference {
    /// |out - softmax| / |softmax|, Euclidean norms over the whole output.
    pub(super) relative_error: f64,
    /// Largest absolute difference of an output.
    pub(super) largest_difference: f64,
    /// Mean over queries of KL(softmax map || map), if maps were wanted; none if a map has negative weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mean_kl: Option<f64>,
}

/// What to do where the device does not suffice for it.
const LOWER: &str = "the tokens of q and k, or leave the comparison with softmax out (--no-compare)";

/// Computes softmax attention of the same tensors and compares `out` and, where there is one, `weights`.
pub(super) fn with_softmax(
    gpu: &Gpu,
    tune: &Tune,
    setting: &Setting,
    given: &Arrays,
    results: &[(String, Array)],
) -> Outcome<Difference> {
    let config = AttentionConfig {
        mechanism: MechanismKind::Softmax,
        causal: setting.config.causal,
        ..AttentionConfig::default()
    };
    let exact = Setting { config, mode: Mode::Eval, ..setting.clone() };
    let only = ["q", "k", "v", "key_padding_mask"];
    let given: Arrays =
        given.iter().filter(|(name, _)| only.contains(&name.as_str())).map(|(n, a)| (n.clone(), a.clone())).collect();
    let result = |name: &str| results.iter().find(|(found, _)| found == name).map(|(_, array)| array);
    let mut difference = Difference { relative_error: 0.0, largest_difference: 0.0, mean_kl: None };
    if let Some(out) = result("out") {
        let layer = block_on(Layer::compile(gpu, tune, &exact, Want::Output, &shapes(&given)));
        let layer = layer.map_err(Error::lowering(LOWER))?;
        let softmax = block_on(layer.run(&given, 0))?;
        difference.relative_error = relative_error(&out.values, &softmax.values);
        let pairs = out.values.iter().zip(&softmax.values);
        difference.largest_difference = pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    }
    if let Some(weights) = result("weights") {
        difference.mean_kl =
            mean_kl(&block_on(map(gpu, tune, &exact, &given, 0)).map_err(Error::lowering(LOWER))?, &weights.values);
    }
    Ok(difference)
}

/// |x - exact| / |exact|; 0 where both are zero.
pub(crate) fn relative_error(x: &[f32], exact: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = x.iter().zip(exact).map(|(x, e)| square(f64::from(*x) - f64::from(*e))).sum();
    let norm: f64 = exact.iter().map(|e| square(f64::from(*e))).sum();
    if difference == 0.0 { 0.0 } else { (difference / norm.max(f64::MIN_POSITIVE)).sqrt() }
}

/// Rows of padding alone attend to nothing and do not count.
fn mean_kl(exact: &Array, map: &[f32]) -> Option<f64> {
    if map.iter().any(|&weight| weight < -1e-6) {
        return None;
    }
    let width = exact.shape[3];
    let rows = exact.values.chunks(width).zip(map.chunks(width)).filter(|(exact, _)| exact.iter().any(|&p| p > 0.0));
    let kl = |(exact, map): (&[f32], &[f32])| -> f64 {
        let terms = exact.iter().zip(map).filter(|(p, _)| **p > 0.0);
        terms.map(|(&p, &q)| f64::from(p) * (f64::from(p) / f64::from(q.max(f32::MIN_POSITIVE))).ln()).sum()
    };
    let divergences: Vec<f64> = rows.map(kl).collect();
    Some(divergences.iter().sum::<f64>() / divergences.len().max(1) as f64)
}
