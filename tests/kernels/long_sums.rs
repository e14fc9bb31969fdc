//! Sums over very many terms stay exact to 1e-5: equal terms, whose roundings all go the same way, are the worst case.

use lara_runtime::ops::{Layout, Product};
use lara_runtime::{Parameters, Plan, Recorder};
use lara_tests::{adapter, random, tune};

const TOLERANCE: f64 = 1e-5;

fn assert_all_close(name: &str, got: &[f32], want: impl Fn(usize) -> f64) {
    let error = |(i, x): (usize, &f32)| (f64::from(*x) - want(i)).abs() / want(i).abs();
    let worst = got.iter().enumerate().map(error).fold(0.0, f64::max);
    assert!(worst < TOLERANCE, "{name}: relative error {worst:.1e}");
}

/// a of ones, b the same number down every column (or row, where it is transposed).
#[test]
fn of_products() {
    let lanes: &[&str] = if adapter().has_lanes() { &["lanes"] } else { &[] };
    let sizes = [12_544, 1_000_003].map(|k| [Layout::Nt, Layout::Nn, Layout::Tn].map(|layout| (k, layout)));
    for (k, layout) in sizes.into_iter().flatten() {
        for variant in ["tiles", "tiles_split", "rows", "rows4"].iter().chain(lanes) {
            // 5 columns: rows of a transposed copy are padded.
            for n in if layout == Layout::Nt && k < 1_000_000 { vec![8, 5] } else { vec![8] } {
                let m = 4;
                let mut rec = Recorder::new(tune(&[variant]));
                let [a, b] = [m * k, k * n].map(|len| rec.pinned("x", [len]));
                let c = rec.pinned("c", [m * n]);
                let product = Product { layout, batch: 1, m, n, k, scale: 0.5, accumulate: false };
                product.record(&mut rec, a, b, None, c);
                let plan = Plan::compile_blocking(adapter(), rec, &Parameters::new(adapter())).expect("it compiles");
                plan.poison();
                let column: Vec<f32> = random(1, n).into_iter().map(|x| x as f32).collect();
                let of = |i: usize| if layout == Layout::Nt { column[i / k] } else { column[i % n] };
                plan.write(a, &vec![1.0; m * k]).unwrap();
                plan.write(b, &(0..k * n).map(of).collect::<Vec<_>>()).unwrap();
                plan.run().steps().submit().expect("it runs");
                let got = plan.read_blocking(c).expect("c is pinned");
                assert_all_close(&format!("{variant} {layout:?} k = {k}"), &got, |i| {
                    0.5 * k as f64 * f64::from(column[i % n])
                });
            }
        }
    }
}
