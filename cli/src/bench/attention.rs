//! Attention over more and more tokens: one image, three heads of 64 channels, as in ViT tiny.

use clap::ValueEnum;
use lara_models::compile;
use lara_runtime::attention::{AttentionConfig, Context, Grid, MechanismKind, ProposalGen, Qkv, mechanism};
use lara_runtime::{Mode, Parameters, Role};
use serde::Serialize;

use super::measure::time;
use super::rows::Bench;
use crate::fail::{Failure, Outcome};

const HEADS: usize = 3;
const HEAD_DIM: usize = 64;
/// Sides of the square grids: N = 49 .. 12,544.
const SIDES: [usize; 9] = [7, 10, 14, 20, 28, 40, 56, 84, 112];
const LANDMARKS: usize = 49;

/// What `--mechanism` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mechanism {
    /// Every one.
    All,
    /// Exact.
    Softmax,
    /// Proposals from average pooling, C = 49.
    Lara,
    /// One key drawn for each query.
    Ra,
    /// 64 orthogonal features in log form.
    Rfa,
    /// 64 features of FAVOR+.
    Performer,
}

impl Mechanism {
    fn kinds(self) -> Vec<MechanismKind> {
        match self {
            Mechanism::All => MechanismKind::ALL.to_vec(),
            Mechanism::Softmax => vec![MechanismKind::Softmax],
            Mechanism::Lara => vec![MechanismKind::Lara],
            Mechanism::Ra => vec![MechanismKind::Ra],
            Mechanism::Rfa => vec![MechanismKind::Rfa],
            Mechanism::Performer => vec![MechanismKind::Performer],
        }
    }
}

/// From which number of tokens on a mechanism is faster than softmax, on this adapter.
#[derive(Serialize)]
pub(super) struct Crossover {
    mechanism: &'static str,
    direction: &'static str,
    /// Interpolated between two measured N, log time over log N; absent where there is none between them.
    tokens: Option<f64>,
    /// The same as a sentence.
    pub(super) finding: String,
}

/// A measured time.
struct Timed {
    kind: MechanismKind,
    backward: bool,
    tokens: usize,
    seconds: f64,
}

pub(super) fn run(bench: &mut Bench<'_>, max_tokens: usize, mechanisms: &[Mechanism]) -> Outcome<Vec<Crossover>> {
    let asked: Vec<MechanismKind> = mechanisms.iter().flat_map(|mechanism| mechanism.kinds()).collect();
    let kinds = MechanismKind::ALL.into_iter().filter(|kind| asked.contains(kind));
    let mut timed = Vec::new();
    for kind in kinds {
        if let Err(failure) = measure_all(bench, kind, max_tokens, &mut timed) {
            // The other mechanisms are still worth measuring.
            bench.left_out.push(format!("{} was left out: {failure}", kind.name()));
        }
    }
    if timed.is_empty() {
        let none = format!("--max-tokens is {max_tokens}; the shortest sequence has {} tokens", SIDES[0] * SIDES[0]);
        return Err(Failure::input(bench.left_out.first().cloned().unwrap_or(none)));
    }
    let others = [MechanismKind::Lara, MechanismKind::Rfa, MechanismKind::Performer, MechanismKind::Ra];
    let both = others.into_iter().flat_map(|kind| [(kind, false), (kind, true)]);
    Ok(both.filter_map(|(kind, backward)| crossover(&timed, kind, backward)).collect())
}

fn measure_all(bench: &mut Bench<'_>, kind: MechanismKind, max_tokens: usize, timed: &mut Vec<Timed>) -> Outcome {
    for side in SIDES.into_iter().filter(|s| s * s <= max_tokens) {
        for backward in [false, true] {
            let seconds = measure(bench, side, kind, backward)?;
            timed.push(Timed { kind, backward, tokens: side * side, seconds });
        }
    }
    Ok(())
}

fn direction(backward: bool) -> &'static str {
    if backward { "forward+backward" } else { "forward" }
}

/// Where log(time / time of softmax) goes through zero for good.
fn crossover(timed: &[Timed], kind: MechanismKind, backward: bool) -> Option<Crossover> {
    let of = |kind: MechanismKind, tokens: usize| {
        timed.iter().find(|t| t.kind == kind && t.backward == backward && t.tokens == tokens).map(|t| t.seconds)
    };
    let ratios: Vec<(f64, f64)> = SIDES
        .into_iter()
        .filter_map(|side| {
            let ratio = of(kind, side * side)? / of(MechanismKind::Softmax, side * side)?;
            Some(((side as f64).ln() * 2.0, ratio.ln()))
        })
        .collect();
    let (first, last) = (ratios.first()?, ratios.last()?);
    let tokens = ratios
        .windows(2)
        .rfind(|pair| pair[0].1 >= 0.0)
        .filter(|pair| pair[1].1 < 0.0)
        .map(|pair| (pair[0].0 + (pair[1].0 - pair[0].0) * pair[0].1 / (pair[0].1 - pair[1].1)).exp());
    let name = kind.name();
    let finding = match tokens {
        Some(tokens) => format!("{name} overtakes softmax at N = {tokens:.0}"),
        None if last.1 >= 0.0 => format!("{name} is not faster than softmax up to N = {:.0}", last.0.exp()),
        None => format!("{name} is faster than softmax from the shortest measured N = {:.0} on", first.0.exp()),
    };
    let direction = direction(backward);
    Some(Crossover { mechanism: name, direction, tokens, finding: format!("{direction}: {finding}") })
}

fn measure(bench: &mut Bench<'_>, side: usize, kind: MechanismKind, backward: bool) -> Outcome<f64> {
    let tokens = side * side;
    let name = format!("{} {} N = {tokens}", kind.name(), direction(backward));
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
    let roles = [Role::Weight, Role::Grad];
    let compiled = compile(bench.gpu, &bench.tune, &mut parameters, mode, &roles, |tape| {
        let shape = [1, HEADS, tokens, HEAD_DIM];
        let [q, k, v] = ["q", "k", "v"].map(|name| tape.variable(name, shape));
        let context = Context { grid: Grid::Plane([side, side]), ..Context::default() };
        let out = self::mechanism(&config)?.attend(tape, Qkv { q, k, v }, &context);
        tape.rec.pin(out);
        let dout = tape.input("dout", shape);
        if backward {
            tape.backward(&[(out, dout)]);
        }
        Ok::<_, lara_models::Error>([q, k, v, dout])
    });
    let (plan, [q, k, v, dout]) = pollster::block_on(compiled)?;
    parameters.initialize(bench.gpu, 1)?;
    for (tensor, frequency) in [(q, 0.37), (k, 0.73), (v, 1.19), (dout, 0.91)] {
        let values: Vec<f32> = (0..tensor.len()).map(|i| (frequency * i as f32 + 0.3).sin()).collect();
        plan.write(tensor, &values)?;
    }
    let times = time(&plan)?;
    let flops = (kind == MechanismKind::Softmax).then(|| {
        let forward = 4.0 * (HEADS * tokens * tokens * HEAD_DIM) as f64;
        if backward { 3.5 * forward } else { forward }
    });
    bench.push(name, &times, flops, Some(plan.memory().activations));
    Ok(times.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of softmax and of LARA over N = 49, 100, 196.
    fn timed(softmax: [f64; 3], lara: [f64; 3]) -> Vec<Timed> {
        let of = |kind, seconds: [f64; 3]| {
            let tokens = [49, 100, 196];
            tokens.into_iter().zip(seconds).map(move |(tokens, seconds)| Timed {
                kind,
                backward: false,
                tokens,
                seconds,
            })
        };
        of(MechanismKind::Softmax, softmax).chain(of(MechanismKind::Lara, lara)).collect()
    }

    #[test]
    fn a_crossover_lies_where_the_logarithms_meet() {
        // Softmax goes with N^2, LARA with N: 49 is twice too few tokens, so they meet at 98.
        let found = crossover(
            &timed([49.0 * 49.0, 1e4, 196.0 * 196.0], [98.0 * 49.0, 9800.0, 98.0 * 196.0]),
            MechanismKind::Lara,
            false,
        );
        let found = found.unwrap();
        assert!((found.tokens.unwrap() - 98.0).abs() < 1e-6, "{}", found.finding);
        assert_eq!(found.finding, "forward: lara overtakes softmax at N = 98");
        // The last crossing counts, not one before it was slower again.
        let again = crossover(&timed([2.0, 1.0, 4.0], [1.0, 2.0, 2.0]), MechanismKind::Lara, false).unwrap();
        assert!((again.tokens.unwrap() - 140.0).abs() < 1e-6, "{}", again.finding);
        let never = crossover(&timed([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]), MechanismKind::Lara, false).unwrap();
        assert!(never.tokens.is_none() && never.finding.ends_with("is not faster than softmax up to N = 196"));
        let always = crossover(&timed([2.0, 2.0, 2.0], [1.0, 1.0, 1.0]), MechanismKind::Lara, false).unwrap();
        assert!(always.tokens.is_none() && always.finding.ends_with("from the shortest measured N = 49 on"));
        assert!(crossover(&timed([1.0; 3], [1.0; 3]), MechanismKind::Ra, false).is_none());
    }
}
