use lara_runtime::attention::{AttentionConfig, Context, MechanismKind, NoiseScale, Padding, Qkv, mechanism};
use lara_runtime::{Header, Mode, Parameters, Plan, Role, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, assert_close, check, random, run, tune};

use super::attend::{Exact, Sizes, VARIANTS};
use super::draw_keys::{host_key, host_softmax, host_uniforms};

/// One way to use RA, and its reference.
#[derive(Clone, Debug)]
struct Ra {
    sizes: Sizes,
    num_samples: i32,
    /// [batch, M], 1 = padding; or nothing.
    padding: Vec<f64>,
    /// [batch, heads, N S], or nothing where no key is drawn.
    index: Vec<f64>,
    /// [batch, heads, N S, D], or nothing.
    noise: Vec<f64>,
}

impl Ra {
    /// With an index where one is needed.
    fn new(shape: [usize; 5], num_samples: i32) -> Ra {
        let sizes = Sizes::new(shape);
        let samples = usize::try_from(num_samples).unwrap_or(0);
        let count = sizes.batch * sizes.heads * sizes.n * samples;
        let index = (0..count).map(|i| ((5 * i + 3) % sizes.m) as f64).collect();
        Ra { sizes, num_samples, padding: vec![], index, noise: vec![] }
    }

    fn noisy(self) -> Ra {
        let rows = self.sizes.batch * self.sizes.heads * self.sizes.n * self.samples();
        Ra { noise: random(9, rows * self.sizes.d), ..self }
    }

    /// Every third key of every sample is padding, in the last sample every key.
    fn padded(self) -> Ra {
        let Sizes { batch, m, .. } = self.sizes;
        let is_padding = |i: usize| i / m + 1 == batch || i % m % 3 == 1;
        Ra { padding: (0..batch * m).map(|i| f64::from(u8::from(is_padding(i)))).collect(), ..self }
    }

    fn samples(&self) -> usize {
        usize::try_from(self.num_samples).unwrap_or(1).max(1)
    }

    fn config(&self) -> AttentionConfig {
        let num_samples = self.num_samples;
        // What `exact` means is in padding.rs: the same without the padded tokens.
        let padding = Padding::Released;
        AttentionConfig { mechanism: MechanismKind::Ra, num_samples, padding, ..AttentionConfig::default() }
    }

    /// q, k, v and what is given besides.
    fn case<'a>(&self, build: lara_tests::Build<'a>) -> Case<'a> {
        let Sizes { batch, heads, n, m, d } = self.sizes;
        let mut case = self.sizes.case(&format!("ra {}", self.num_samples), 1.5, build).tolerance(2e-5);
        if !self.padding.is_empty() {
            case = case.constant([batch, m], self.padding.clone());
        }
        if !self.index.is_empty() {
            case = case.constant([batch, heads, n * self.samples()], self.index.clone());
        }
        if !self.noise.is_empty() {
            case = case.constant([batch, heads, n * self.samples(), d], self.noise.clone());
        }
        case
    }

    /// Attention's inputs out of the case's.
    fn given(&self, x: &[Tensor]) -> (Qkv, Context) {
        let mut more = x[3..].iter().copied();
        let mut next = |is_given: bool| if is_given { more.next() } else { None };
        let context = Context {
            key_padding_mask: next(!self.padding.is_empty()),
            index: next(!self.index.is_empty()),
            noise: next(!self.noise.is_empty()),
            ..Context::default()
        };
        (Qkv { q: x[0], k: x[1], v: x[2] }, context)
    }

    fn record(&self, tape: &mut Tape<'_>, x: &[Tensor]) -> Tensor {
        let (qkv, context) = self.given(x);
        mechanism(&self.config()).unwrap().attend(tape, qkv, &context)
    }

    /// Whether key m of matrix z is padding.
    fn hides(&self, z: usize, m: usize) -> bool {
        !self.padding.is_empty() && self.padding[z / self.sizes.heads * self.sizes.m + m] != 0.0
    }

    /// mu of query n for sample s of matrix z, from the keys that can be seen.
    fn mean<R: Real>(&self, z: usize, row: usize, q: &[R], k: &[Vec<R>]) -> Vec<R> {
        let dot = |a: &[R], b: &[R]| a.iter().zip(b).fold(R::of(0.0), |sum, (&a, &b)| sum + a * b);
        let seen: Vec<&Vec<R>> = (0..self.sizes.m).filter(|&m| !self.hides(z, m)).map(|m| &k[m]).collect();
        let shares: Vec<R> = match self.num_samples {
            0 => vec![R::of(1.0 / seen.len() as f64); seen.len()],
            -1 => {
                let logits: Vec<R> = seen.iter().map(|k| R::of(f64::from(self.sizes.scale())) * dot(q, k)).collect();
                let total = if seen.is_empty() { R::of(0.0) } else { super::lse(&logits) };
                logits.iter().map(|&l| (l - total).exp()).collect()
            }
            _ => {
                let key = &k[self.index[z * self.sizes.n * self.samples() + row] as usize];
                return q.iter().zip(key).map(|(&q, &k)| q + k).collect();
            }
        };
        let mean = |d: usize| seen.iter().zip(&shares).fold(R::of(0.0), |sum, (k, &p)| sum + p * k[d]);
        (0..q.len()).map(|d| q[d] + mean(d)).collect()
    }
}

impl Reference for Ra {
    /// out_n = mean over s of sum_m softmax_m(s w_ns.k_m - (s / 2)|k_m|^2) v_m.
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let (Sizes { batch, heads, n, m, d }, samples) = (self.sizes, self.samples());
        let scale = f64::from(self.sizes.scale());
        let exact = Exact { queries: n * samples, keys: m, dim: d, scale };
        let noise = |i: usize| R::of(self.noise.get(i).copied().unwrap_or(0.0));
        let mut out = Vec::new();
        for z in 0..batch * heads {
            let of = |x: &[R], len: usize| x[z * len * d..(z + 1) * len * d].to_vec();
            let (q, k, v) = (of(&x[0], n), of(&x[1], m), of(&x[2], m));
            let keys: Vec<Vec<R>> = k.chunks(d).map(<[R]>::to_vec).collect();
            let mut w = Vec::new();
            for row in 0..n * samples {
                let mean = self.mean(z, row, &q[row / samples * d..][..d], &keys);
                w.extend(mean.iter().enumerate().map(|(i, &mu)| mu + noise((z * n * samples + row) * d + i)));
            }
            let norm = |k: &Vec<R>| k.iter().fold(R::of(0.0), |sum, &k| sum + k * k);
            let bias = keys.iter().enumerate().map(|(m, k)| match self.hides(z, m) {
                true => R::of(-1e30),
                false => R::of(-scale / 2.0) * norm(k),
            });
            let seen = exact.eval(&[w, k.clone(), v, bias.collect()]).swap_remove(0);
            for rows in seen.chunks(samples * d) {
                let sum = |i: usize| (0..samples).fold(R::of(0.0), |sum, s| sum + rows[s * d + i]);
                out.extend((0..d).map(|i| sum(i) / R::of(samples as f64)));
            }
        }
        vec![out]
    }
}

const SHAPES: [[usize; 5]; 7] = [
    [1, 1, 1, 1, 1],
    [2, 2, 16, 16, 8],
    [2, 3, 5, 9, 7],
    [3, 1, 9, 4, 3],
    [1, 2, 1, 65, 4],
    [2, 1, 65, 1, 5],
    [1, 1, 66, 130, 16],
];

fn compare(ra: &Ra) {
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![ra.record(tape, x)];
    check(&ra.case(&build), ra, VARIANTS);
}

#[test]
fn centres_on_the_mean_key() {
    SHAPES.iter().for_each(|&shape| compare(&Ra::new(shape, 0)));
    compare(&Ra::new(SHAPES[2], 0).noisy());
}

#[test]
fn centres_on_the_softmax_mean_of_the_keys() {
    SHAPES.iter().for_each(|&shape| compare(&Ra::new(shape, -1)));
    compare(&Ra::new(SHAPES[2], -1).noisy());
}

#[test]
fn centres_on_given_keys() {
    for shape in SHAPES {
        compare(&Ra::new(shape, 1).noisy());
        compare(&Ra::new(shape, 3).noisy());
    }
    compare(&Ra::new(SHAPES[1], 4));
}

/// The last sample sees no key: zeros, and nothing that is no number, in both directions.
#[test]
fn padded_keys_are_not_seen() {
    for num_samples in [0, -1, 1, 3] {
        for shape in [[2, 2, 16, 16, 8], [2, 3, 5, 9, 7], [3, 1, 9, 4, 3], [1, 1, 1, 1, 1]] {
            let ra = Ra::new(shape, num_samples).padded();
            compare(&ra);
            compare(&ra.clone().noisy());
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![ra.record(tape, x)];
            let result = run(&ra.case(&build), &[], 1);
            let last = result.outputs[0].len() / shape[0] * (shape[0] - 1);
            assert!(result.outputs[0][last..].iter().all(|&y| y == 0.0), "{ra:?}: {:?}", &result.outputs[0][last..]);
            assert!(result.gradients.iter().flatten().all(|g| g.is_finite()), "{ra:?}: {:?}", result.gradients);
        }
    }
}

/// Without an index padding is never drawn, and a query without keys draws none that shows.
#[test]
fn padded_keys_are_not_drawn() {
    let mut ra = Ra::new([3, 2, 5, 7, 4], 2).padded();
    ra.index.clear();
    let header = Header { step: 1, seed: [3, 4], ..Header::default() };
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![ra.record(tape, x)];
    let case = ra.case(&build).header(header);
    for preferred in VARIANTS {
        let result = run(&case, preferred, 1);
        assert!(result.outputs[0][80..].iter().all(|&y| y == 0.0), "{:?}", &result.outputs[0][80..]);
        assert!(result.gradients.iter().flatten().all(|g| g.is_finite()), "{:?}", result.gradients);
        let drawn = Ra { index: host_index(&ra, &case.values(), header, OF_SCOPE, false), ..ra.clone() };
        assert_close("masked draw", &drawn.eval(&case.values())[0], &result.outputs[0], 2e-5);
    }
}

/// What stream `stream` draws; only while training does the place in the batch count.
fn host_index(ra: &Ra, x: &[Vec<f64>], header: Header, stream: u32, by_batch: bool) -> Vec<f64> {
    let rows = host_softmax(&ra.sizes, &x[0], &x[1], &|z, m| ra.hides(z, m));
    let samples = ra.samples();
    let draws = rows.len() * samples;
    let numbers = if by_batch { draws } else { draws / ra.sizes.batch };
    let key = |draw: usize| host_key(&rows[draw / samples], host_uniforms(header, stream, draw % numbers)) as f64;
    (0..draws).map(key).collect()
}

/// The stream of draws outside training: that of the scope without a name (FNV-1a of nothing).
const OF_SCOPE: u32 = 0x811c_9dc5;

/// While training keys come from the recording's first stream and noise from the second; else keys from the scope's.
#[test]
fn draws_its_keys_always_and_its_noise_while_training() {
    let header = Header { step: 3, seed: [5, 6], ..Header::default() };
    let training = Mode::Train { accumulate: false };
    for (mode, noise, std) in [
        (training, NoiseScale::Released, 1.0),
        (training, NoiseScale::Exact, 8.0_f64.powf(0.25)),
        (training, NoiseScale::None, 0.0),
        (Mode::Eval, NoiseScale::Exact, 0.0),
        (Mode::Differentiate, NoiseScale::Released, 0.0),
    ] {
        let mut ra = Ra::new([2, 2, 9, 11, 8], 3);
        let config = AttentionConfig { noise, ..ra.config() };
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let qkv = Qkv { q: x[0], k: x[1], v: x[2] };
            vec![mechanism(&config).unwrap().attend(tape, qkv, &Context::default())]
        };
        ra.index.clear();
        let case = ra.case(&build).mode(mode).header(header);
        let stream = if mode == training { 1 } else { OF_SCOPE };
        ra.index = host_index(&ra, &case.values(), header, stream, mode == training);
        let drawn = super::noise::host_noise(header, 2, 2 * 2 * 9 * 3 * 8);
        ra.noise = drawn.into_iter().map(|e| std * e).collect();
        for preferred in VARIANTS {
            let got = run(&case, preferred, 1).outputs;
            assert_close(&format!("{mode:?} {noise:?}"), &ra.eval(&case.values())[0], &got[0], 2e-5);
        }
    }
}

/// The outputs of the authors' code in float64.
#[test]
fn gives_the_golden_values() {
    assert_eq!(lara_tests::check_golden("ra_"), 6);
}

/// Weights times values are the output; rows sum to 1, or to 0 where no key is seen.
#[test]
fn weights_are_those_of_the_output() {
    for num_samples in [0, -1, 1, 3] {
        for ra in [Ra::new([2, 2, 5, 9, 7], num_samples), Ra::new([2, 2, 5, 9, 7], num_samples).padded()] {
            let ra = ra.noisy();
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
                let (qkv, context) = ra.given(x);
                vec![ra.record(tape, x), mechanism(&ra.config()).unwrap().weights(tape, qkv, &context)]
            };
            let case = ra.case(&build).gradients_of(&[0]);
            let outputs = run(&case, &[], 1).outputs;
            let v = &case.values()[2];
            let mut product = Vec::new();
            for (row, weights) in outputs[1].chunks(9).enumerate() {
                let z = row / 5;
                let sum = f64::from(u8::from((0..9).any(|m| !ra.hides(z, m))));
                assert!((weights.iter().sum::<f64>() - sum).abs() < 1e-5, "{ra:?}: row {row}: {weights:?}");
                assert!((0..9).all(|m| !ra.hides(z, m) || weights[m] == 0.0), "{ra:?}: row {row}: {weights:?}");
                product.extend((0..7).map(|d| (0..9).map(|m| weights[m] * v[(z * 9 + m) * 7 + d]).sum::<f64>()));
            }
            assert_close(&format!("{ra:?}: weights times values"), &outputs[0], &product, 1e-5);
        }
    }
}

fn activation_bytes(preferred: &[&str], tokens: usize) -> u64 {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(preferred), Mode::Train { accumulate: false });
    let config = AttentionConfig { mechanism: MechanismKind::Ra, num_samples: 2, ..AttentionConfig::default() };
    let [q, k, v, dout] = ["q", "k", "v", "dout"].map(|label| tape.variable(label, [1, 2, tokens, 16]));
    let out = mechanism(&config).unwrap().attend(&mut tape, Qkv { q, k, v }, &Context::default());
    tape.backward(&[(out, dout)]);
    let rec = tape.finish().expect("attention can be recorded");
    parameters.allocate_blocking(adapter(), &[Role::Weight, Role::Grad]).unwrap();
    Plan::compile_blocking(adapter(), rec, &parameters).expect("attention compiles").memory().activations
}

#[test]
fn memory_grows_linearly_with_the_tokens() {
    for preferred in VARIANTS {
        let [few, many] = [2048, 8192].map(|tokens| activation_bytes(preferred, tokens));
        assert!(many <= 4 * few, "{preferred:?}: {few} bytes for 2,048 tokens and {many} for 8,192");
        let matrix = 8192 * 8192 * 4;
        assert!(many < matrix / 2, "{preferred:?}: {many} bytes are half an N x M matrix");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut parameters = Parameters::new(adapter());
    let (fine, short) = ([1, 2, 10, 4], [1, 2, 5, 4]);
    for (k, index, noise, said) in [
        (fine, [1, 2, 10], short, "the noise of ra has the shape [1, 2, 10, 4] here, not [1, 2, 5, 4]"),
        (fine, [1, 2, 5], fine, "an index of 2 drawn keys a query has the shape [1, 2, 10], not [1, 2, 5]"),
        ([1, 1, 9, 4], [1, 2, 10], fine, "queries [1, 2, 5, 4] and keys [1, 1, 9, 4] do not fit together"),
    ] {
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let [q, k, v, noise] = [[1, 2, 5, 4], k, k, noise].map(|shape| tape.input("x", shape));
        let context = Context { index: Some(tape.input("index", index)), noise: Some(noise), ..Context::default() };
        let config = AttentionConfig { mechanism: MechanismKind::Ra, num_samples: 2, ..AttentionConfig::default() };
        mechanism(&config).unwrap().attend(&mut tape, Qkv { q, k, v }, &context);
        assert_eq!(tape.finish().expect_err("this does not fit").to_string(), said);
    }
}
