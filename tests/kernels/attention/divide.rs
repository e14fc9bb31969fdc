use lara_runtime::attention::Divide;
use lara_runtime::{Mode, Parameters, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

struct Quotients {
    dim: usize,
    smallest: f64,
}

impl Reference for Quotients {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let raised = |den: R| if den.value() > self.smallest { den } else { R::of(self.smallest) };
        let rows = x[0].chunks(self.dim).zip(&x[1]);
        vec![rows.flat_map(|(num, &den)| num.iter().map(move |&num| num / raised(den)).collect::<Vec<R>>()).collect()]
    }
}

/// Denominators on both sides of the smallest, negative ones among them.
#[test]
fn divides_rows_by_what_is_not_too_small() {
    for [batch, heads, rows, dim] in
        [[1, 1, 1, 1], [2, 3, 5, 7], [1, 2, 64, 8], [1, 1, 65, 33], [3, 1, 63, 3], [1, 1, 130, 1]]
    {
        let smallest = 0.2_f32;
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(Divide { smallest }, x)];
        let count = batch * heads * rows;
        let case = Case::new(format!("divide {batch} {heads} {rows} {dim}"), &build)
            .variable([batch, heads, rows, dim], random(1, count * dim))
            .variable([batch, heads, rows, 1], random(2, count));
        check(&case, &Quotients { dim, smallest: f64::from(smallest) }, &[&[]]);
    }
}

#[test]
fn refuses_other_numbers_of_rows() {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    let (num, den) = (tape.input("num", [1, 2, 5, 4]), tape.input("den", [1, 2, 4, 1]));
    tape.apply(Divide { smallest: 0.01 }, &[num, den]);
    let error = tape.finish().expect_err("rows do not fit").to_string();
    assert_eq!(error, "[1, 2, 5, 4] has 10 rows, which [1, 2, 4, 1] cannot divide one by one");
}
