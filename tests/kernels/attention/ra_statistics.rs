//! RA over many draws: with exact noise its mean is softmax attention and its error falls as 1 / S (spec 1.3, 1.7).

use lara_runtime::attention::{AttentionConfig, Context, MechanismKind, NoiseScale, Qkv, mechanism};
use lara_runtime::{Header, Mode, Tape, Tensor};
use lara_tests::{Case, Reference, random, run};

use super::attend::{Exact, Sizes};

/// Independent repetitions in a run, side by side in the batch, and number of runs.
const COPIES: usize = 2048;
const RUNS: u32 = 3;

const SIZES: Sizes = Sizes { batch: 1, heads: 1, n: 3, m: 6, d: 4 };

/// q, k and v of one repetition.
fn inputs() -> [Vec<f64>; 3] {
    let Sizes { n, m, d, .. } = SIZES;
    let sized = |seed, len, size: f64| random(seed, len).into_iter().map(|x| f64::from((size * x) as f32)).collect();
    [sized(1, n * d, 2.0), sized(2, m * d, 2.0), sized(3, m * d, 1.0)]
}

/// Softmax attention of the same inputs.
fn target() -> Vec<f64> {
    let Sizes { n, m, d, .. } = SIZES;
    Exact { queries: n, keys: m, dim: d, scale: f64::from(SIZES.scale()) }.eval(&inputs()).swap_remove(0)
}

/// Outputs of all repetitions, each [N, D].
fn outputs(noise: NoiseScale, num_samples: i32) -> Vec<Vec<f64>> {
    let Sizes { n, m, d, .. } = SIZES;
    let config = AttentionConfig { mechanism: MechanismKind::Ra, num_samples, noise, ..AttentionConfig::default() };
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        let qkv = Qkv { q: x[0], k: x[1], v: x[2] };
        vec![mechanism(&config).unwrap().attend(tape, qkv, &Context::default())]
    };
    let mut case = Case::new("ra", &build).mode(Mode::Train { accumulate: false });
    for (values, tokens) in inputs().into_iter().zip([n, m, m]) {
        case = case.constant([COPIES, 1, tokens, d], values.repeat(COPIES));
    }
    let seeded = |seed| run(&case.clone().header(Header { seed: [seed, 17], ..Header::default() }), &[], 1);
    (0..RUNS).flat_map(|seed| seeded(seed).outputs[0].chunks(n * d).map(<[f64]>::to_vec).collect::<Vec<_>>()).collect()
}

/// Mean and standard error of it.
fn mean(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

/// Distance of each output's mean from softmax attention, in standard errors.
fn deviations(outputs: &[Vec<f64>]) -> Vec<f64> {
    let of = |(i, want): (usize, f64)| {
        let (mean, error) = mean(&outputs.iter().map(|y| y[i]).collect::<Vec<_>>());
        (mean - want) / error
    };
    target().into_iter().enumerate().map(of).collect()
}

/// Squared error of a repetition, on average, and the standard error of that.
fn squared_error(outputs: &[Vec<f64>]) -> (f64, f64) {
    let target = target();
    let of = |y: &Vec<f64>| y.iter().zip(&target).map(|(y, t)| (y - t).powi(2)).sum::<f64>();
    mean(&outputs.iter().map(of).collect::<Vec<_>>())
}

/// 12 means of 6,144 draws: none is four standard errors off (by chance one in 1,300 is).
#[test]
fn exact_noise_is_unbiased() {
    for num_samples in [1, 4] {
        let off = deviations(&outputs(NoiseScale::Exact, num_samples));
        assert!(off.iter().all(|z| z.abs() < 4.0), "S = {num_samples}: standard errors from softmax: {off:.1?}");
    }
}

/// The released noise is too small for the densities that weight it (spec 1.7). Squared deviations of unbiased means
/// would be 1 on average, give or take 0.4 (more where channels go together); these are about 19 and 81.
#[test]
fn released_noise_and_no_noise_are_biased() {
    for noise in [NoiseScale::Released, NoiseScale::None] {
        let off = deviations(&outputs(noise, 1));
        let squares = off.iter().map(|z| z * z).sum::<f64>() / off.len() as f64;
        assert!(squares > 9.0, "{noise:?}: standard errors from softmax: {off:.1?}");
    }
}

/// The mean over S independent draws has a variance, and being unbiased an error, of 1 / S.
#[test]
fn the_error_falls_as_one_over_the_number_of_samples() {
    let errors = [1, 4, 16].map(|samples| squared_error(&outputs(NoiseScale::Exact, samples)));
    for pair in errors.windows(2) {
        let ((few, few_error), (many, many_error)) = (pair[0], pair[1]);
        let ratio = few / many;
        let error = ratio * ((few_error / few).powi(2) + (many_error / many).powi(2)).sqrt();
        assert!(error < 0.15, "too few draws: MSE(S) / MSE(4 S) is {ratio} +- {error}");
        assert!((ratio - 4.0).abs() < 3.0 * error, "MSE(S) / MSE(4 S) is {ratio} +- {error}");
    }
}
