use lara_runtime::ops::agc;
use lara_runtime::{Init, Keep, Parameters, Plan, Recorder, Role};
use lara_tests::{adapter, assert_close, random, tune};

/// Units wider and narrower than a workgroup, a vector, one number, a table whose first dimension is 1, the classifier.
const PARAMETERS: [(&str, &[usize]); 7] = [
    ("wide", &[5, 200]),
    ("narrow", &[130, 3]),
    ("patch_embed.proj.weight", &[4, 3, 2, 2]),
    ("bias", &[70]),
    ("one", &[1]),
    ("pos_embed", &[1, 9, 8]),
    ("head.weight", &[6, 10]),
];

const FACTOR: f64 = 0.05;

/// Equation 3 of the paper, for units of `width` numbers.
fn reference(weights: &[f64], grads: &[f64], width: usize) -> Vec<f64> {
    let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let units = weights.chunks(width).zip(grads.chunks(width));
    units
        .flat_map(|(weights, grads)| {
            let scale = FACTOR * norm(weights).max(1e-3) / norm(grads).max(1e-6);
            grads.iter().map(move |grad| grad * scale.min(1.0))
        })
        .collect()
}

#[test]
fn units_are_clipped_in_proportion_to_their_weights() {
    let gpu = adapter();
    let mut parameters = Parameters::new(gpu);
    for (name, shape) in PARAMETERS {
        parameters.declare(name, shape.into(), Init::Zeros, Keep::Decayed).expect("new parameters fit");
    }
    parameters.allocate_blocking(gpu, &[Role::Weight, Role::Grad]).unwrap();
    let mut rec = Recorder::new(tune(&[]));
    agc(&mut rec, &parameters, FACTOR as f32, "head");
    let plan = Plan::compile_blocking(gpu, rec, &parameters).expect("agc compiles");
    // Gradients that are all clipped, partly, not at all; weights of 0 count as 0.001.
    for (round, (of_weights, of_grads)) in
        [(1.0, 1.0), (1.0, 0.05), (1.0, 1e-4), (0.0, 1e-4), (0.0, 0.0)].into_iter().enumerate()
    {
        let mut wanted = Vec::new();
        for (at, (name, shape)) in PARAMETERS.into_iter().enumerate() {
            let len = shape.iter().product();
            let values = |seed: usize, scale: f64| {
                random((10 * round + seed) as u32, len).into_iter().map(|v| f64::from((scale * v) as f32)).collect()
            };
            let (weights, grads): (Vec<f64>, Vec<f64>) = (values(at, of_weights), values(100 + at, of_grads));
            let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
            parameters.write(gpu, Role::Weight, at, &narrow(&weights)).unwrap();
            parameters.write(gpu, Role::Grad, at, &narrow(&grads)).unwrap();
            let width = if shape.len() > 1 { len / shape[0] } else { len };
            wanted.push(if name.starts_with("head") { grads } else { reference(&weights, &grads, width) });
        }
        plan.run().steps().submit().expect("agc runs");
        let got = pollster::block_on(parameters.read(gpu, Role::Grad)).expect("gradients can be read");
        for ((want, got), (name, _)) in wanted.iter().zip(got).zip(PARAMETERS) {
            let size = want.iter().fold(1e-30_f64, |most, value| most.max(value.abs()));
            let want: Vec<f64> = want.iter().map(|value| value / size).collect();
            let got: Vec<f64> = got.into_iter().map(|value| f64::from(value) / size).collect();
            assert_close(&format!("{name} in round {round}"), &want, &got, 2e-6);
        }
    }
}
