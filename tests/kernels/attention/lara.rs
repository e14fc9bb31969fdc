use lara_runtime::attention::{
    AttentionConfig, Context, Grid, JoinHeads, MechanismKind, MisType, Noise, Padding, PoolModule, ProposalGen, Qkv,
    mechanism,
};
use lara_runtime::{Header, Mode, Parameters, Tape, Tensor};
use lara_tests::{Case, Golden, Reference, adapter, assert_close, check, golden_inputs, random, run, tune};

use super::attend::VARIANTS;
use super::lara_reference::Lara;

const GENERATORS: [ProposalGen; 6] = [
    ProposalGen::NoParamPool,
    ProposalGen::NoParamPoolMixed,
    ProposalGen::Pool,
    ProposalGen::PoolMixed,
    ProposalGen::PoolVmixed,
    ProposalGen::Adaptive1d,
];
const WEIGHTINGS: [MisType; 3] = [MisType::MisOpt, MisType::MisBh, MisType::MisBiased];

fn compare(lara: &Lara, variants: &[&[&str]]) {
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![lara.record(tape, x)];
    check(&lara.case(&build), lara, variants);
}

#[test]
fn matches_on_grids() {
    for (lara, alpha) in [
        (Lara::on_grid([1, 1, 1], [1, 1], 1), 1.0),
        (Lara::on_grid([2, 2, 8], [4, 4], 4), 1.0),
        (Lara::on_grid([1, 3, 5], [5, 3], 5), 2.0),
        (Lara { prefix: 1, ..Lara::on_grid([2, 1, 8], [6, 5], 10) }, 1.0),
        (Lara::on_grid([1, 2, 4], [4, 4], 16), 4.0),
        (Lara::on_grid([1, 1, 3], [2, 3], 16), 1.0),
    ] {
        compare(&lara.with(|c| c.alpha_coeff = alpha), VARIANTS);
        if lara.dim > 1 {
            compare(&lara.with(|c| (c.alpha_coeff, c.proposal_gen) = (alpha, ProposalGen::Pool)), VARIANTS);
        }
    }
}

/// Every generator with every weighting, on a grid that is not square and on a sequence.
#[test]
fn matches_with_every_generator_and_weighting() {
    for proposal_gen in GENERATORS {
        for mis_type in WEIGHTINGS {
            let settings = |c: &mut AttentionConfig| (c.proposal_gen, c.mis_type) = (proposal_gen, mis_type);
            compare(&Lara { prefix: 1, ..Lara::on_grid([1, 2, 5], [3, 4], 5) }.with(settings), &[&["slabs"]]);
            compare(&Lara::new([2, 1, 13, 4], 5).with(settings), &[&["streamed"]]);
        }
    }
}

#[test]
fn matches_across_heads() {
    for proposal_gen in [ProposalGen::Pool, ProposalGen::PoolVmixed] {
        let lara = Lara::on_grid([2, 3, 4], [4, 5], 4);
        let dense = lara.with(|c| (c.proposal_gen, c.pool_module_type) = (proposal_gen, PoolModule::Dense));
        compare(&dense, &[&[]]);
    }
}

#[test]
fn matches_on_videos() {
    for (grid, landmarks, prefix) in [([4, 4, 4], 8, 0), ([3, 5, 2], 27, 1), ([1, 3, 3], 9, 0)] {
        let tokens = grid.iter().product();
        let lara = Lara { grid: Grid::Volume(grid), prefix, ..Lara::new([1, 2, tokens, 4], landmarks) };
        compare(&lara, &[&[]]);
        compare(&lara.with(|c| c.proposal_gen = ProposalGen::PoolMixed), &[&[]]);
    }
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
        let lara = Lara { prefix, ..Lara::new(shape, landmarks) };
        compare(&lara, VARIANTS);
        compare(&lara.with(|c| (c.alpha_coeff, c.proposal_gen) = (2.0, ProposalGen::Adaptive1d)), VARIANTS);
    }
}

/// Queries and keys of different length; keys of a grid's queries count as a sequence.
#[test]
fn matches_between_sequences() {
    for (lara, keys) in [
        (Lara::new([2, 2, 9, 4], 4), 14),
        (Lara::new([1, 1, 20, 5], 6), 3),
        (Lara::new([1, 2, 1, 4], 6), 12),
        (Lara::on_grid([1, 2, 4], [4, 3], 4), 17),
    ] {
        for mis_type in WEIGHTINGS {
            compare(&Lara { keys: Some(keys), ..lara.with(|c| c.mis_type = mis_type) }, &[&[]]);
        }
        let learned = lara.with(|c| c.proposal_gen = ProposalGen::Adaptive1d);
        compare(&Lara { keys: Some(keys), grid: Grid::Sequence, ..learned }, &[&[]]);
    }
}

#[test]
fn matches_with_given_noise() {
    for mis_type in WEIGHTINGS {
        for (antithetics, multisample) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut lara = Lara::on_grid([2, 2, 8], [4, 4], 4).with(|c| {
                c.proposal_gen = ProposalGen::Pool;
                (c.mis_type, c.use_antithetics, c.use_multisample) = (mis_type, antithetics, multisample);
            });
            lara.noise = random(9, lara.noise_len());
            compare(&lara, &[&[]]);
        }
    }
}

#[test]
fn refuses_noise_of_another_shape() {
    for (antithetics, multisample, said) in [
        (false, false, "the noise of lara has the shape [1, 1, 4, 4] here, not [1, 1, 5, 4]"),
        (true, false, "the noise of lara has the shape [1, 1, 4, 4] here, not [1, 1, 5, 4]"),
        (false, true, "the noise of lara has the shape [1, 1, 8, 4] here, not [1, 1, 5, 4]"),
    ] {
        let lara = Lara { noise: vec![0.0], ..Lara::on_grid([1, 1, 4], [4, 4], 4) };
        let lara = lara.with(|c| (c.use_antithetics, c.use_multisample) = (antithetics, multisample));
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let [q, k, v] = ["q", "k", "v"].map(|name| tape.input(name, [1, 1, 16, 4]));
        let noise = tape.input("noise", [1, 1, 5, 4]);
        lara.record(&mut tape, &[q, k, v, noise]);
        assert_eq!(tape.finish().expect_err("five are not four").to_string(), said);
    }
}

/// The last tokens of the second sample, all of them, and some in the middle.
fn masks(keys: usize) -> [Vec<f64>; 3] {
    let mask = |padded: &dyn Fn(usize, usize) -> bool| {
        (0..2 * keys).map(|i| f64::from(u8::from(padded(i / keys, i % keys)))).collect()
    };
    [mask(&|b, n| b == 1 && n + 5 >= keys), mask(&|b, _| b == 1), mask(&|b, n| (n + b) % 3 == 1 || (b == 0 && n < 4))]
}

#[test]
fn matches_with_padded_tokens() {
    for mask in masks(16) {
        for mis_type in WEIGHTINGS {
            for (padding, proposal_gen) in [
                (Padding::Exact, ProposalGen::NoParamPool),
                (Padding::Exact, ProposalGen::Adaptive1d),
                (Padding::Released, ProposalGen::Adaptive1d),
            ] {
                let lara = Lara::new([2, 2, 16, 4], 5).with(|c| {
                    (c.mis_type, c.padding, c.proposal_gen) = (mis_type, padding, proposal_gen);
                });
                compare(&Lara { mask: mask.clone(), ..lara }, &[&[]]);
            }
        }
        let grid = Lara::on_grid([2, 2, 4], [3, 5], 4).with(|c| c.proposal_gen = ProposalGen::PoolVmixed);
        compare(&Lara { mask: mask.clone(), prefix: 1, ..grid }, &[&[]]);
        compare(&Lara { mask, keys: Some(16), ..Lara::new([2, 2, 7, 4], 5) }, &[&[]]);
    }
}

/// As many tokens as a 2048 x 2048 image has in patches of 8: forward and backward, with no N x N numbers anywhere.
#[test]
fn matches_for_65536_tokens() {
    let lara = Lara::on_grid([1, 1, 4], [256, 256], 49).with(|c| c.alpha_coeff = 2.0);
    compare(&lara, &[&[]]);
}

/// Logits of size 1e4: nothing overflows, forward or backward.
#[test]
fn huge_logits_stay_finite() {
    for mis_type in WEIGHTINGS {
        for proposal_gen in [ProposalGen::NoParamPool, ProposalGen::PoolMixed] {
            let settings = |c: &mut AttentionConfig| (c.mis_type, c.proposal_gen) = (mis_type, proposal_gen);
            let lara = Lara::on_grid([1, 2, 16], [5, 5], 9).with(settings);
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![lara.record(tape, x)];
            let mut case = lara.case(&build);
            for input in [0, 1] {
                let grown = case.values()[input].iter().map(|x| 120.0 * x).collect();
                case.set(input, grown);
            }
            for preferred in VARIANTS {
                let result = run(&case, preferred, 1);
                for (i, values) in result.outputs.iter().chain(&result.gradients).enumerate() {
                    let bad = values.iter().position(|x| !x.is_finite());
                    assert!(bad.is_none(), "{mis_type:?} {proposal_gen:?} {preferred:?}: {bad:?} of tensor {i}");
                }
                assert!(result.outputs[0].iter().all(|x| x.abs() < 1.501), "{mis_type:?} {preferred:?}");
            }
        }
    }
}

/// In training the noise comes from the generator: the recording's first stream, of the standard deviation asked for.
#[test]
fn draws_its_noise_while_training() {
    let header = Header { step: 3, seed: [5, 6], ..Header::default() };
    for (noise, std) in [(Noise::Released, 1.0), (Noise::Exact, 8.0_f64.powf(0.25)), (Noise::None, 0.0)] {
        for (antithetics, multisample) in [(false, false), (true, false), (false, true)] {
            let mut lara = Lara::on_grid([2, 2, 8], [4, 4], 4).with(|c| {
                c.proposal_gen = ProposalGen::Pool;
                (c.noise, c.use_antithetics, c.use_multisample) = (noise, antithetics, multisample);
            });
            let drawing = lara.clone();
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![drawing.record(tape, x)];
            let case = drawing.case(&build).mode(Mode::Train { accumulate: false }).header(header);
            let drawn = super::noise::host_noise(header, 1, lara.noise_len());
            lara.noise = drawn.into_iter().map(|e| std * e).collect();
            let want = lara.eval(&case.values());
            let name = format!("{noise:?} antithetics {antithetics} multisample {multisample}");
            assert_close(&name, &want[0], &run(&case, &[], 1).outputs[0], 2e-5);
        }
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

/// A golden case, read from its name: `lara2d_<mis>_<proposals>_a<alpha>_<mode>` or `lara1d_n<N>_<mis>_<mask>_eval`.
struct GoldenCase {
    config: AttentionConfig,
    tokens: usize,
    grid: Grid,
    noisy: bool,
    padded: bool,
}

impl GoldenCase {
    fn parse(name: &str) -> GoldenCase {
        let parts: Vec<&str> = name.split('_').collect();
        let mut config = AttentionConfig { mechanism: MechanismKind::Lara, num_landmarks: 4, ..Default::default() };
        config.padding = Padding::Released;
        let named = |text: &str| serde_json::Value::String(text.to_owned());
        let on_grid = parts[0] == "lara2d";
        let [mis, proposals] = if on_grid { [parts[1], parts[2]] } else { [parts[2], "adaptive-1d"] };
        config.mis_type = serde_json::from_value(named(mis)).expect("a weighting");
        config.proposal_gen = serde_json::from_value(named(proposals)).expect("a generator");
        if on_grid {
            config.alpha_coeff = parts[3][1..].parse().expect("alpha");
        }
        config.use_antithetics = name.ends_with("antithetics");
        config.use_multisample = name.ends_with("multisample");
        let tokens = if on_grid { 16 } else { parts[1][1..].parse().expect("a number of tokens") };
        let grid = if on_grid { Grid::Plane([4, 4]) } else { Grid::Sequence };
        GoldenCase { config, tokens, grid, noisy: name.contains("train"), padded: name.contains("pad5") }
    }

    fn run(&self, name: &str, preferred: &[&str]) -> Vec<f64> {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let noise = self.noisy.then(|| x[3]);
            let key_padding_mask = self.padded.then(|| x[3]);
            let context = Context { grid: self.grid, noise, key_padding_mask, ..Context::default() };
            let out = mechanism(&self.config).attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &context);
            vec![tape.apply(JoinHeads, &[out])]
        };
        let mut case = Case::new(name, &build).mode(Mode::Eval);
        for values in golden_inputs(self.tokens) {
            case = case.constant([2, 2, self.tokens, 8], values);
        }
        if self.noisy {
            let landmarks = if self.config.use_multisample { 8 } else { 4 };
            let noise = (0..32 * landmarks).map(|i| 2.0_f64.sqrt() * (2.399 * i as f64 + 0.3).sin()).collect();
            case = case.constant([2, 2, landmarks, 8], noise);
        }
        if self.padded {
            let padded = |i: usize| i >= self.tokens && i + 5 >= 2 * self.tokens;
            let mask = (0..2 * self.tokens).map(|i| f64::from(u8::from(padded(i)))).collect();
            case = case.constant([2, self.tokens], mask);
        }
        if self.config.proposal_gen != ProposalGen::NoParamPool {
            case = golden_parameters(case);
        }
        run(&case, preferred, 1).outputs.remove(0)
    }
}

/// The outputs of the authors' code in float64, all 40 of LARA.
#[test]
fn gives_the_golden_values() {
    let golden = Golden::load();
    let names: Vec<&str> = golden.names().filter(|name| name.starts_with("lara")).collect();
    assert_eq!(names.len(), 40, "{names:?}");
    for name in names {
        let case = GoldenCase::parse(name);
        for preferred in VARIANTS {
            let got = case.run(name, preferred);
            assert_close(&format!("{name} {preferred:?}"), golden.case(name), &got, 2e-5);
        }
    }
}
