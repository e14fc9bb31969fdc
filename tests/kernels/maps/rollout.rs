use lara_runtime::maps::{Fusion, rollout};
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, check, random, run};

use super::discard::Thinned;
use super::fuse_heads::Fused;
use super::refusal;

const VARIANTS: [&[&str]; 3] = [&["forward", "tiles"], &["forward_rows", "rows"], &["forward_rows", "rows4"]];

/// Inputs: the maps of every layer, the ratio.
struct Rolled {
    heads: usize,
    tokens: usize,
    fusion: Fusion,
    prefix: usize,
}

impl Rolled {
    fn layer<R: Real>(&self, maps: &[R], ratio: R) -> Vec<R> {
        let (heads, rows, fusion) = (self.heads, self.tokens, self.fusion);
        let fused = Fused { heads, fusion }.eval(&[maps.to_vec()]).swap_remove(0);
        let thinned = Thinned { rows, cols: rows, prefix: self.prefix }.eval(&[fused, vec![ratio]]).swap_remove(0);
        let row = |(n, row): (usize, &[R])| {
            let own = |m: usize| R::of(f64::from(u8::from(n == m)));
            let sum = row.iter().fold(R::of(1.0), |sum, &x| sum + x);
            let entry = |m: usize| if sum.value() > 1e-6 { (row[m] + own(m)) / sum } else { own(m) };
            (0..self.tokens).map(entry).collect::<Vec<R>>()
        };
        thinned.chunks(self.tokens).enumerate().flat_map(row).collect()
    }
}

impl Reference for Rolled {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let n = self.tokens;
        let (ratio, layers) = x.split_last().expect("there is a ratio");
        let mut result: Option<Vec<R>> = None;
        for maps in layers {
            let a = self.layer(maps, ratio[0]);
            result = Some(match result {
                None => a,
                Some(before) => {
                    let entry =
                        |i: usize| (0..n).fold(R::of(0.0), |sum, k| sum + a[i / n * n + k] * before[k * n + i % n]);
                    (0..n * n).map(entry).collect()
                }
            });
        }
        vec![result.expect("there is a layer")]
    }
}

/// Rows of positive numbers that sum to 1.
fn attention(seed: u32, rows: usize, cols: usize) -> Vec<f64> {
    let weights = |row: &[f64]| {
        let e: Vec<f64> = row.iter().map(|x| (3.0 * x).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|e| f64::from((e / sum) as f32)).collect::<Vec<f64>>()
    };
    random(seed, rows * cols).chunks(cols).flat_map(weights).collect()
}

fn case<'a>(rolled: &Rolled, maps: Vec<Vec<f64>>, ratio: f64, build: lara_tests::Build<'a>) -> Case<'a> {
    let Rolled { heads, tokens, fusion, prefix } = *rolled;
    let layers = maps.len();
    let mut case = Case::new(format!("rollout {layers} {heads} {tokens} {fusion:?} {ratio} {prefix}"), build);
    for values in maps {
        case = case.constant([1, heads, tokens, tokens], values);
    }
    case.constant([1], vec![ratio])
}

fn record(tape: &mut Tape<'_>, x: &[Tensor], rolled: &Rolled) -> Vec<Tensor> {
    let (ratio, layers) = x.split_last().expect("there is a ratio");
    vec![rollout(&mut tape.rec, layers, rolled.fusion, *ratio, rolled.prefix)]
}

#[test]
fn multiplies_the_layers() {
    for (layers, heads, tokens) in [(1, 1, 1), (2, 3, 1), (1, 2, 7), (2, 2, 8), (3, 3, 13), (4, 2, 65), (12, 3, 33)] {
        for (fusion, ratio, prefix) in
            [(Fusion::Mean, 0.0, 0), (Fusion::Max, 0.9, 1), (Fusion::Min, 0.5, 0), (Fusion::Mean, 1.0, 1)]
        {
            let rolled = Rolled { heads, tokens, fusion, prefix };
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| record(tape, x, &rolled);
            let maps = (0..layers).map(|l| attention(l, heads * tokens, tokens)).collect();
            check(&case(&rolled, maps, ratio, &build), &rolled, &VARIANTS);
        }
    }
}

/// Rows sum to 1 whatever is fused and discarded.
#[test]
fn rows_sum_to_one() {
    let rolled = Rolled { heads: 3, tokens: 50, fusion: Fusion::Max, prefix: 1 };
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| record(tape, x, &rolled);
    let maps = (0..6).map(|l| attention(l, 150, 50)).collect();
    let output = run(&case(&rolled, maps, 0.7, &build), &[], 1).outputs.remove(0);
    for row in output.chunks(50) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
    }
}

/// Weights that cancel the residual connection leave nothing to normalise: the token passes itself on.
#[test]
fn rows_without_a_positive_sum_pass_their_token_on() {
    let rolled = Rolled { heads: 1, tokens: 3, fusion: Fusion::Mean, prefix: 0 };
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| record(tape, x, &rolled);
    let maps = vec![vec![-0.5, -0.5, 0.0, -1.0, -1.0, -1.0, 0.5, -0.25, 0.5]];
    check(&case(&rolled, maps.clone(), 0.0, &build), &rolled, &VARIANTS);
    let output = run(&case(&rolled, maps, 0.0, &build), &[], 1).outputs.remove(0);
    assert_eq!(output[..6], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
}

#[test]
fn refuses_layers_that_do_not_fit() {
    for (shapes, said) in [
        (&[][..], "no rollout of 0 layers (); it takes at least one, each [1, heads, N, N]"),
        (&[[1, 2, 3, 4]], "no rollout of 1 layers ([1, 2, 3, 4]); it takes at least one, each [1, heads, N, N]"),
        (
            &[[1, 2, 3, 3], [1, 2, 4, 4]],
            "no rollout of 2 layers ([1, 2, 3, 3], [1, 2, 4, 4]); it takes at least one, each [1, heads, N, N]",
        ),
    ] {
        let refused = refusal(|tape| {
            let layers: Vec<Tensor> = shapes.iter().map(|&shape| tape.input("layer", shape)).collect();
            let ratio = tape.input("ratio", [1]);
            rollout(&mut tape.rec, &layers, Fusion::Mean, ratio, 0);
        });
        assert_eq!(refused, said);
    }
}
