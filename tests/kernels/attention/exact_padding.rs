//! `padding = exact` against float64 over the real tokens alone, outputs and gradients: padding.rs compares the GPU with
//! itself.

use lara_runtime::Tensor;
use lara_runtime::attention::{AttentionConfig, Context, FeatureMap, MechanismKind, Qkv, mechanism};
use lara_tests::{Case, Real, Reference, check, random};

use super::attend::VARIANTS;

const HEADS: usize = 2;
const TOKENS: usize = 11;
const DIM: usize = 4;

/// Real tokens of each sample: padded right, padded left, with holes, one token, none, all.
const REAL: [&[usize]; 6] =
    [&[0, 1, 2, 3, 4, 5, 6], &[5, 6, 7, 8, 9, 10], &[1, 2, 4, 8, 9], &[3], &[], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]];

type Rows<R> = Vec<Vec<R>>;

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(R::of(0.0), |sum, (&a, &b)| sum + a * b)
}

fn plus<R: Real>(a: &[R], b: &[R]) -> Vec<R> {
    a.iter().zip(b).map(|(&a, &b)| a + b).collect()
}

/// sum_m softmax_m(logits) v_m
fn softmax<R: Real>(logits: &[R], v: &Rows<R>) -> Vec<R> {
    let lse = super::lse(logits);
    logits.iter().zip(v).fold(vec![R::of(0.0); DIM], |sum, (&logit, v)| {
        let weight = (logit - lse).exp();
        sum.iter().zip(v).map(|(&sum, &v)| sum + weight * v).collect()
    })
}

/// s w.x - (s / 2) |x|^2
fn phi<R: Real>(x: &[R], w: &[R]) -> R {
    let s = (DIM as f64).powf(-0.5);
    R::of(s) * dot(w, x) - R::of(s / 2.0) * dot(x, x)
}

/// f(w), what a sample sees of the values.
fn seen<R: Real>(w: &[R], k: &Rows<R>, v: &Rows<R>) -> Vec<R> {
    let logits: Vec<R> = k.iter().map(|k| phi(k, w)).collect();
    softmax(&logits, v)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// With so many samples, or 0 and -1 for the means of the keys.
    Ra(i32),
    Rfa,
    Favorp,
}

const FEATURES: usize = 6;

impl Kind {
    fn config(self) -> AttentionConfig {
        let defaults = AttentionConfig { features: FEATURES, kernel: FeatureMap::Favorp, ..AttentionConfig::default() };
        match self {
            Kind::Ra(num_samples) => AttentionConfig { mechanism: MechanismKind::Ra, num_samples, ..defaults },
            Kind::Rfa => AttentionConfig { mechanism: MechanismKind::Rfa, ..defaults },
            Kind::Favorp => AttentionConfig { mechanism: MechanismKind::Performer, ..defaults },
        }
    }

    fn samples(self) -> usize {
        if let Kind::Ra(samples) = self { samples.max(1) as usize } else { 1 }
    }

    fn draws_keys(self) -> bool {
        matches!(self, Kind::Ra(samples) if samples > 0)
    }

    /// What is given besides the mask: RA's noise [batch, heads, N S, D], and the drawn key of each sample; features' projection.
    fn given(self) -> Vec<(Vec<usize>, Vec<f64>)> {
        let rows = TOKENS * self.samples();
        let Kind::Ra(_) = self else { return vec![(vec![HEADS, FEATURES, DIM], random(8, HEADS * FEATURES * DIM))] };
        let noise = (vec![REAL.len(), HEADS, rows, DIM], random(9, REAL.len() * HEADS * rows * DIM));
        // Of the real tokens of a sample one; what stands at the padded ones does not matter.
        let key = |i: usize| REAL[i / rows / HEADS].get((5 * i + 3) % REAL[i / rows / HEADS].len().max(1));
        let index = (0..REAL.len() * HEADS * rows).map(|i| key(i).map_or(0.0, |&m| m as f64)).collect();
        let index = (vec![REAL.len(), HEADS, rows], index);
        if self.draws_keys() { vec![noise, index] } else { vec![noise] }
    }

    /// The output of one head of one sample, in which there is nothing but real tokens; `places` are theirs in the sample.
    fn head<R: Real>(self, [q, k, v]: [&Rows<R>; 3], given: &[Rows<R>], places: &[usize]) -> Rows<R> {
        match self {
            Kind::Ra(_) => (0..q.len()).map(|n| self.ra([q, k, v], given, places, n)).collect(),
            Kind::Rfa => {
                let scale = R::of((DIM as f64).powf(0.25));
                let samples: Rows<R> = given[0].iter().map(|w| w.iter().map(|&w| scale * w).collect()).collect();
                let values: Rows<R> = samples.iter().map(|w| seen(w, k, v)).collect();
                let keys: Vec<R> =
                    samples.iter().map(|w| super::lse(&k.iter().map(|k| phi(k, w)).collect::<Vec<R>>())).collect();
                let logits =
                    |q: &Vec<R>| samples.iter().zip(&keys).map(|(w, &lse)| phi(q, w) + lse).collect::<Vec<R>>();
                q.iter().map(|q| softmax(&logits(q), &values)).collect()
            }
            Kind::Favorp => favorp([q, k, v], &given[0]),
        }
    }

    fn ra<R: Real>(self, [q, k, v]: [&Rows<R>; 3], given: &[Rows<R>], places: &[usize], n: usize) -> Vec<R> {
        let share = R::of(1.0 / self.samples() as f64);
        (0..self.samples()).fold(vec![R::of(0.0); DIM], |sum, s| {
            let row = places[n] * self.samples() + s;
            let key = match self {
                Kind::Ra(0) => softmax(&vec![R::of(0.0); k.len()], k),
                Kind::Ra(-1) => {
                    let s = R::of((DIM as f64).powf(-0.5));
                    softmax(&k.iter().map(|k| s * dot(&q[n], k)).collect::<Vec<R>>(), k)
                }
                _ => {
                    let drawn = given[1][row][0].value() as usize;
                    k[places.iter().position(|&m| m == drawn).expect("a real key")].clone()
                }
            };
            let w = plus(&plus(&q[n], &key), &given[0][row]);
            plus(&sum, &seen(&w, k, v).into_iter().map(|x| share * x).collect::<Vec<R>>())
        })
    }
}

/// Spec 1.8; the maxima count as constants.
fn favorp<R: Real>([q, k, v]: [&Rows<R>; 3], projection: &Rows<R>) -> Rows<R> {
    let z = (DIM as f64).powf(-0.25);
    let products = |x: &Vec<R>| projection.iter().map(|w| R::of(z) * dot(x, w)).collect::<Vec<R>>();
    let largest = |of: &[Vec<R>]| of.iter().flatten().map(|x| x.value()).fold(f64::NEG_INFINITY, f64::max);
    let features = |x: &Vec<R>, largest: f64| {
        let half = R::of(z * z / 2.0) * dot(x, x) + R::of(largest);
        let of = |p: R| R::of((FEATURES as f64).powf(-0.5)) * (p - half).exp() + R::of(1e-4);
        products(x).into_iter().map(of).collect::<Vec<R>>()
    };
    let of_keys = largest(&k.iter().map(products).collect::<Rows<R>>());
    let keys: Rows<R> = k.iter().map(|k| features(k, of_keys)).collect();
    let row = |q: &Vec<R>| {
        let query = features(q, largest(&[products(q)]));
        let weights: Vec<R> = keys.iter().map(|key| dot(&query, key)).collect();
        let total = weights.iter().fold(R::of(0.0), |sum, &w| sum + w);
        let total = if total.value() < 1e-2 { R::of(1e-2) } else { total };
        (0..DIM).map(|c| weights.iter().zip(v).fold(R::of(0.0), |sum, (&w, v)| sum + w * v[c]) / total).collect()
    };
    q.iter().map(row).collect()
}

impl Reference for Kind {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let mut out = vec![R::of(0.0); REAL.len() * HEADS * TOKENS * DIM];
        for (z, places) in REAL.iter().flat_map(|places| [places; HEADS]).enumerate() {
            let row = |x: &Vec<R>, n: usize| x[(z * TOKENS + n) * DIM..][..DIM].to_vec();
            let [q, k, v] = [0, 1, 2].map(|i| places.iter().map(|&n| row(&x[i], n)).collect::<Rows<R>>());
            let of_head = |(i, given): (usize, &Vec<R>)| {
                let width = if i == 1 { 1 } else { DIM };
                let head = if matches!(self, Kind::Ra(_)) { z } else { z % HEADS };
                let heads = if matches!(self, Kind::Ra(_)) { REAL.len() * HEADS } else { HEADS };
                let rows = given.len() / heads / width;
                given.chunks(width).skip(head * rows).take(rows).map(<[R]>::to_vec).collect::<Rows<R>>()
            };
            let given: Vec<Rows<R>> = x[4..].iter().enumerate().map(of_head).collect();
            for (&n, row) in places.iter().zip(self.head([&q, &k, &v], &given, places)) {
                out[(z * TOKENS + n) * DIM..][..DIM].copy_from_slice(&row);
            }
        }
        vec![out]
    }
}

#[test]
fn real_tokens_get_what_float64_computes_without_the_others() {
    for kind in [Kind::Ra(0), Kind::Ra(-1), Kind::Ra(1), Kind::Ra(3), Kind::Rfa, Kind::Favorp] {
        let build = |tape: &mut lara_runtime::Tape<'_>, x: &[Tensor]| {
            let context = Context { key_padding_mask: Some(x[3]), ..Context::default() };
            let context = match kind {
                Kind::Ra(_) => Context { noise: Some(x[4]), index: x.get(5).copied(), ..context },
                _ => Context { projection: Some(x[4]), ..context },
            };
            vec![mechanism(&kind.config()).unwrap().attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &context)]
        };
        let shape = [REAL.len(), HEADS, TOKENS, DIM];
        let values =
            |seed| random(seed, shape.iter().product()).into_iter().map(|x| f64::from((1.5 * x) as f32)).collect();
        let mut case = Case::new(format!("{kind:?} padded"), &build);
        for seed in 1..4 {
            case = case.variable(shape, values(seed));
        }
        let is_real = |i: usize| REAL[i / TOKENS].contains(&(i % TOKENS));
        let mask = (0..REAL.len() * TOKENS).map(|i| f64::from(u8::from(!is_real(i)))).collect();
        case = case.constant([REAL.len(), TOKENS], mask);
        for (shape, values) in kind.given() {
            case = case.constant(&shape[..], values.into_iter().map(|x| f64::from(x as f32)).collect());
        }
        check(&case.tolerance(2e-6), &kind, VARIANTS);
    }
}
