use lara_runtime::maps::{map_difference, map_distance};
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, assert_close, check, random, run};

use super::refusal;

const VARIANTS: [&[&str]; 2] = [&["forward"], &["forward_rows"]];

/// Relative error, divergence, total variation and largest difference of a row.
fn distances(a: &[f64], b: &[f64]) -> [f64; 4] {
    let pairs = || a.iter().zip(b).map(|(&a, &b)| (a, b));
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let relative = norm(&mut pairs().map(|(a, b)| a - b)) / norm(&mut pairs().map(|(_, b)| b)).max(1e-12);
    let divergence = pairs().filter(|(_, b)| *b > 0.0).map(|(a, b)| b * (b / a.max(1e-12)).ln()).sum();
    let variation = pairs().map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0;
    [relative, divergence, variation, pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)]
}

/// Each kind of distance in units of its largest.
fn compare(name: &str, cols: usize, [a, b]: [Vec<f64>; 2], tolerance: f64) {
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![map_distance(&mut tape.rec, x[0], x[1])];
    let rows = a.len() / cols;
    let case = Case::new(name, &build).constant([rows, cols], a.clone()).constant([rows, cols], b.clone());
    let want: Vec<[f64; 4]> = a.chunks(cols).zip(b.chunks(cols)).map(|(a, b)| distances(a, b)).collect();
    for preferred in VARIANTS {
        let got = run(&case, preferred, 1).outputs.remove(0);
        assert_eq!(got.len(), 4 * rows, "{name} {preferred:?}");
        for kind in 0..4 {
            let largest = want.iter().fold(0.0, |most: f64, row| most.max(row[kind].abs()));
            let unit = if largest > 0.0 { largest } else { 1.0 };
            let want: Vec<f64> = want.iter().map(|row| row[kind] / unit).collect();
            let got: Vec<f64> = got.chunks(4).map(|row| row[kind] / unit).collect();
            assert_close(&format!("{name} {preferred:?}: distance {kind}"), &want, &got, tolerance);
        }
    }
}

/// Rows of positive numbers that sum to 1, in single precision.
fn attention(seed: u32, rows: usize, cols: usize, sharpness: f64) -> Vec<f64> {
    let weights = |row: &[f64]| {
        let e: Vec<f64> = row.iter().map(|x| (sharpness * x).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|e| f64::from((e / sum) as f32)).collect::<Vec<f64>>()
    };
    random(seed, rows * cols).chunks(cols).flat_map(weights).collect()
}

const SIZES: [(usize, usize); 10] =
    [(1, 1), (1, 2), (3, 7), (7, 63), (8, 64), (9, 65), (2, 197), (65, 13), (3, 2049), (1, 30_011)];

#[test]
fn measures_attention_maps() {
    for (rows, cols) in SIZES {
        for sharpness in [1.0, 8.0] {
            let maps = [1, 2].map(|seed| attention(seed, rows, cols, sharpness));
            compare(&format!("map_distance {rows} {cols} {sharpness}"), cols, maps, 2e-6);
        }
    }
}

/// Maps that are almost the same: what is left of the divergence is far below the rounding of a logarithm.
#[test]
fn small_distances_are_not_lost_in_rounding() {
    for (rows, cols) in [(5, 64), (3, 197), (2, 1021)] {
        let b = attention(1, rows, cols, 2.0);
        let near = |(b, e): (&f64, f64)| f64::from((b * (1.0 + 1e-3 * e)) as f32);
        let a: Vec<f64> = b.iter().zip(random(2, b.len())).map(near).collect();
        compare(&format!("map_distance of neighbours {rows} {cols}"), cols, [a, b], 5e-5);
    }
}

/// Zeros on either side, negative weights, a reference of zeros, the same map twice.
#[test]
fn nothing_is_divided_by_zero() {
    let b = vec![0.0, 0.5, 0.5, 0.0];
    compare("a map without what is seen", 4, [vec![0.5, 0.0, 0.0, 0.5], b.clone()], 1e-6);
    compare("a map with negative weights", 4, [vec![0.75, 0.5, -0.25, 0.0], b.clone()], 1e-6);
    compare("a reference with negative weights", 4, [b.clone(), vec![0.75, 0.5, -0.25, 0.0]], 1e-6);
    compare("a reference of zeros", 4, [vec![0.0; 4], vec![0.0; 4]], 0.0);
    compare("no reference for something", 4, [b.clone(), vec![0.0; 4]], 1e-6);
    compare("the same map", 4, [b.clone(), b], 0.0);
}

struct Minus;

impl Reference for Minus {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        vec![x[0].iter().zip(&x[1]).map(|(&a, &b)| a - b).collect()]
    }
}

#[test]
fn subtracts_the_reference() {
    for shape @ [rows, heads, keys] in [[1, 1, 1], [2, 3, 5], [3, 4, 65]] {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![map_difference(&mut tape.rec, x[0], x[1])];
        let case = Case::new(format!("map_difference {shape:?}"), &build).tolerance(1e-7);
        let maps = [1, 2].map(|seed| random(seed, rows * heads * keys));
        let [a, b] = maps;
        check(&case.constant(shape, a).constant(shape, b), &Minus, &[&[]]);
    }
}

#[test]
fn refuses_maps_of_different_shapes() {
    for record in [map_distance, map_difference] {
        let said = refusal(|tape| {
            let (a, b) = (tape.input("a", [2, 3]), tape.input("b", [3, 2]));
            record(&mut tape.rec, a, b);
        });
        assert_eq!(said, "maps [2, 3] cannot be compared with [3, 2]; their shapes must be the same");
    }
}
