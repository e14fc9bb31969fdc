use lara_runtime::Tape;
use lara_runtime::ops::fill;
use lara_tests::{Case, run};

#[test]
fn fills_every_element() {
    for len in [1, 3, 4, 5, 257, 1021] {
        for value in [0.0_f32, 1.0, -1e30] {
            let build = |tape: &mut Tape<'_>, _: &[_]| {
                let y = tape.rec.scratch("filled", [len]);
                fill(&mut tape.rec, y, value);
                vec![y]
            };
            let outputs = run(&Case::new(format!("fill {len}"), &build), &[], 1).outputs;
            assert_eq!(outputs[0], vec![f64::from(value); len]);
        }
    }
}
