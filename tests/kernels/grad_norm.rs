use lara_runtime::ops::grad_norm;
use lara_runtime::{Init, Keep, Parameters, Plan, Recorder, Role};
use lara_tests::{adapter, random, tune};

/// Norm and clipping factor of gradients of these shapes; the second shape of a pair says whether weights decay, which
/// decides their chunk.
fn norm_of(gradients: &[(&[usize], Vec<f64>)], max_norm: f32) -> [f64; 2] {
    let gpu = adapter();
    let mut parameters = Parameters::new(gpu);
    for (i, (shape, _)) in gradients.iter().enumerate() {
        parameters.declare(&format!("p{i}"), (*shape).into(), Init::Zeros, Keep::Decayed).expect("new parameters fit");
    }
    parameters.allocate_blocking(gpu, &[Role::Grad]).unwrap();
    for (i, (_, values)) in gradients.iter().enumerate() {
        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        parameters.write(gpu, Role::Grad, i, &values).unwrap();
    }
    let mut rec = Recorder::new(tune(&[]));
    let norm = grad_norm(&mut rec, &parameters, max_norm);
    let plan = Plan::compile_blocking(gpu, rec, &parameters).expect("grad_norm compiles");
    plan.poison();
    for _ in 0..3 {
        plan.run().steps().submit().expect("grad_norm runs");
    }
    let values = plan.read_blocking(norm).expect("the norm is pinned");
    [f64::from(values[0]), f64::from(values[1])]
}

fn expected(gradients: &[(&[usize], Vec<f64>)], max_norm: f64) -> [f64; 2] {
    let length = gradients.iter().flat_map(|g| &g.1).map(|g| g * g).sum::<f64>().sqrt();
    [length, (max_norm / length).min(1.0)]
}

/// One number, around a workgroup's width (64) and its partial sum (4096), more of those than a workgroup adds at once
/// (64), several chunks.
#[test]
fn sums_over_all_chunks_and_clips() {
    let shapes: [&[&[usize]]; 9] = [
        &[&[1]],
        &[&[63]],
        &[&[64]],
        &[&[65], &[3, 5]],
        &[&[4095]],
        &[&[64, 64]],
        &[&[4097], &[7, 13], &[1], &[129, 65]],
        &[&[300, 401], &[17]],
        &[&[600, 701]],
    ];
    for shapes in shapes {
        let of = |(i, shape): (usize, &&'static [usize])| (*shape, random(i as u32, shape.iter().product()));
        let gradients: Vec<(&[usize], Vec<f64>)> = shapes.iter().enumerate().map(of).collect();
        for max_norm in [0.05, 1.0, f32::INFINITY] {
            let [got, want] = [norm_of(&gradients, max_norm), expected(&gradients, f64::from(max_norm))];
            for (name, got, want) in [("norm", got[0], want[0]), ("factor", got[1], want[1])] {
                assert!(
                    (got - want).abs() <= 2e-6 * want,
                    "{shapes:?} clipped to {max_norm}: {name} {got}, not {want}"
                );
            }
        }
    }
}

#[test]
fn zero_gradients_are_left_alone() {
    assert_eq!(norm_of(&[(&[70], vec![0.0; 70])], 1.0), [0.0, 1.0]);
    assert_eq!(norm_of(&[(&[70], vec![0.0; 70])], f32::INFINITY), [0.0, 1.0]);
}

#[test]
fn a_norm_that_is_not_finite_gives_a_factor_of_zero() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30] {
        for max_norm in [1.0, f32::INFINITY] {
            let mut gradient = random(1, 200);
            gradient[131] = bad;
            let [norm, factor] = norm_of(&[(&[200], gradient)], max_norm);
            assert_eq!(factor, 0.0, "a gradient of {bad} clipped to {max_norm} is scaled by {factor}");
            assert!(!norm.is_finite(), "a gradient of {bad} has a norm of {norm}, and nothing stops the run");
        }
    }
}

#[test]
fn numbers_count_as_finite_up_to_a_size_whose_squares_cannot_overflow() {
    let last = f32::from_bits(2f32.powi(47).to_bits() - 1);
    let norm_with = |value: f32| norm_of(&[(&[3], vec![0.0, f64::from(value), 0.0])], 1.0);
    for value in [last, -last] {
        let [norm, factor] = norm_with(value);
        assert!((norm / f64::from(last) - 1.0).abs() < 1e-6, "{norm}");
        assert!((factor * f64::from(last) - 1.0).abs() < 1e-6, "{factor}");
    }
    assert_eq!(norm_with(2f32.powi(47))[1], 0.0);
}
