use lara_runtime::maps::{Moments, moments};
use lara_runtime::{Header, Mode, Parameters, Plan, Tape};
use lara_tests::{adapter, assert_close, random, tune};

/// Mean and standard deviation of every element over the samples.
fn reference(samples: &[Vec<f64>]) -> [Vec<f64>; 2] {
    let count = samples.len() as f64;
    let over = |f: &dyn Fn(usize) -> f64| (0..samples[0].len()).map(f).collect::<Vec<f64>>();
    let mean = over(&|i| samples.iter().map(|s| s[i]).sum::<f64>() / count);
    let square = |i: usize| samples.iter().map(|s| (s[i] - mean[i]).powi(2)).sum::<f64>();
    let deviation = over(&|i| (square(i) / (count - 1.0).max(1.0)).sqrt());
    [mean, deviation]
}

/// Runs the samples one by one and compares after each, on buffers that were full of NaN before the first. The deviation
/// may err by as much as is given.
fn follow(shape: [usize; 3], runs: &[(Vec<Vec<f64>>, f64)]) {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    let x = tape.input("x", shape);
    let Moments { mean, deviation, .. } = moments(&mut tape.rec, x);
    tape.rec.pin(deviation);
    let rec = tape.finish().expect("moments are recorded");
    let plan = Plan::compile_blocking(adapter(), rec, &parameters).expect("moments compile");
    plan.poison();
    for (samples, allowed) in runs {
        for (number, sample) in samples.iter().enumerate() {
            let values: Vec<f32> = sample.iter().map(|&x| x as f32).collect();
            let header = Header { micro_step: number as u32, ..Header::default() };
            plan.run().header(header).write(x, &values).steps().submit().expect("moments run");
            let want = reference(&samples[..=number]);
            let kinds = [("mean", &want[0], mean, 1e-6), ("deviation", &want[1], deviation, *allowed)];
            for (name, want, tensor, tolerance) in kinds {
                let got = plan.read_blocking(tensor).expect("a pinned tensor");
                let got: Vec<f64> = got.into_iter().map(f64::from).collect();
                assert_close(&format!("{shape:?}: {name} after {}", number + 1), want, &got, tolerance);
            }
        }
    }
}

/// Sample 0 forgets what was before it; a large mean does not swallow a small deviation.
#[test]
fn follows_the_samples_and_starts_anew() {
    for shape @ [rows, heads, keys] in [[1, 1, 1], [1, 2, 3], [1, 3, 5], [2, 4, 63], [3, 3, 65], [1, 1, 1021]] {
        let len = rows * heads * keys;
        let few = (0..3).map(|t| random(t, len)).collect();
        let single = vec![random(50, len)];
        let centred = |t: u32| random(100 + t, len).into_iter().map(|x| f64::from((3.0 + 0.01 * x) as f32)).collect();
        // The mean is rounded to 1e-7 of 3, which is 5e-5 of the deviation.
        follow(shape, &[(few, 2e-6), (single, 0.0), ((0..17_u32).map(centred).collect(), 5e-5)]);
    }
}
