use lara_runtime::ops::PositionEmbedding;
use lara_tests::{Case, Real, Reference, check, random};

struct Tokens {
    n: usize,
    dim: usize,
}

impl Reference for Tokens {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let (position, class) = (&x[1], x.get(2));
        let mut y = Vec::new();
        for image in x[0].chunks(self.n * self.dim) {
            let tokens = class.into_iter().flatten().chain(image);
            y.extend(tokens.zip(position).map(|(&x, &p)| x + p));
        }
        vec![y]
    }
}

const SIZES: [[usize; 3]; 8] =
    [[1, 1, 1], [2, 3, 5], [7, 1, 13], [3, 16, 64], [1, 49, 65], [5, 4, 63], [2, 65, 3], [13, 5, 24]];

#[test]
fn adds_positions() {
    for [batch, n, dim] in SIZES {
        let case = Case::new(format!("embedding {batch} {n} {dim}"), &|tape, x| vec![tape.apply(PositionEmbedding, x)])
            .variable([batch, n, dim], random(1, batch * n * dim))
            .variable([n, dim], random(2, n * dim));
        check(&case, &Tokens { n, dim }, &[&[]]);
    }
}

#[test]
fn puts_tokens_first() {
    for [batch, n, dim] in SIZES {
        for prefix in [1, 2, 5] {
            let name = format!("embedding with {prefix} tokens in front {batch} {n} {dim}");
            let case = Case::new(name, &|tape, x| vec![tape.apply(PositionEmbedding, x)])
                .variable([batch, n, dim], random(1, batch * n * dim))
                .variable([n + prefix, dim], random(2, (n + prefix) * dim))
                .variable([prefix, dim], random(3, prefix * dim));
            check(&case, &Tokens { n, dim }, &[&[]]);
        }
    }
}

/// A class token is one row, with or without a dimension for it.
#[test]
fn a_class_token_may_be_a_vector() {
    let [batch, n, dim] = [2, 3, 5];
    let case = Case::new("embedding with class token", &|tape, x| vec![tape.apply(PositionEmbedding, x)])
        .variable([batch, n, dim], random(1, batch * n * dim))
        .variable([n + 1, dim], random(2, (n + 1) * dim))
        .variable([dim], random(3, dim));
    check(&case, &Tokens { n, dim }, &[&[]]);
}
