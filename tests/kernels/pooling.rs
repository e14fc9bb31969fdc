use lara_runtime::ops::TokenPooling;
use lara_tests::{Case, Real, Reference, check, random};

struct Mean {
    tokens: usize,
    dim: usize,
    first: usize,
    count: usize,
}

impl Reference for Mean {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let mut y = Vec::new();
        for image in x[0].chunks(self.tokens * self.dim) {
            for d in 0..self.dim {
                let tokens = self.first..self.first + self.count;
                let sum = tokens.fold(R::of(0.0), |sum, n| sum + image[n * self.dim + d]);
                y.push(sum / R::of(self.count as f64));
            }
        }
        vec![y]
    }
}

#[test]
fn averages_a_range_of_tokens() {
    for ([batch, tokens, dim], first, count) in [
        ([1, 1, 1], 0, 1),
        ([2, 5, 3], 0, 5),
        ([3, 17, 65], 1, 16),
        ([3, 17, 65], 0, 1),
        ([2, 50, 64], 0, 50),
        ([7, 9, 63], 8, 1),
        ([1, 129, 31], 3, 97),
    ] {
        let build = |tape: &mut lara_runtime::Tape<'_>, x: &[lara_runtime::Tensor]| {
            vec![tape.apply(TokenPooling { first, count }, x)]
        };
        let case = Case::new(format!("pooling {batch} {tokens} {dim}, {count} from {first}"), &build);
        let case = case.variable([batch, tokens, dim], random(1, batch * tokens * dim));
        check(&case, &Mean { tokens, dim, first, count }, &[&[]]);
    }
}
