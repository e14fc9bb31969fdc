use lara_runtime::attention::GatherKeys;
use lara_runtime::{Mode, Parameters, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, assert_close, check, random, run, tune};

#[derive(Clone, Copy, Debug)]
struct Sizes {
    heads: usize,
    queries: usize,
    keys: usize,
    samples: usize,
    dim: usize,
}

impl Sizes {
    fn index(&self, seed: u32) -> Vec<f64> {
        let draws = random(seed, self.heads * self.queries * self.samples).into_iter();
        draws.map(|x| ((x + 1.0) / 2.0 * self.keys as f64).floor().min(self.keys as f64 - 1.0)).collect()
    }
}

/// q_n + k_index, row by row; inputs q, k and index.
impl Reference for Sizes {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let Sizes { queries, keys, samples, dim, .. } = *self;
        let mut mu = Vec::new();
        for (row, index) in x[2].iter().enumerate() {
            let query = row / samples;
            let key = query / queries * keys + (index.value().max(0.0) as usize).min(keys - 1);
            mu.extend((0..dim).map(|d| x[0][query * dim + d] + x[1][key * dim + d]));
        }
        vec![mu]
    }
}

fn case<'a>(sizes: Sizes, index: Vec<f64>, build: lara_tests::Build<'a>) -> Case<'a> {
    let Sizes { heads, queries, keys, samples, dim } = sizes;
    Case::new(format!("gather_keys {sizes:?}"), build)
        .variable([1, heads, queries, dim], random(1, heads * queries * dim))
        .variable([1, heads, keys, dim], random(2, heads * keys * dim))
        .constant([1, heads, queries * samples], index)
}

#[test]
fn adds_drawn_keys() {
    for [heads, queries, keys, samples, dim] in [
        [1, 1, 1, 1, 1],
        [2, 5, 7, 3, 3],
        [1, 64, 1, 1, 8],
        [3, 1, 65, 5, 33],
        [2, 63, 64, 1, 7],
        [1, 65, 33, 2, 257],
        [6, 9, 130, 4, 2],
    ] {
        let sizes = Sizes { heads, queries, keys, samples, dim };
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(GatherKeys { samples }, x)];
        check(&case(sizes, sizes.index(3), &build), &sizes, &[&[]]);
    }
}

/// Nothing may be read beside the keys: an index out of range is the nearest key.
#[test]
fn an_index_out_of_range_is_taken_as_the_nearest_key() {
    let sizes = Sizes { heads: 2, queries: 3, keys: 4, samples: 2, dim: 5 };
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(GatherKeys { samples: 2 }, x)];
    let wild = vec![-1.0, 4.0, 1e9, -1e30, 3.0, 1e30, 0.0, -0.5, 5.0, 2.0, 1.0, 4.3e9];
    let near = vec![0.0, 3.0, 3.0, 0.0, 3.0, 3.0, 0.0, 0.0, 3.0, 2.0, 1.0, 3.0];
    let [wild, near] = [wild, near].map(|index| run(&case(sizes, index, &build), &[], 1));
    assert_close("output", &near.outputs[0], &wild.outputs[0], 0.0);
    for (near, wild) in near.gradients.iter().zip(&wild.gradients) {
        assert_close("gradient", near, wild, 0.0);
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let mut parameters = Parameters::new(adapter());
    for (k, index, said) in [
        (vec![1, 2, 4, 5], vec![1, 2, 7], "an index of 2 drawn keys a query has the shape [1, 2, 6], not [1, 2, 7]"),
        (vec![1, 2, 4, 3], vec![1, 2, 6], "keys [1, 2, 4, 3] cannot be added to queries [1, 2, 3, 5]"),
        (vec![1, 3, 4, 5], vec![1, 2, 6], "keys [1, 3, 4, 5] cannot be added to queries [1, 2, 3, 5]"),
    ] {
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let x = [tape.input("q", [1, 2, 3, 5]), tape.input("k", &k[..]), tape.input("index", &index[..])];
        tape.apply(GatherKeys { samples: 2 }, &x);
        assert_eq!(tape.finish().expect_err("this does not fit").to_string(), said);
    }
}
