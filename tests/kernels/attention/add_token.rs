use lara_runtime::attention::AddToken;
use lara_runtime::{Mode, Parameters, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

/// batch heads, tokens, dim
struct Added([usize; 3]);

impl Reference for Added {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let [_, tokens, dim] = self.0;
        let heads = x[0].chunks(tokens * dim).zip(x[1].chunks(dim));
        vec![heads.flat_map(|(x, t)| x.iter().enumerate().map(|(i, &x)| x + t[i % dim])).collect()]
    }
}

#[test]
fn adds_one_token_to_all() {
    for [batch, heads, tokens, dim] in
        [[1, 1, 1, 1], [2, 3, 5, 7], [1, 2, 64, 8], [1, 1, 65, 33], [3, 1, 63, 3], [2, 2, 129, 64], [1, 1, 2, 257]]
    {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(AddToken, x)];
        let case = Case::new(format!("add_token {batch} {heads} {tokens} {dim}"), &build)
            .variable([batch, heads, tokens, dim], random(1, batch * heads * tokens * dim))
            .variable([batch, heads, 1, dim], random(2, batch * heads * dim));
        check(&case, &Added([batch * heads, tokens, dim]), &[&[]]);
    }
}

#[test]
fn refuses_a_token_of_another_shape() {
    let mut parameters = Parameters::new(adapter());
    for token in [vec![2, 3, 1, 4], vec![2, 2, 2, 4], vec![2, 2, 4]] {
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let x = [tape.input("x", [2, 2, 5, 4]), tape.input("t", &token[..])];
        tape.apply(AddToken, &x);
        let error = tape.finish().expect_err("the token does not fit").to_string();
        assert_eq!(error, format!("a token {token:?} cannot be added to the tokens of [2, 2, 5, 4]"));
    }
}
