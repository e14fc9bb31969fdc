//! What holds for random features on average.

use lara_runtime::attention::{AttentionConfig, Context, MechanismKind, Projection, Qkv, mechanism};
use lara_runtime::{Header, Mode, Tape, Tensor};
use lara_tests::{Case, random, run};

/// Every head draws a projection of its own, so that many heads with the same input are many draws.
const HEADS: usize = 1024;
const TOKENS: usize = 12;
const DIM: usize = 8;

fn repeated(seed: u32) -> Vec<f64> {
    let one: Vec<f64> = random(seed, TOKENS * DIM).into_iter().map(|x| 1.5 * x).collect();
    one.repeat(HEADS)
}

fn outputs(config: &AttentionConfig) -> Vec<f64> {
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        vec![mechanism(config).unwrap().attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &Context::default())]
    };
    let mut case = Case::new("rfa", &build).mode(Mode::Train { accumulate: false });
    for seed in 1..4 {
        case = case.constant([1, HEADS, TOKENS, DIM], repeated(seed));
    }
    run(&case.header(Header { step: 4, seed: [8, 15], ..Header::default() }), &[], 1).outputs.remove(0)
}

/// Mean over the draws of the squared error against softmax, and its standard error.
fn error(projection: Projection, features: usize, exact: &[f64]) -> (f64, f64) {
    let config = AttentionConfig { mechanism: MechanismKind::Rfa, projection, features, ..AttentionConfig::default() };
    let each: Vec<f64> = outputs(&config)
        .chunks(TOKENS * DIM)
        .map(|out| out.iter().zip(exact).map(|(y, e)| (y - e).powi(2)).sum::<f64>() / out.len() as f64)
        .collect();
    let n = each.len() as f64;
    let mean = each.iter().sum::<f64>() / n;
    let variance = each.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// Orthogonal features waste less on directions they have already (Choromanski et al. 2021); and more features err less.
#[test]
fn orthogonal_features_beat_independent_ones() {
    let softmax = AttentionConfig { mechanism: MechanismKind::Softmax, ..AttentionConfig::default() };
    let exact = outputs(&softmax)[..TOKENS * DIM].to_vec();
    let mut last = f64::INFINITY;
    for features in [8, 32] {
        let (iid, iid_error) = error(Projection::Iid, features, &exact);
        let (orthogonal, orthogonal_error) = error(Projection::Orthogonal, features, &exact);
        let uncertain = iid_error.hypot(orthogonal_error);
        assert!(
            iid - orthogonal > 3.0 * uncertain,
            "S = {features}: independent {iid} +- {iid_error}, orthogonal {orthogonal} +- {orthogonal_error}"
        );
        assert!(orthogonal < 0.75 * last, "S = {features}: {orthogonal}, with a quarter of the features {last}");
        last = orthogonal;
    }
}
