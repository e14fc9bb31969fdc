//! What a viewer shows is the implied attention matrix: the rows that come out of the gradient of the values are those of
//! [`lara_runtime::attention::Attention::weights`], for every mechanism.

use lara_runtime::attention::{
    AttentionConfig, Context, FeatureMap, Grid, MechanismKind, MisType, PoolModule, ProposalGen, Qkv, mechanism,
};
use lara_runtime::maps::{collect_rows, select_rows};
use lara_runtime::{Header, Mode, Parameters, Plan, Role, Tape, Tensor};
use lara_tests::{adapter, assert_close, random, tune};

/// One mechanism on tokens of one size.
struct Shown {
    config: AttentionConfig,
    heads: usize,
    queries: usize,
    keys: usize,
    dim: usize,
    grid: Grid,
    prefix: usize,
    /// Every third key is padding.
    padded: bool,
}

impl Shown {
    /// Three heads on a grid of 4 x 3 with a class token.
    fn new(config: AttentionConfig) -> Shown {
        let (heads, queries, dim, grid) = (3, 13, 5, Grid::Plane([4, 3]));
        Shown { config, heads, queries, keys: queries, dim, grid, prefix: 1, padded: false }
    }

    fn sequence(self, heads: usize, [queries, keys, dim]: [usize; 3]) -> Shown {
        Shown { heads, queries, keys, dim, grid: Grid::Sequence, prefix: 0, ..self }
    }

    fn name(&self) -> String {
        let Shown { heads, queries, keys, dim, padded, .. } = self;
        format!("{:?} {heads} x {queries} x {keys} x {dim}, padded {padded}", self.config)
    }

    /// The context's tensors and their values.
    fn context(&self, tape: &mut Tape<'_>) -> (Context, Vec<(Tensor, Vec<f64>)>) {
        let Shown { heads, queries, keys, dim, .. } = *self;
        let mut context = Context { grid: self.grid, prefix: self.prefix, ..Context::default() };
        let mut given = Vec::new();
        let samples = usize::try_from(self.config.num_samples).unwrap_or(0);
        match self.config.mechanism {
            MechanismKind::Ra if samples > 0 => {
                let index = tape.input("index", [1, heads, queries * samples]);
                given.push((index, (0..index.len()).map(|i| ((5 * i + 3) % keys) as f64).collect()));
                let noise = tape.input("noise", [1, heads, queries * samples, dim]);
                given.push((noise, random(9, noise.len())));
                (context.index, context.noise) = (Some(index), Some(noise));
            }
            MechanismKind::Rfa | MechanismKind::Performer => {
                let projection = tape.input("projection", [heads, self.config.features, dim]);
                given.push((projection, sized(8, 1.5, projection.len())));
                context.projection = Some(projection);
            }
            _ => {}
        }
        if self.padded {
            let mask = tape.input("mask", [1, keys]);
            given.push((mask, (0..keys).map(|m| f64::from(u8::from(m % 3 == 1))).collect()));
            context.key_padding_mask = Some(mask);
        }
        (context, given)
    }

    /// Two queries, their difference and the mean over all of them, as far as there are channels.
    fn select(&self) -> Vec<Vec<f64>> {
        let one = |at: usize| (0..self.queries).map(|n| f64::from(u8::from(n == at))).collect::<Vec<f64>>();
        let (first, last) = (one(0), one(self.queries - 1));
        let difference = first.iter().zip(&last).map(|(a, b)| a - b).collect();
        let mean = vec![1.0 / self.queries as f64; self.queries];
        [last, mean, first, difference].into_iter().take(self.dim).collect()
    }

    /// Rows by the gradient [R, heads + 1, M] and the implied matrix [heads, N, M].
    fn run(&self, preferred: &[&str]) -> [Vec<f64>; 2] {
        let Shown { heads, queries, keys, dim, .. } = *self;
        let gpu = adapter();
        let mut parameters = Parameters::new(gpu);
        let mut tape = Tape::new(&mut parameters, &tune(preferred), Mode::Differentiate);
        let [q, k] = [("q", queries), ("k", keys)].map(|(label, n)| tape.input(label, [1, heads, n, dim]));
        let v = tape.variable("v", [1, heads, keys, dim]);
        let (context, mut given) = self.context(&mut tape);
        given.extend([(q, 1), (k, 2), (v, 3)].map(|(x, seed)| (x, sized(seed, 1.5, x.len()))));
        let selected = self.select();
        let select = tape.input("select", [selected.len(), queries]);
        given.push((select, selected.concat()));
        let attention = mechanism(&self.config).unwrap();
        let out = attention.attend(&mut tape, Qkv { q, k, v }, &context);
        let dout = tape.rec.scratch("dout", out.shape());
        select_rows(&mut tape.rec, select, dout);
        tape.backward(&[(out, dout)]);
        let rows = tape.rec.pinned("rows", [selected.len(), heads + 1, keys]);
        let dv = tape.gradient(v).expect("an output depends on its values");
        collect_rows(&mut tape.rec, dv, rows);
        let weights = attention.weights(&mut tape, Qkv { q, k, v }, &context);
        tape.rec.pin(weights);
        let rec = tape.finish().unwrap_or_else(|e| panic!("{}: {e}", self.name()));
        parameters.allocate_blocking(gpu, &[Role::Weight, Role::Grad]).unwrap();
        parameters.initialize(gpu, 7).unwrap();
        let plan = Plan::compile_blocking(gpu, rec, &parameters).unwrap_or_else(|e| panic!("{}: {e}", self.name()));
        plan.poison();
        for (tensor, values) in &given {
            plan.write(*tensor, &values.iter().map(|&x| x as f32).collect::<Vec<f32>>()).unwrap();
        }
        plan.run().header(Header::default()).steps().submit().unwrap_or_else(|e| panic!("{}: {e}", self.name()));
        [rows, weights].map(|t| plan.read_blocking(t).expect("a pinned tensor").into_iter().map(f64::from).collect())
    }

    fn check(&self) {
        for preferred in crate::attention::attend::VARIANTS {
            let name = format!("{} {preferred:?}", self.name());
            let [got, weights] = self.run(preferred);
            let size = self.queries * self.keys;
            let mut want = Vec::new();
            for select in self.select() {
                let row = |head: usize, key: usize| {
                    select.iter().enumerate().map(|(n, s)| s * weights[head * size + n * self.keys + key]).sum::<f64>()
                };
                for head in 0..self.heads {
                    want.extend((0..self.keys).map(|key| row(head, key)));
                }
                let mean = |key| (0..self.heads).map(|head| row(head, key)).sum::<f64>() / self.heads as f64;
                want.extend((0..self.keys).map(mean));
            }
            assert!(want.iter().any(|&w| w.abs() > 1e-3), "{name}: nothing to compare: {want:?}");
            assert_close(&name, &want, &got, 1e-5);
        }
    }
}

fn sized(seed: u32, size: f64, len: usize) -> Vec<f64> {
    random(seed, len).into_iter().map(|x| size * x).collect()
}

/// On a grid with a class token, on sequences (one token; lengths around a tile; more keys than queries), with padding.
fn check_all(config: &AttentionConfig) {
    let shown = || Shown::new(config.clone());
    shown().check();
    Shown { padded: true, ..shown().sequence(2, [11, 11, 4]) }.check();
    for (heads, sizes) in [(1, [1, 1, 1]), (2, [65, 65, 8]), (1, [7, 33, 3])] {
        shown().sequence(heads, sizes).check();
    }
}

#[test]
fn softmax_shows_its_matrix() {
    check_all(&AttentionConfig { mechanism: MechanismKind::Softmax, ..AttentionConfig::default() });
    check_all(&AttentionConfig { mechanism: MechanismKind::Softmax, causal: true, ..AttentionConfig::default() });
}

/// Every weighting with every generator whose landmarks do not depend on the values.
#[test]
fn lara_shows_its_implied_matrix() {
    for mis_type in [MisType::MisOpt, MisType::MisBh, MisType::MisBiased] {
        let config = AttentionConfig { num_landmarks: 4, mis_type, alpha_coeff: 2.0, ..AttentionConfig::default() };
        for proposal_gen in [ProposalGen::NoParamPool, ProposalGen::NoParamPoolMixed] {
            check_all(&AttentionConfig { proposal_gen, ..config.clone() });
        }
        for proposal_gen in [ProposalGen::Pool, ProposalGen::PoolMixed, ProposalGen::Adaptive1d] {
            Shown::new(AttentionConfig { proposal_gen, ..config.clone() }).check();
        }
        Shown::new(AttentionConfig { pool_module_type: PoolModule::Dense, ..config }).check();
    }
}

#[test]
fn ra_shows_its_implied_matrix() {
    for num_samples in [-1, 0, 1, 3] {
        check_all(&AttentionConfig { mechanism: MechanismKind::Ra, num_samples, ..AttentionConfig::default() });
    }
}

#[test]
fn rfa_shows_its_implied_matrix() {
    for features in [1, 7, 64] {
        check_all(&AttentionConfig { mechanism: MechanismKind::Rfa, features, ..AttentionConfig::default() });
    }
}

/// Weights of `fourier` may be negative, and rows need not sum to 1: they are shown as they are.
#[test]
fn performer_shows_its_implied_matrix() {
    for kernel in [FeatureMap::Favorp, FeatureMap::Relu, FeatureMap::ReluOnly, FeatureMap::SigmoidOnly] {
        let config =
            AttentionConfig { mechanism: MechanismKind::Performer, kernel, features: 12, ..Default::default() };
        check_all(&config);
        check_all(&AttentionConfig { cos_weighting: true, ..config });
    }
    let config = AttentionConfig { mechanism: MechanismKind::Performer, features: 20, ..Default::default() };
    for kernel in [FeatureMap::Fourier, FeatureMap::Dpfp, FeatureMap::MlpFourier] {
        Shown::new(AttentionConfig { kernel, ..config.clone() }).check();
    }
}
