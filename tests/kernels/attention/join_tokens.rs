use lara_runtime::Tape;
use lara_runtime::attention::JoinTokens;
use lara_tests::{Case, Real, Reference, check, random};

struct Joined {
    repeat: usize,
    matrices: usize,
}

impl Reference for Joined {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let rows = |z: usize| {
            let part = move |x: &Vec<R>| {
                let size = x.len() / self.matrices;
                x[z * size..(z + 1) * size].to_vec()
            };
            (0..self.repeat).flat_map(move |_| x.iter().flat_map(part)).collect::<Vec<R>>()
        };
        vec![(0..self.matrices).flat_map(rows).collect()]
    }
}

#[test]
fn joins_and_repeats() {
    for (tokens, repeat) in [(vec![1], 1), (vec![5], 1), (vec![5], 2), (vec![3, 4], 1), (vec![2, 7, 1], 3)] {
        for [batch, heads, width] in [[1, 1, 1], [2, 3, 5], [1, 2, 33]] {
            let build = |tape: &mut Tape<'_>, x: &[_]| vec![tape.apply(JoinTokens { repeat }, x)];
            let mut case = Case::new(format!("{tokens:?} x{repeat} of {batch} {heads} {width}"), &build);
            for (seed, &count) in tokens.iter().enumerate() {
                let values = random(seed as u32, batch * heads * count * width);
                case = case.variable([batch, heads, count, width], values);
            }
            check(&case, &Joined { repeat, matrices: batch * heads }, &[&[]]);
        }
    }
}
