use lara_runtime::attention::{AttentionConfig, Grid, MisType, NoiseScale, Padding, PoolModule, ProposalGen};
use lara_runtime::{Header, Mode, Parameters, Tape, Tensor};
use lara_tests::{Reference, adapter, assert_close, check, random, run, tune};

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

/// Keys (under `mis-opt` queries, too) whose first half is the same large number for all and whose second half is in quarters, so
/// that logits of 4e3 to 3e4 differ by little and are exact in f32. Whatever is then worked out of a log-sum-exp in f32 is off by
/// 5e-4 or more. The other weightings give one to an attention as a key term, whose sum with a logit is rounded as any logit.
#[test]
fn logits_of_ten_thousand_cost_no_digits() {
    let tokens = |seed, first_half: f64| -> Vec<f64> {
        let quarters = random(seed, 2 * 16 * 16).into_iter().map(|x| (4.0 * x).round() / 4.0);
        quarters.enumerate().map(|(i, x)| if i % 16 < 8 { first_half } else { x }).collect()
    };
    for mis_type in WEIGHTINGS {
        // Landmarks are means of two tokens each.
        let lara = Lara::new([1, 2, 16, 16], 8).with(|c| (c.mis_type, c.alpha_coeff) = (mis_type, 2.0));
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![lara.record(tape, x)];
        let is_optimal = mis_type == MisType::MisOpt;
        let mut case = lara.case(&build).tolerance(if is_optimal { 1e-5 } else { 5e-6 });
        if !is_optimal {
            // Of gradients of q more cancels than that: mu is as large as the keys.
            case = case.mode(Mode::Eval);
        }
        case.set(0, tokens(1, if is_optimal { 64.0 } else { 0.0 }));
        case.set(1, tokens(2, 64.0));
        check(&case, &lara, VARIANTS);
    }
}

/// In training the noise comes from the generator: the recording's first stream, of the standard deviation asked for.
#[test]
fn draws_its_noise_while_training() {
    let header = Header { step: 3, seed: [5, 6], ..Header::default() };
    for (noise, std) in [(NoiseScale::Released, 1.0), (NoiseScale::Exact, 8.0_f64.powf(0.25)), (NoiseScale::None, 0.0)]
    {
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

/// The outputs of the authors' code in float64, all 40 of LARA.
#[test]
fn gives_the_golden_values() {
    assert_eq!(lara_tests::check_golden("lara"), 40);
}
