//! Attention over more and more tokens: one image, three heads of 64 channels, as in ViT tiny.

use lara_runtime::attention::{AttentionConfig, Context, Grid, MechanismKind, ProposalGen, Qkv, mechanism};
use lara_runtime::{Mode, Parameters, Plan, Tape};

use super::Bench;
use super::measure::time;
use crate::fail::Outcome;

const HEADS: usize = 3;
const HEAD_DIM: usize = 64;
/// Sides of the square grids: N = 196 .. 12,544.
const SIDES: [usize; 5] = [14, 28, 56, 84, 112];
const LANDMARKS: usize = 49;

pub(super) fn run(bench: &mut Bench<'_>, max_tokens: usize) -> Outcome {
    for side in SIDES.into_iter().filter(|s| s * s <= max_tokens) {
        for mechanism in [MechanismKind::Softmax, MechanismKind::Lara] {
            for backward in [false, true] {
                measure(bench, side, mechanism, backward)?;
            }
        }
    }
    Ok(())
}

fn measure(bench: &mut Bench<'_>, side: usize, kind: MechanismKind, backward: bool) -> Outcome {
    let tokens = side * side;
    let direction = if backward { "forward+backward" } else { "forward" };
    let name = format!("{kind:?} {direction} N = {tokens}").to_lowercase().replace(" n =", " N =");
    bench.bar.set_message(name.clone());
    let config = AttentionConfig {
        mechanism: kind,
        num_landmarks: LANDMARKS,
        proposal_gen: ProposalGen::NoParamPool,
        alpha_coeff: 2.0,
        ..AttentionConfig::default()
    };
    let mut parameters = Parameters::new(bench.gpu);
    let mode = if backward { Mode::Differentiate } else { Mode::Eval };
    let mut tape = Tape::new(&mut parameters, &bench.tune, mode);
    let shape = [1, HEADS, tokens, HEAD_DIM];
    let inputs = ["q", "k", "v"].map(|name| tape.variable(name, shape));
    let [q, k, v] = inputs;
    let context = Context { grid: Grid::Plane([side, side]), ..Context::default() };
    let out = self::mechanism(&config).attend(&mut tape, Qkv { q, k, v }, &context);
    tape.rec.pin(out);
    let dout = tape.input("dout", shape);
    if backward {
        tape.backward(&[(out, dout)]);
    }
    let plan = Plan::compile_blocking(bench.gpu, tape.finish()?, &parameters)?;
    for (tensor, frequency) in [(q, 0.37), (k, 0.73), (v, 1.19), (dout, 0.91)] {
        let values: Vec<f32> = (0..tensor.len()).map(|i| (frequency * i as f32 + 0.3).sin()).collect();
        plan.write(tensor, &values);
    }
    let times = time(&plan)?;
    let flops = (kind == MechanismKind::Softmax).then(|| {
        let forward = 4.0 * (HEADS * tokens * tokens * HEAD_DIM) as f64;
        if backward { 3.5 * forward } else { forward }
    });
    bench.push(name, &times, flops, Some(plan.memory().activations));
    Ok(())
}
