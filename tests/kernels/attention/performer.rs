use lara_runtime::attention::{
    AttentionConfig, Context, FeatureMap, MechanismKind, Padding, PerformerFeatures, Projection, Qkv, SampleScheme,
    mechanism,
};
use lara_runtime::{Mode, Parameters, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, assert_close, check, random, run, tune};

use super::attend::Sizes;
use super::performer_features::Features;

const KERNELS: [FeatureMap; 7] = [
    FeatureMap::Favorp,
    FeatureMap::Fourier,
    FeatureMap::Relu,
    FeatureMap::ReluOnly,
    FeatureMap::SigmoidOnly,
    FeatureMap::Dpfp,
    FeatureMap::MlpFourier,
];

/// One way to use Performer, and its reference. Inputs: q, k, v; the projection where it is given; the mask; the
/// parameters of `mlp-fourier`.
#[derive(Clone, Debug)]
struct Performer {
    sizes: Sizes,
    kernel: FeatureMap,
    features: usize,
    cos_weighting: bool,
    masked: bool,
}

impl Performer {
    fn takes_projection(&self) -> bool {
        matches!(self.kernel, FeatureMap::Favorp | FeatureMap::Fourier | FeatureMap::Relu)
    }

    fn config(&self) -> AttentionConfig {
        AttentionConfig {
            mechanism: MechanismKind::Performer,
            kernel: self.kernel,
            features: self.features,
            cos_weighting: self.cos_weighting,
            // What `exact` means is in padding.rs: the same without the padded tokens.
            padding: Padding::Released,
            ..AttentionConfig::default()
        }
    }

    /// Every third key, and all keys of the last sample.
    fn mask(&self) -> Vec<f64> {
        let Sizes { batch, m, .. } = self.sizes;
        let hides = |i: usize| i % m % 3 == 1 || (batch > 1 && i / m == batch - 1);
        (0..batch * m).map(|i| f64::from(u8::from(hides(i)))).collect()
    }

    fn case<'a>(&self, build: lara_tests::Build<'a>) -> Case<'a> {
        let Sizes { batch, heads, m, d, .. } = self.sizes;
        let name = format!("performer {:?} {} cos {}", self.kernel, self.features, self.cos_weighting);
        let sized = |seed, size: f64, len| {
            random(seed, len).into_iter().map(|x| f64::from((size * x) as f32)).collect::<Vec<f64>>()
        };
        let mut case = self.sizes.case(&name, 1.5, build).tolerance(3e-5);
        if self.takes_projection() {
            case = case.variable([heads, self.features, d], sized(7, 1.5, heads * self.features * d));
        }
        if self.masked {
            case = case.constant([batch, m], self.mask());
        }
        if self.kernel == FeatureMap::MlpFourier {
            let f = self.features;
            case = case
                .parameter("projection", [heads, f / 2, d], sized(8, 1.5, heads * f / 2 * d))
                .parameter("features.weight", [f, f], sized(9, 1.0, f * f))
                .parameter("features.bias", [f], sized(10, 1.0, f));
        }
        case
    }

    fn context(&self, x: &[Tensor]) -> Context {
        let mut given = x[3..].iter().copied();
        let projection = if self.takes_projection() { given.next() } else { None };
        Context { projection, key_padding_mask: given.next(), ..Context::default() }
    }

    fn record(&self, tape: &mut Tape<'_>, x: &[Tensor]) -> Tensor {
        mechanism(&self.config()).unwrap().attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &self.context(x))
    }
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(R::of(0.0), |sum, (&a, &b)| sum + a * b)
}

impl Performer {
    /// Features of the tokens of one head, a row each.
    fn features<R: Real>(&self, x: &[R], is_query: bool, learned: [&[R]; 3]) -> Vec<Vec<R>> {
        let d = self.sizes.d;
        let tokens = x.len() / d;
        let directions = learned[0].len() / d;
        let project = |scale: f64| -> Vec<R> {
            let along = |x: &[R]| learned[0].chunks(d).map(|w| R::of(scale) * dot(x, w)).collect::<Vec<R>>();
            x.chunks(d).flat_map(along).collect()
        };
        let root = (d as f64).powf(-0.25);
        let norms: Vec<R> = x.chunks(d).map(|x| R::of(-root * root / 2.0) * dot(x, x)).collect();
        let share = 1.0 / (directions as f32).sqrt();
        let apply = |map, width, x: &[R], norm: &[R]| Features { map, tokens, width }.matrix(x, norm);
        let made = match self.kernel {
            FeatureMap::Favorp => {
                let map = PerformerFeatures::Favorp { factor: share, eps: 1e-4, per_token: is_query, padding: None };
                apply(map, directions, &project(root), &norms)
            }
            FeatureMap::Fourier => {
                let map = PerformerFeatures::Fourier { factor: share, cos_first: false, padding: None };
                apply(map, directions, &project(root), &norms)
            }
            FeatureMap::Relu => {
                apply(PerformerFeatures::Relu { factor: share, eps: 1e-3 }, directions, &project(root), &[])
            }
            FeatureMap::ReluOnly => apply(PerformerFeatures::Relu { factor: 1.0, eps: 0.1 }, d, x, &[]),
            FeatureMap::SigmoidOnly => apply(PerformerFeatures::Sigmoid { eps: 0.1 }, d, x, &[]),
            FeatureMap::Dpfp => apply(PerformerFeatures::Dpfp { shifts: self.features / d / 2 }, d, x, &[]),
            FeatureMap::MlpFourier => {
                let map =
                    PerformerFeatures::Fourier { factor: 1.0 / (d as f32).sqrt(), cos_first: true, padding: None };
                let waves = apply(map, directions, &project(1.0), &[]);
                let row = |x: &[R]| -> Vec<R> {
                    let weights = learned[1].chunks(self.features).zip(learned[2]);
                    weights.map(|(w, &b)| dot(x, w) + b).collect()
                };
                let mixed: Vec<R> = waves.chunks(self.features).flat_map(row).collect();
                apply(PerformerFeatures::Relu { factor: 1.0, eps: 0.0 }, self.features, &mixed, &[])
            }
        };
        let width = made.len() / tokens;
        if !self.cos_weighting {
            return made.chunks(width).map(<[R]>::to_vec).collect();
        }
        apply(PerformerFeatures::Positions { ranks: None }, width, &made, &[])
            .chunks(2 * width)
            .map(<[R]>::to_vec)
            .collect()
    }
}

impl Reference for Performer {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let Sizes { batch, heads, n, m, d } = self.sizes;
        let mask = x.get(3 + usize::from(self.takes_projection())).filter(|_| self.masked);
        let learned = if self.takes_projection() { 3 } else { 3 + usize::from(self.masked) };
        let mut out = Vec::new();
        for z in 0..batch * heads {
            let of = |i: usize, rows: usize| &x[i][z * rows * d..(z + 1) * rows * d];
            let own = x.get(learned).filter(|_| self.takes_projection() || self.kernel == FeatureMap::MlpFourier);
            let own = own.map_or(&[][..], |w| &w[z % heads * w.len() / heads..(z % heads + 1) * w.len() / heads]);
            let rest = [1, 2].map(|i| x.get(learned + i).map_or(&[][..], |w| &w[..]));
            let queries = self.features(of(0, n), true, [own, rest[0], rest[1]]);
            let keys = self.features(of(1, m), false, [own, rest[0], rest[1]]);
            let visible = |key: &usize| mask.is_none_or(|mask| mask[z / heads * m + key].value() == 0.0);
            for query in &queries {
                let (mut sums, mut total) = (vec![R::of(0.0); d], R::of(0.0));
                for key in (0..m).filter(visible) {
                    let weight = dot(query, &keys[key]);
                    total += weight;
                    sums.iter_mut().zip(&of(2, m)[key * d..]).for_each(|(sum, &v)| *sum += weight * v);
                }
                let raised = if total.value() > 1e-2 { total } else { R::of(1e-2) };
                out.extend(sums.into_iter().map(|sum| sum / raised));
            }
        }
        vec![out]
    }
}

/// Every feature map, with and without positions and masks: one token, odd dimensions, cross-attention both ways.
fn cases() -> Vec<Performer> {
    let mut cases = Vec::new();
    for kernel in KERNELS {
        for (sizes, features) in [
            ([1, 1, 1, 3, 1], 2),
            ([2, 3, 4, 5, 3], 12),
            ([1, 2, 16, 16, 8], 16),
            ([2, 1, 33, 18, 5], 30),
            ([1, 2, 4, 67, 4], 8),
        ] {
            for (cos_weighting, masked) in [(false, false), (true, true), (false, true)] {
                cases.push(Performer { sizes: Sizes::new(sizes), kernel, features, cos_weighting, masked });
            }
        }
    }
    cases
}

#[test]
fn matches_the_released_formulas() {
    for performer in cases() {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![performer.record(tape, x)];
        check(&performer.case(&build), &performer, &[&[]]);
    }
}

/// One key, one query and, where there is a projection, one direction: no choice is left but the clamp.
#[test]
fn matches_for_one_of_everything() {
    for kernel in KERNELS {
        let features = if matches!(kernel, FeatureMap::Dpfp | FeatureMap::MlpFourier) { 6 } else { 1 };
        let sizes = Sizes::new([2, 2, 1, 1, 3]);
        let performer = Performer { sizes, kernel, features, cos_weighting: false, masked: false };
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![performer.record(tape, x)];
        let case = performer.case(&build).mode(Mode::Eval);
        let want = performer.eval(&case.values());
        assert_close(&format!("{performer:?}"), &want[0], &run(&case, &[], 1).outputs[0], 3e-5);
    }
}

/// Positive maps whose normaliser is not raised average the values; a constant comes out as it is.
#[test]
fn constant_values_come_out_unchanged_and_fully_masked_samples_give_nothing() {
    for kernel in [FeatureMap::ReluOnly, FeatureMap::SigmoidOnly] {
        for masked in [false, true] {
            let sizes @ Sizes { batch, heads, n, m, d } = Sizes::new([2, 2, 7, 11, 5]);
            let performer = Performer { sizes, kernel, features: 4, cos_weighting: false, masked };
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![performer.record(tape, x)];
            let mut case = performer.case(&build).mode(Mode::Eval);
            let channels = random(99, d);
            case.set(2, (0..batch * heads * m * d).map(|i| channels[i % d]).collect());
            let empty = |z: usize| masked && z / heads == batch - 1;
            let want = (0..batch * heads * n * d).map(|i| if empty(i / d / n) { 0.0 } else { channels[i % d] });
            let got = run(&case, &[], 1).outputs.remove(0);
            assert_close(&format!("{performer:?}"), &want.collect::<Vec<f64>>(), &got, 1e-5);
        }
    }
}

#[test]
fn weights_give_the_output() {
    for performer in cases().into_iter().filter(|p| p.masked) {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let (qkv, context) = (Qkv { q: x[0], k: x[1], v: x[2] }, performer.context(x));
            let attention = mechanism(&performer.config()).unwrap();
            vec![attention.attend(tape, qkv, &context), attention.weights(tape, qkv, &context)]
        };
        let case = performer.case(&build).mode(Mode::Eval);
        let (outputs, v) = (run(&case, &[], 1).outputs, case.values()[2].clone());
        let Sizes { n, m, d, .. } = performer.sizes;
        let mut product = Vec::new();
        for (row, weights) in outputs[1].chunks(m).enumerate() {
            let values = &v[row / n * m * d..];
            product.extend((0..d).map(|c| (0..m).map(|key| weights[key] * values[key * d + c]).sum::<f64>()));
        }
        assert_close(&format!("{performer:?}: weights times values"), &outputs[0], &product, 3e-5);
    }
}

/// Drawn and learned projections are used where none is given.
#[test]
fn draws_or_learns_its_projection() {
    let sizes = Sizes::new([2, 2, 9, 9, 4]);
    for kernel in [FeatureMap::Favorp, FeatureMap::Fourier, FeatureMap::Relu] {
        let performer = Performer { sizes, kernel, features: 6, cos_weighting: false, masked: false };
        let config = AttentionConfig { sample_scheme: SampleScheme::Learnable, ..performer.config() };
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            vec![mechanism(&config).unwrap().attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &Context::default())]
        };
        let case = sizes.case(&format!("{kernel:?} with a learned projection"), 1.5, &build).tolerance(3e-5);
        let w: Vec<f64> = random(7, 48).into_iter().map(|x| f64::from((1.5 * x) as f32)).collect();
        check(&case.parameter("projection", [2, 6, 4], w), &performer, &[&[]]);
        let outputs = [Projection::Iid, Projection::Orthogonal].map(|projection| {
            let config = AttentionConfig { projection, ..performer.config() };
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
                vec![mechanism(&config).unwrap().attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &Context::default())]
            };
            run(&sizes.case("drawn", 1.5, &build).mode(Mode::Eval), &[], 1).outputs.remove(0)
        });
        assert_ne!(outputs[0], outputs[1], "{kernel:?}: independent and orthogonal rows");
        assert!(outputs.iter().flatten().all(|x| x.is_finite()));
    }
}

#[test]
fn refuses_numbers_of_features_that_do_not_fit() {
    for (kernel, features, said) in [
        (FeatureMap::Dpfp, 7, "dpfp with heads of dimension 4 needs features of at least 8 (a multiple of it), not 7"),
        (FeatureMap::MlpFourier, 7, "mlp-fourier makes pairs of features, and 7 is odd; take an even number"),
    ] {
        let performer =
            Performer { sizes: Sizes::new([1, 2, 5, 5, 4]), kernel, features, cos_weighting: false, masked: false };
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let x = ["q", "k", "v"].map(|label| tape.input(label, [1, 2, 5, 4]));
        performer.record(&mut tape, &x);
        assert_eq!(tape.finish().expect_err("features do not fit").to_string(), said);
    }
}
