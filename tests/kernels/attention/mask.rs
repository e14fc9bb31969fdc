use lara_runtime::attention::Mask;
use lara_runtime::{Mode, Parameters, Tape};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

struct Filled {
    fill: f64,
    shape: [usize; 4],
}

impl Reference for Filled {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let [_, heads, tokens, width] = self.shape;
        let place = |i: usize| i / (heads * tokens * width) * tokens + i / width % tokens;
        let value = |(i, &value): (usize, &R)| if x[1][place(i)].value() == 0.0 { value } else { R::of(self.fill) };
        vec![x[0].iter().enumerate().map(value).collect()]
    }
}

#[test]
fn fills_padded_tokens_of_every_head() {
    for shape @ [batch, heads, tokens, width] in [[1, 1, 1, 1], [2, 3, 5, 1], [2, 2, 7, 3], [3, 1, 65, 4]] {
        for fill in [0.0_f32, -2.5] {
            let padding = (0..batch * tokens).map(|i| f64::from(u8::from(i % 3 == 1))).collect();
            let len = shape.iter().product();
            let build = |tape: &mut Tape<'_>, x: &[_]| vec![tape.apply(Mask { fill }, x)];
            let case = Case::new(format!("mask {shape:?} with {fill}"), &build);
            let case = if width == 1 {
                case.variable([batch, heads, tokens], random(1, len))
            } else {
                case.variable(shape, random(1, len))
            };
            check(&case.constant([batch, tokens], padding), &Filled { fill: f64::from(fill), shape }, &[&[]]);
        }
    }
}

#[test]
fn refuses_a_mask_of_another_length() {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    let x = [tape.input("x", [2, 3, 5]), tape.input("mask", [2, 4])];
    tape.apply(Mask { fill: 0.0 }, &x);
    let error = tape.finish().expect_err("4 is not 5").to_string();
    assert_eq!(error, "a key_padding_mask [2, 4] does not fit [2, 3, 5]; it is [batch, tokens]");
}
