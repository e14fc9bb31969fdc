use std::f64::consts::FRAC_PI_2;

use lara_runtime::attention::PerformerFeatures;
use lara_runtime::{Mode, Tape, Tensor};
use lara_tests::{Case, Real, Reference, assert_close, check, random, run};

/// Naive features of rows, also for the reference of `performer`.
pub(super) struct Features {
    pub(super) map: PerformerFeatures,
    /// Tokens of a matrix, and numbers of each.
    pub(super) tokens: usize,
    pub(super) width: usize,
}

fn largest<R: Real>(values: impl Iterator<Item = R>) -> R {
    R::of(values.map(Real::value).fold(f64::NEG_INFINITY, f64::max))
}

fn rectify<R: Real>(x: R) -> R {
    if x.value() > 0.0 { x } else { R::of(0.0) }
}

impl Features {
    /// Features of the tokens of one matrix; `norm` is empty where the map has none or goes without.
    pub(super) fn matrix<R: Real>(&self, x: &[R], norm: &[R]) -> Vec<R> {
        let all = largest(x.iter().copied());
        let loudest = largest(norm.iter().map(|&n| -n));
        let row = |(n, row): (usize, &[R])| -> Vec<R> {
            match self.map {
                PerformerFeatures::Favorp { factor, eps, per_token, .. } => {
                    let peak = if per_token { largest(row.iter().copied()) } else { all };
                    let feature = |&x: &R| R::of(factor.into()) * (x + norm[n] - peak).exp() + R::of(eps.into());
                    row.iter().map(feature).collect()
                }
                PerformerFeatures::Fourier { factor, cos_first, .. } => {
                    let amplitude = norm.get(n).map_or(R::of(1.0), |&norm| (-norm - loudest).exp());
                    let [sin, cos] = [R::sin, R::cos].map(|wave| row.iter().map(|&x| wave(x)).collect::<Vec<R>>());
                    let waves = if cos_first { [cos, sin] } else { [sin, cos] };
                    waves.concat().into_iter().map(|wave| R::of(factor.into()) * amplitude * wave).collect()
                }
                PerformerFeatures::Relu { factor, eps } => {
                    row.iter().map(|&x| rectify(R::of(factor.into()) * x) + R::of(eps.into())).collect()
                }
                PerformerFeatures::Sigmoid { eps } => {
                    row.iter().map(|&x| R::of(1.0) / (R::of(1.0) + (-x).exp()) + R::of(eps.into())).collect()
                }
                PerformerFeatures::Dpfp { shifts } => {
                    let r: Vec<R> = row.iter().map(|&x| rectify(x)).chain(row.iter().map(|&x| rectify(-x))).collect();
                    let rolled = |j: usize| (0..r.len()).map(|i| r[i] * r[(i + j * r.len() - j) % r.len()]).collect();
                    (1..=shifts).flat_map(|j| -> Vec<R> { rolled(j) }).collect()
                }
                PerformerFeatures::Positions { .. } => {
                    let angle = FRAC_PI_2 * n as f64 / self.tokens as f64;
                    let part = |weight: f64| row.iter().map(move |&x| R::of(weight) * x);
                    part(angle.cos()).chain(part(angle.sin())).collect()
                }
            }
        };
        x.chunks(self.width).enumerate().flat_map(row).collect()
    }
}

impl Reference for Features {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let matrices = x[0].chunks(self.tokens * self.width).enumerate();
        let norm = |z: usize| x.get(1).map_or(&[][..], |norm| &norm[z * self.tokens..(z + 1) * self.tokens]);
        vec![matrices.flat_map(|(z, x)| self.matrix(x, norm(z))).collect()]
    }
}

const MAPS: [PerformerFeatures; 9] = [
    PerformerFeatures::Favorp { factor: 0.5, eps: 1e-4, per_token: true, padding: None },
    PerformerFeatures::Favorp { factor: 0.25, eps: 1e-4, per_token: false, padding: None },
    PerformerFeatures::Fourier { factor: 0.5, cos_first: false, padding: None },
    PerformerFeatures::Fourier { factor: 0.5, cos_first: true, padding: None },
    PerformerFeatures::Relu { factor: 0.5, eps: 1e-3 },
    PerformerFeatures::Sigmoid { eps: 0.1 },
    PerformerFeatures::Dpfp { shifts: 1 },
    PerformerFeatures::Dpfp { shifts: 5 },
    PerformerFeatures::Positions { ranks: None },
];

fn has_norm(map: PerformerFeatures) -> bool {
    matches!(map, PerformerFeatures::Favorp { .. } | PerformerFeatures::Fourier { .. })
}

#[test]
fn maps_are_those_of_the_formulas() {
    for map in MAPS {
        for shape @ [batch, heads, tokens, width] in
            [[1, 1, 1, 1], [2, 3, 5, 7], [1, 2, 64, 8], [1, 1, 65, 3], [3, 1, 63, 2], [2, 2, 129, 17], [1, 1, 2, 130]]
        {
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(map, x)];
            let rows = batch * heads * tokens;
            let x = random(1, rows * width).into_iter().map(|x| f64::from((2.5 * x) as f32)).collect();
            let mut case = Case::new(format!("{map:?} {shape:?}"), &build).variable(shape, x).tolerance(1e-5);
            if has_norm(map) {
                case = case.variable([batch, heads, tokens], random(2, rows).into_iter().map(|n| n - 1.0).collect());
            }
            check(&case, &Features { map, tokens, width }, &[&[]]);
        }
    }
}

#[test]
fn waves_may_go_without_norms() {
    let map = PerformerFeatures::Fourier { factor: 0.5, cos_first: true, padding: None };
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(map, x)];
    let case = Case::new("waves of one amplitude", &build).variable([2, 3, 5, 7], random(1, 210));
    check(&case, &Features { map, tokens: 5, width: 7 }, &[&[]]);
}

/// Many turns away from zero, WGSL's own sine may be anything.
#[test]
fn waves_are_those_of_large_angles_too() {
    let map = PerformerFeatures::Fourier { factor: 1.0, cos_first: false, padding: None };
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(map, x)];
    let x: Vec<f64> = random(1, 4096).into_iter().map(|x| f64::from((2000.0 * x) as f32)).collect();
    let case = Case::new("waves of large angles", &build).constant([1, 1, 4096, 1], x).mode(Mode::Eval);
    let want = Features { map, tokens: 4096, width: 1 }.eval(&case.values());
    assert_close("waves of large angles", &want[0], &run(&case, &[], 1).outputs[0], 2e-6);
}

/// Logits that would overflow without their maxima and where a sigmoid is 0 or 1.
#[test]
fn large_numbers_stay_finite() {
    for map in MAPS {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(map, x)];
        let x: Vec<f64> = random(1, 60).into_iter().map(|x| f64::from((500.0 * x) as f32)).collect();
        let mut case = Case::new(format!("large {map:?}"), &build).variable([1, 2, 6, 5], x);
        if has_norm(map) {
            case = case.variable([1, 2, 6], random(2, 12).into_iter().map(|n| 300.0 * (n - 1.0)).collect());
        }
        let outcome = run(&case, &[], 1);
        let numbers = outcome.outputs.iter().chain(&outcome.gradients).flatten();
        assert!(numbers.clone().all(|x| x.is_finite()), "{map:?}");
    }
}
