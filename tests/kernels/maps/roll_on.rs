use lara_runtime::maps::roll_on;
use lara_runtime::{Mode, Parameters, Plan, Tape};
use lara_tests::{adapter, assert_close, random, tune};

use super::refusal;

/// (select + rows of the mean) / 2, element by element.
fn reference(rows: &[f64], select: &[f64], heads: usize, tokens: usize) -> Vec<f64> {
    let mean = |i: usize| rows[(i / tokens * (heads + 1) + heads) * tokens + i % tokens];
    (0..select.len()).map(|i| (select[i] + mean(i)) / 2.0).collect()
}

fn singles(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

/// One row and several; one head and several; around a workgroup of 64; beyond 65,535 workgroups. A second run with other
/// rows goes on from what the first left, and the rows stay as they were.
#[test]
fn adds_the_mean_of_the_heads_and_halves() {
    for [count, heads, tokens] in
        [[1, 1, 1], [1, 3, 7], [5, 2, 7], [1, 2, 63], [1, 2, 64], [5, 3, 13], [8, 12, 197], [65, 1, 65_537]]
    {
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let rows = tape.input("rows", [count, heads + 1, tokens]);
        let select = tape.input("select", [count, tokens]);
        roll_on(&mut tape.rec, rows, select);
        let rec = tape.finish().expect("a layer is recorded");
        let plan = Plan::compile_blocking(adapter(), rec, &parameters).expect("a layer compiles");
        plan.poison();
        let mut want = random(1, count * tokens);
        plan.write(select, &singles(&want)).unwrap();
        for layer in 0..2 {
            let values = random(10 + layer, count * (heads + 1) * tokens);
            plan.run().write(rows, &singles(&values)).steps().submit().expect("a layer runs");
            want = reference(&values, &want, heads, tokens);
            let got: Vec<f64> =
                plan.read_blocking(select).expect("an input can be read").into_iter().map(f64::from).collect();
            assert_close(&format!("roll_on {count} {heads} {tokens} layer {layer}"), &want, &got, 1e-6);
            assert_eq!(plan.read_blocking(rows).expect("an input can be read"), singles(&values));
        }
    }
}

#[test]
fn refuses_what_does_not_fit() {
    for (rows, select) in [
        (&[3, 2, 5][..], &[4, 5][..]),
        (&[3, 2, 5], &[3, 6]),
        (&[3, 1, 5], &[3, 5]),
        (&[3, 5], &[3, 5]),
        (&[3, 2, 5], &[15]),
    ] {
        let said = refusal(|tape| {
            let (rows, select) = (tape.input("rows", rows), tape.input("select", select));
            roll_on(&mut tape.rec, rows, select);
        });
        assert_eq!(
            said,
            format!(
                "a selection {select:?} cannot be rolled on with rows {rows:?}; it is [R, N] for rows [R, heads + 1, N]"
            )
        );
    }
}
