//! What holds for LARA whatever the numbers are.

use lara_runtime::attention::{AttentionConfig, Context, Grid, MechanismKind, MisType, ProposalGen, Qkv, mechanism};
use lara_runtime::{Mode, Parameters, Plan, Role, Tape, Tensor};
use lara_tests::{adapter, assert_close, random, run, tune};

use super::attend::VARIANTS;
use super::lara_reference::Lara;

/// Random ways to use LARA.
fn arbitrary(seed: u32) -> Lara {
    let draws: Vec<usize> = random(seed, 8).into_iter().map(|x| ((x + 1.0) * 500.0) as usize).collect();
    let within = |i: usize, least: usize, most: usize| least + draws[i] % (most - least + 1);
    let sizes = [within(0, 1, 2), within(1, 1, 3), within(2, 2, 12)];
    let lara = if draws[3].is_multiple_of(2) {
        Lara::on_grid(sizes, [within(4, 1, 7), within(5, 1, 7)], within(6, 1, 17))
    } else {
        Lara::new([sizes[0], sizes[1], within(4, 1, 40), sizes[2]], within(6, 1, 17))
    };
    let proposal_gen = if draws[7].is_multiple_of(2) { ProposalGen::Pool } else { ProposalGen::NoParamPool };
    let lara = lara.with(|c| (c.alpha_coeff, c.proposal_gen) = ((draws[5] % 4) as f32, proposal_gen));
    Lara { prefix: draws[7] % 3, ..lara }
}

#[test]
fn outputs_lie_in_the_convex_hull_of_the_values() {
    for seed in 0..12 {
        let lara = arbitrary(seed);
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![lara.record(tape, x)];
        let case = lara.case(&build).mode(Mode::Eval);
        let (v, out) = (&case.values()[2], run(&case, &[], 1).outputs.remove(0));
        let matrix = lara.len() * lara.dim;
        for (at, &y) in out.iter().enumerate() {
            let (z, channel) = (at / matrix, at % lara.dim);
            let column = (0..lara.len()).map(|n| v[z * matrix + n * lara.dim + channel]);
            let (least, most) = column.fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
            assert!(least - 1e-5 <= y && y <= most + 1e-5, "{lara:?}: output[{at}] = {y} is not in {least} ..= {most}");
        }
    }
}

#[test]
fn constant_values_come_out_unchanged() {
    for seed in 20..28 {
        let lara = arbitrary(seed);
        let channels = random(99, lara.dim);
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![lara.record(tape, x)];
        let mut case = lara.case(&build).mode(Mode::Eval);
        let elements = lara.batch * lara.heads * lara.len() * lara.dim;
        let constant: Vec<f64> = (0..elements).map(|i| channels[i % lara.dim]).collect();
        case.set(2, constant.clone());
        assert_close(&format!("{lara:?}"), &constant, &run(&case, &[], 1).outputs[0], 1e-5);
    }
}

#[test]
fn one_landmark_gives_every_query_the_same() {
    for lara in [Lara::on_grid([2, 2, 8], [4, 5], 3), Lara::new([1, 2, 21, 5], 1).with(|c| c.alpha_coeff = 3.0)] {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![lara.record(tape, x)];
        let out = run(&lara.case(&build).mode(Mode::Eval), &[], 1).outputs.remove(0);
        for (z, matrix) in out.chunks(lara.len() * lara.dim).enumerate() {
            for row in matrix.chunks(lara.dim) {
                assert_close(&format!("{lara:?} matrix {z}"), &matrix[..lara.dim], row, 1e-6);
            }
        }
    }
}

/// Keys with their values may change places inside a segment: its mean, and so every landmark, stays.
#[test]
fn the_order_of_keys_inside_a_segment_does_not_matter() {
    let lara = Lara::new([2, 2, 20, 6], 4).with(|c| c.alpha_coeff = 2.0);
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![lara.record(tape, x)];
    let case = lara.case(&build).mode(Mode::Eval);
    let mut moved = case.clone();
    // Segments of five tokens: reverse each.
    for input in [1, 2] {
        let x = case.values()[input].clone();
        let from = |i: usize| {
            let (token, channel) = (i / 6 % 20, i % 6);
            x[(i / 120 * 20 + token / 5 * 5 + 4 - token % 5) * 6 + channel]
        };
        moved.set(input, (0..x.len()).map(from).collect());
    }
    assert_ne!(case.values()[1], moved.values()[1]);
    assert_close("permuted keys", &run(&case, &[], 1).outputs[0], &run(&moved, &[], 1).outputs[0], 1e-5);
}

#[test]
fn weights_sum_to_one_and_give_the_output() {
    for seed in 40..46 {
        for kind in [MechanismKind::Lara, MechanismKind::Softmax] {
            let lara = arbitrary(seed);
            let config = AttentionConfig { mechanism: kind, ..lara.config.clone() };
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
                let (qkv, context) = (Qkv { q: x[0], k: x[1], v: x[2] }, lara.context(x));
                let attention = mechanism(&config).unwrap();
                vec![attention.attend(tape, qkv, &context), attention.weights(tape, qkv, &context)]
            };
            let mut case = lara.case(&build).mode(Mode::Eval);
            if kind == MechanismKind::Softmax {
                case = case.without_parameters();
            }
            let (n, d) = (lara.len(), lara.dim);
            let (outputs, v) = (run(&case, &[], 1).outputs, case.values()[2].clone());
            let mut product = Vec::new();
            for (row, weights) in outputs[1].chunks(n).enumerate() {
                let values = &v[row / n * n * d..];
                assert!(weights.iter().all(|&w| w >= 0.0), "{kind:?} {lara:?}: negative weight in row {row}");
                let sum: f64 = weights.iter().sum();
                assert!((sum - 1.0).abs() < 1e-5, "{kind:?} {lara:?}: row {row} sums to {sum}");
                product.extend((0..d).map(|c| (0..n).map(|m| weights[m] * values[m * d + c]).sum::<f64>()));
            }
            assert_close(&format!("{kind:?} {lara:?}: weights times values"), &outputs[0], &product, 1e-5);
        }
    }
}

fn activation_bytes(preferred: &[&str], tokens: usize) -> u64 {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(preferred), Mode::Differentiate);
    let config = AttentionConfig { mechanism: MechanismKind::Lara, ..AttentionConfig::default() };
    let [q, k, v, dout] = ["q", "k", "v", "dout"].map(|label| tape.variable(label, [1, 2, tokens, 16]));
    let side = tokens.isqrt();
    let context = Context { grid: Grid::Plane([side, side]), ..Context::default() };
    let out = mechanism(&config).unwrap().attend(&mut tape, Qkv { q, k, v }, &context);
    tape.backward(&[(out, dout)]);
    let rec = tape.finish().expect("attention can be recorded");
    parameters.allocate_blocking(adapter(), &[Role::Weight, Role::Grad]).unwrap();
    Plan::compile_blocking(adapter(), rec, &parameters).expect("attention compiles").memory().activations
}

#[test]
fn memory_grows_linearly_with_the_tokens() {
    for preferred in VARIANTS {
        let [few, many] = [4096, 16384].map(|tokens| activation_bytes(preferred, tokens));
        assert!(many <= 4 * few + (1 << 20), "{preferred:?}: {few} bytes for 4,096 tokens and {many} for 16,384");
        // Some matrices of N x C in 2 heads, far from N x N.
        let matrix = 16384 * 49 * 2 * 4;
        assert!(many < 20 * matrix, "{preferred:?}: {many} bytes are more than 20 matrices of N x C");
    }
}

#[test]
fn a_context_that_does_not_fit_the_tokens_is_refused() {
    for (context, said) in [
        (
            Context { grid: Grid::Plane([4, 5]), ..Context::default() },
            "landmarks take [batch, heads, 20, dim] (0 + 20 tokens)",
        ),
        (Context { prefix: 16, ..Context::default() }, "0 tokens cannot be pooled into 1 landmarks"),
        (Context { prefix: 17, ..Context::default() }, "landmarks take [batch, heads, 17, dim] (17 + 0 tokens)"),
    ] {
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let [q, k, v] = ["q", "k", "v"].map(|label| tape.input(label, [1, 2, 16, 8]));
        mechanism(&AttentionConfig::default()).unwrap().attend(&mut tape, Qkv { q, k, v }, &context);
        let error = tape.finish().expect_err("16 tokens do not fit").to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

/// The balance heuristic is the optimal weighting without its query-specific term (spec 1.4).
#[test]
fn the_balance_heuristic_is_mis_opt_with_alpha_0() {
    for seed in 60..66 {
        let lara = arbitrary(seed);
        let outputs = [(MisType::MisBh, 1.0), (MisType::MisOpt, 0.0)].map(|(mis_type, alpha)| {
            let lara = lara.with(|c| (c.mis_type, c.alpha_coeff) = (mis_type, alpha));
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![lara.record(tape, x)];
            run(&lara.case(&build).mode(Mode::Eval), &[], 1).outputs.remove(0)
        });
        assert_close(&format!("{lara:?}"), &outputs[0], &outputs[1], 2e-5);
    }
}
