use lara_runtime::attention::{
    AttentionConfig, Context, JoinHeads, MechanismKind, Noise, Pooling, ProposalGen, Qkv, mechanism,
};
use lara_runtime::{Header, Mode, Tape, Tensor};
use lara_tests::{Case, Golden, Real, Reference, assert_close, check, golden_inputs, random, run};

use super::attend::VARIANTS;
use super::landmarks::pool;

/// One way to use LARA, and its reference.
#[derive(Clone, Debug)]
pub(super) struct Lara {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) dim: usize,
    pub(super) prefix: usize,
    pub(super) grid: Option<[usize; 2]>,
    /// Tokens after the prefix.
    pub(super) tokens: usize,
    pub(super) num_landmarks: usize,
    pub(super) proposal_gen: ProposalGen,
    pub(super) alpha: f32,
    /// [batch, heads, C, dim], or nothing.
    pub(super) noise: Vec<f64>,
}

/// Names of the learned parts of a landmark generator, with their number of dimensions.
const LEARNED: [(&str, usize); 4] = [("linear.weight", 2), ("linear.bias", 1), ("norm.weight", 1), ("norm.bias", 1)];

impl Lara {
    pub(super) fn new([batch, heads, tokens, dim]: [usize; 4], num_landmarks: usize) -> Lara {
        Lara {
            batch,
            heads,
            dim,
            prefix: 0,
            grid: None,
            tokens,
            num_landmarks,
            proposal_gen: ProposalGen::NoParamPool,
            alpha: 1.0,
            noise: vec![],
        }
    }

    pub(super) fn on_grid([batch, heads, dim]: [usize; 3], grid: [usize; 2], num_landmarks: usize) -> Lara {
        Lara { grid: Some(grid), ..Lara::new([batch, heads, grid[0] * grid[1], dim], num_landmarks) }
    }

    pub(super) fn config(&self) -> AttentionConfig {
        AttentionConfig {
            mechanism: MechanismKind::Lara,
            num_landmarks: self.num_landmarks,
            proposal_gen: self.proposal_gen,
            alpha_coeff: self.alpha,
            ..AttentionConfig::default()
        }
    }

    pub(super) fn context(&self, noise: Option<Tensor>) -> Context {
        Context { grid: self.grid, prefix: self.prefix, noise }
    }

    fn pooling(&self) -> Pooling {
        match self.grid {
            Some(grid) => Pooling::Grid { grid, side: (1..).take_while(|r| r * r <= self.num_landmarks).count() },
            None => Pooling::Segments { tokens: self.tokens, landmarks: self.num_landmarks.min(self.tokens) },
        }
    }

    pub(super) fn len(&self) -> usize {
        self.prefix + self.tokens
    }

    pub(super) fn elements(&self) -> usize {
        self.batch * self.heads * self.len() * self.dim
    }

    fn noise_len(&self) -> usize {
        self.batch * self.heads * self.pooling().landmarks() * self.dim
    }

    pub(super) fn shape(&self) -> [usize; 4] {
        [self.batch, self.heads, self.len(), self.dim]
    }

    /// q, k and v of the given case, the noise if there is some, and the learned parameters.
    pub(super) fn case<'a>(&self, build: lara_tests::Build<'a>) -> Case<'a> {
        let mut case = Case::new(format!("lara {self:?}"), build).tolerance(2e-5);
        for seed in 1..4 {
            let values = random(seed, self.elements()).into_iter().map(|x| 1.5 * x).collect();
            case = case.variable(self.shape(), values);
        }
        if !self.noise.is_empty() {
            let shape = [self.batch, self.heads, self.pooling().landmarks(), self.dim];
            case = case.constant(shape, self.noise.clone());
        }
        if self.proposal_gen == ProposalGen::Pool {
            let d = self.dim;
            for (at, (side, (name, rank))) in
                ["q_landmarks", "k_landmarks"].iter().flat_map(|side| LEARNED.map(|l| (side, l))).enumerate()
            {
                let values = random(20 + at as u32, d.pow(rank as u32)).into_iter().enumerate();
                let identity =
                    |i: usize| f64::from(u8::from(name == "norm.weight" || rank == 2 && i.is_multiple_of(d + 1)));
                let values = values.map(|(i, x)| f64::from((identity(i) + 0.3 * x) as f32)).collect();
                case = case.parameter(format!("{side}.{name}"), &vec![d; rank][..], values);
            }
        }
        case
    }

    pub(super) fn record(&self, tape: &mut Tape<'_>, x: &[Tensor]) -> Tensor {
        let qkv = Qkv { q: x[0], k: x[1], v: x[2] };
        mechanism(&self.config()).attend(tape, qkv, &self.context(x.get(3).copied()))
    }
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(R::of(0.0), |sum, (&a, &b)| sum + a * b)
}

/// phi(x, w) = s w.x - (s / 2) |x|^2
fn phi<R: Real>(x: &[R], w: &[R]) -> R {
    R::of(1.0 / (x.len() as f64).sqrt()) * (dot(x, w) - R::of(0.5) * dot(x, x))
}

/// LN(Linear(x)) of rows, with weight, bias, gain and shift.
fn project<R: Real>(x: &[R], dim: usize, p: &[Vec<R>]) -> Vec<R> {
    let mut y = Vec::new();
    for row in x.chunks(dim) {
        let linear: Vec<R> = (0..dim).map(|o| dot(row, &p[0][o * dim..(o + 1) * dim]) + p[1][o]).collect();
        let mean = linear.iter().fold(R::of(0.0), |sum, &x| sum + x) / R::of(dim as f64);
        let variance = linear.iter().fold(R::of(0.0), |s, &x| s + (x - mean) * (x - mean)) / R::of(dim as f64);
        let deviation = (variance + R::of(1e-5)).sqrt();
        y.extend((0..dim).map(|i| (linear[i] - mean) / deviation * p[2][i] + p[3][i]));
    }
    y
}

/// What a head sees: tokens and landmarks as rows.
struct Head<'a, R> {
    q: Vec<&'a [R]>,
    k: Vec<&'a [R]>,
    v: Vec<&'a [R]>,
    queries: Vec<&'a [R]>,
    means: Vec<Vec<R>>,
    samples: Vec<Vec<R>>,
}

impl<R: Real> Head<'_, R> {
    /// f(w_c) and log-sum-exp of the keys' features (spec 1.4).
    fn seen(&self, w: &[R]) -> (Vec<R>, R) {
        let logits: Vec<R> = self.k.iter().map(|k| phi(k, w)).collect();
        let lse = super::lse(&logits);
        let mut f = vec![R::of(0.0); w.len()];
        for (&l, v) in logits.iter().zip(&self.v) {
            f.iter_mut().zip(*v).for_each(|(f, &v)| *f += (l - lse).exp() * v);
        }
        (f, lse)
    }

    /// Output rows, mis-opt.
    fn attend(&self, alpha: f64) -> Vec<R> {
        let count = self.samples.len();
        let scale = R::of(1.0 / (self.q[0].len() as f64).sqrt());
        let seen: Vec<(Vec<R>, R)> = self.samples.iter().map(|w| self.seen(w)).collect();
        let m: Vec<Vec<R>> = self.samples.iter().map(|w| self.means.iter().map(|mu| phi(mu, w)).collect()).collect();
        let normaliser = |c: usize| self.q.iter().map(|q| scale * dot(self.queries[c], q)).collect::<Vec<R>>();
        let tlse: Vec<R> = (0..count).map(|c| super::lse(&normaliser(c))).collect();
        let mut out = Vec::new();
        for q in &self.q {
            let t: Vec<R> = (0..count).map(|c| (scale * dot(self.queries[c], q) - tlse[c]).exp()).collect();
            let mean = t.iter().fold(R::of(0.0), |sum, &t| sum + t) / R::of(count as f64);
            let logit = |c: usize| {
                let a = (m[c][c] - super::lse(&m[c])).exp() + R::of(alpha) * (t[c] - mean);
                let a = if a.value() > 1e-8 { a } else { R::of(1e-8) };
                a.ln() + phi(q, &self.samples[c]) + seen[c].1 - m[c][c]
            };
            let logits: Vec<R> = (0..count).map(logit).collect();
            let total = super::lse(&logits);
            let weights: Vec<R> = logits.iter().map(|&l| (l - total).exp()).collect();
            out.extend((0..q.len()).map(|d| (0..count).fold(R::of(0.0), |sum, c| sum + weights[c] * seen[c].0[d])));
        }
        out
    }
}

impl Reference for Lara {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let (d, count) = (self.dim, self.pooling().landmarks());
        let landmarks = |i: usize| pool(self.pooling(), self.prefix, [self.tokens, d], &x[i]);
        let (mut queries, mut keys) = (landmarks(0), landmarks(1));
        if self.proposal_gen == ProposalGen::Pool {
            let learned = &x[x.len() - 8..];
            queries = project(&queries, d, &learned[..4]);
            keys = project(&keys, d, &learned[4..]);
        }
        let means: Vec<R> = queries.iter().zip(&keys).map(|(&q, &k)| q + k).collect();
        let noise = |i: usize| R::of(self.noise.get(i).copied().unwrap_or(0.0));
        let samples: Vec<R> = means.iter().enumerate().map(|(i, &mu)| mu + noise(i)).collect();
        let mut out = Vec::new();
        for z in 0..self.batch * self.heads {
            let tokens =
                |x: &'_ [R]| -> std::ops::Range<usize> { z * self.len() * d..((z + 1) * self.len() * d).min(x.len()) };
            let rows = |x: &[R]| x.chunks(d).map(<[R]>::to_vec).collect::<Vec<_>>();
            let own = z * count * d..(z + 1) * count * d;
            let head = Head {
                q: x[0][tokens(&x[0])].chunks(d).collect(),
                k: x[1][tokens(&x[1])].chunks(d).collect(),
                v: x[2][tokens(&x[2])].chunks(d).collect(),
                queries: queries[own.clone()].chunks(d).collect(),
                means: rows(&means[own.clone()]),
                samples: rows(&samples[own]),
            };
            out.extend(head.attend(f64::from(self.alpha)));
        }
        vec![out]
    }
}

fn compare(lara: &Lara) {
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![lara.record(tape, x)];
    check(&lara.case(&build), lara, VARIANTS);
}

#[test]
fn matches_on_grids() {
    let mut cases = vec![
        Lara::on_grid([1, 1, 1], [1, 1], 1),
        Lara::on_grid([2, 2, 8], [4, 4], 4),
        Lara::on_grid([1, 3, 5], [5, 3], 5),
        Lara::on_grid([1, 2, 16], [7, 7], 9),
        Lara { prefix: 1, ..Lara::on_grid([2, 1, 8], [6, 5], 10) },
        Lara { alpha: 4.0, ..Lara::on_grid([1, 2, 4], [4, 4], 16) },
        Lara::on_grid([1, 1, 3], [2, 3], 16),
    ];
    let learned: Vec<Lara> = cases.iter().map(|l| Lara { proposal_gen: ProposalGen::Pool, ..l.clone() }).collect();
    cases.extend(learned.into_iter().filter(|l| l.dim > 1));
    cases.iter().for_each(compare);
}

#[test]
fn matches_on_sequences() {
    for (shape, landmarks, prefix) in [
        ([1, 1, 1, 3], 1, 0),
        ([2, 2, 18, 8], 4, 0),
        ([1, 3, 13, 5], 16, 0),
        ([2, 1, 65, 4], 7, 1),
        ([1, 1, 33, 17], 1, 2),
    ] {
        compare(&Lara { prefix, ..Lara::new(shape, landmarks) });
        compare(&Lara { prefix, alpha: 2.0, proposal_gen: ProposalGen::Pool, ..Lara::new(shape, landmarks) });
    }
}

#[test]
fn matches_with_given_noise() {
    for proposal_gen in [ProposalGen::Pool, ProposalGen::NoParamPool] {
        let mut lara = Lara { proposal_gen, ..Lara::on_grid([2, 2, 8], [4, 4], 4) };
        lara.noise = random(9, lara.noise_len());
        compare(&lara);
    }
}

/// In training the noise comes from the generator: the recording's first stream, of the standard deviation asked for.
#[test]
fn draws_its_noise_while_training() {
    let header = Header { step: 3, seed: [5, 6], ..Header::default() };
    for (noise, std) in [(Noise::Released, 1.0), (Noise::Exact, 8.0_f64.powf(0.25)), (Noise::None, 0.0)] {
        let mut lara = Lara { proposal_gen: ProposalGen::Pool, ..Lara::on_grid([2, 2, 8], [4, 4], 4) };
        let config = AttentionConfig { noise, ..lara.config() };
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let qkv = Qkv { q: x[0], k: x[1], v: x[2] };
            vec![mechanism(&config).attend(tape, qkv, &Context { grid: Some([4, 4]), ..Context::default() })]
        };
        let case = lara.case(&build).mode(Mode::Train { accumulate: false }).header(header);
        let drawn = super::noise::host_noise(header, 1, lara.noise_len());
        lara.noise = drawn.into_iter().map(|e| std * e).collect();
        let want = lara.eval(&case.values());
        assert_close(&format!("{noise:?}"), &want[0], &run(&case, &[], 1).outputs[0], 2e-5);
    }
}

fn golden_parameters(case: Case<'_>) -> Case<'_> {
    let mut case = case;
    for (side, phase) in [("q_landmarks", 0.0), ("k_landmarks", 0.6)] {
        let weight = |i: usize| {
            let (o, i) = ((i / 8) as f64, (i % 8) as f64);
            f64::from(u8::from(o == i)) + 0.1 * (0.9 * o + 0.4 * i + phase).sin()
        };
        let eight = |f: &dyn Fn(f64) -> f64| (0..8).map(|j| f(f64::from(j))).collect::<Vec<f64>>();
        case = case
            .parameter(format!("{side}.linear.weight"), [8, 8], (0..64).map(weight).collect())
            .parameter(format!("{side}.linear.bias"), [8], eight(&|o| 0.05 * (o + phase).cos()))
            .parameter(format!("{side}.norm.weight"), [8], eight(&|j| 1.0 + 0.1 * (j + phase).sin()))
            .parameter(format!("{side}.norm.bias"), [8], eight(&|j| 0.02 * j - 0.05));
    }
    case
}

/// The outputs of the authors' code in float64.
#[test]
fn gives_the_golden_values() {
    let golden = Golden::load();
    let lara = |proposal_gen, alpha_coeff| AttentionConfig {
        mechanism: MechanismKind::Lara,
        num_landmarks: 4,
        proposal_gen,
        alpha_coeff,
        ..AttentionConfig::default()
    };
    let (plain, learned) = (ProposalGen::NoParamPool, ProposalGen::Pool);
    let softmax = AttentionConfig { mechanism: MechanismKind::Softmax, ..AttentionConfig::default() };
    for (name, config, noisy) in [
        ("softmax", softmax, false),
        ("lara2d_mis-opt_no-param-pool_a1.0_eval", lara(plain, 1.0), false),
        ("lara2d_mis-opt_no-param-pool_a2.0_eval", lara(plain, 2.0), false),
        ("lara2d_mis-opt_pool_a1.0_eval", lara(learned, 1.0), false),
        ("lara2d_mis-opt_pool_a2.0_eval", lara(learned, 2.0), false),
        ("lara2d_mis-opt_pool_a1.0_train_single", lara(learned, 1.0), true),
    ] {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let context = Context { grid: Some([4, 4]), prefix: 0, noise: x.get(3).copied() };
            let out = mechanism(&config).attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &context);
            vec![tape.apply(JoinHeads, &[out])]
        };
        let mut case = Case::new(name, &build);
        for values in golden_inputs(16) {
            case = case.constant([2, 2, 16, 8], values);
        }
        if noisy {
            let noise = (0..128).map(|i| 2.0_f64.sqrt() * (2.399 * f64::from(i) + 0.3).sin()).collect();
            case = case.constant([2, 2, 4, 8], noise);
        }
        if config.mechanism == MechanismKind::Lara && config.proposal_gen == learned {
            case = golden_parameters(case);
        }
        for preferred in VARIANTS {
            let outputs = run(&case.clone().mode(Mode::Eval), preferred, 1).outputs;
            assert_close(&format!("{name} {preferred:?}"), golden.case(name), &outputs[0], 2e-5);
        }
    }
}
