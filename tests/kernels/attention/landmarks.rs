use std::ops::Range;

use lara_runtime::attention::{Landmarks, Pooling};
use lara_runtime::{Mode, Parameters, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

/// Bin i of r along a side of n in adaptive average pooling: floor(i n / r) .. ceil((i + 1) n / r).
fn adaptive_bin(i: usize, r: usize, n: usize) -> Range<usize> {
    (i * n) / r..((i + 1) * n).div_ceil(r)
}

/// The tokens of each landmark, after the prefix (spec 1.5).
pub(super) fn members(pooling: Pooling) -> Vec<Vec<usize>> {
    match pooling {
        Pooling::Grid { grid: [height, width], side } => {
            let cells = (0..side).flat_map(|row| (0..side).map(move |column| (row, column)));
            let tokens = cells.map(|(row, column)| {
                let columns = adaptive_bin(column, side, width);
                adaptive_bin(row, side, height).flat_map(|y| columns.clone().map(move |x| y * width + x)).collect()
            });
            tokens.collect()
        }
        Pooling::Volume { grid: [frames, height, width], side } => {
            let plane = members(Pooling::Grid { grid: [height, width], side });
            let of_frames = |depth: usize| {
                let plane = plane.clone();
                plane.into_iter().map(move |cells| {
                    let frames = adaptive_bin(depth, side, frames);
                    frames.flat_map(|f| cells.iter().map(move |n| f * height * width + n)).collect()
                })
            };
            (0..side).flat_map(of_frames).collect()
        }
        Pooling::Segments { tokens, landmarks } => {
            let short = tokens / landmarks;
            let short_ones = (short + 1) * landmarks - tokens;
            let mut next = 0;
            let mut segment = |c: usize| {
                let first = next;
                next += short + usize::from(c >= short_ones);
                (first..next).collect::<Vec<usize>>()
            };
            (0..landmarks).map(&mut segment).collect()
        }
    }
}

/// Means over the members of each landmark: x [.., prefix + tokens, dim] -> [.., C, dim].
pub(super) fn pool<R: Real>(pooling: Pooling, prefix: usize, [tokens, dim]: [usize; 2], x: &[R]) -> Vec<R> {
    let mut y = Vec::new();
    for matrix in x.chunks((prefix + tokens) * dim) {
        for members in members(pooling) {
            let size = R::of(members.len() as f64);
            let sum = |d: usize| members.iter().fold(R::of(0.0), |sum, n| sum + matrix[(prefix + n) * dim + d]);
            y.extend((0..dim).map(|d| sum(d) / size));
        }
    }
    y
}

struct Means {
    pooling: Pooling,
    prefix: usize,
    tokens: usize,
    dim: usize,
}

impl Reference for Means {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        vec![pool(self.pooling, self.prefix, [self.tokens, self.dim], &x[0])]
    }
}

fn compare(pooling: Pooling, tokens: usize, prefix: usize, [batch, heads, dim]: [usize; 3]) {
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(Landmarks { prefix, pooling }, x)];
    let case = Case::new(format!("{pooling:?} prefix {prefix} batch {batch} heads {heads} dim {dim}"), &build);
    let case = case.variable([batch, heads, prefix + tokens, dim], random(1, batch * heads * (prefix + tokens) * dim));
    check(&case, &Means { pooling, prefix, tokens, dim }, &[&[]]);
}

#[test]
fn pools_grids() {
    let grids =
        [([1, 1], 1), ([4, 4], 2), ([5, 3], 2), ([7, 7], 3), ([14, 14], 7), ([3, 2], 5), ([1, 13], 4), ([8, 5], 8)];
    for (grid, side) in grids {
        for (prefix, sizes) in [(0, [1, 1, 1]), (1, [2, 3, 5]), (0, [1, 2, 33]), (2, [1, 1, 64])] {
            compare(Pooling::Grid { grid, side }, grid[0] * grid[1], prefix, sizes);
        }
    }
}

#[test]
fn pools_sequences() {
    for (tokens, landmarks) in [(1, 1), (16, 4), (18, 4), (19, 4), (7, 7), (13, 5), (65, 64), (129, 7), (64, 1)] {
        for (prefix, sizes) in [(0, [1, 1, 1]), (1, [2, 3, 5]), (3, [1, 2, 33])] {
            compare(Pooling::Segments { tokens, landmarks }, tokens, prefix, sizes);
        }
    }
}

#[test]
fn segments_cover_every_token_once_and_the_first_are_the_short_ones() {
    for (tokens, landmarks) in [(16, 4), (18, 4), (19, 4), (13, 13), (129, 7)] {
        let members = members(Pooling::Segments { tokens, landmarks });
        assert_eq!(members.concat(), (0..tokens).collect::<Vec<_>>());
        assert!(members.windows(2).all(|pair| pair[0].len() <= pair[1].len()), "{members:?}");
    }
}

#[test]
fn refuses_tokens_that_do_not_fit() {
    let mut parameters = Parameters::new(adapter());
    let grid = Pooling::Grid { grid: [4, 4], side: 2 };
    let segments = |tokens, landmarks| Pooling::Segments { tokens, landmarks };
    for (pooling, prefix, shape, said) in [
        (grid, 1, vec![1, 2, 16, 8], "landmarks take [batch, heads, 17, dim] (1 + 16 tokens), not [1, 2, 16, 8]"),
        (grid, 0, vec![1, 16, 8], "landmarks take [batch, heads, 16, dim] (0 + 16 tokens), not [1, 16, 8]"),
        (segments(9, 3), 0, vec![1, 1, 8, 8], "landmarks take [batch, heads, 9, dim] (0 + 9 tokens), not [1, 1, 8, 8]"),
        (segments(3, 4), 0, vec![1, 1, 3, 8], "3 tokens cannot be pooled into 4 landmarks"),
        (segments(0, 1), 2, vec![1, 1, 2, 8], "0 tokens cannot be pooled into 1 landmarks"),
        (Pooling::Grid { grid: [2, 2], side: 0 }, 0, vec![1, 1, 4, 8], "4 tokens cannot be pooled into 0 landmarks"),
    ] {
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let x = tape.input("x", &shape[..]);
        tape.apply(Landmarks { prefix, pooling }, &[x]);
        assert_eq!(tape.finish().expect_err("this does not fit").to_string(), said);
    }
}

#[test]
fn pools_videos() {
    for (grid, side) in [([1, 1, 1], 1), ([4, 4, 4], 2), ([3, 5, 2], 3), ([5, 2, 7], 2)] {
        for (prefix, sizes) in [(0, [1, 1, 1]), (1, [2, 3, 5])] {
            compare(Pooling::Volume { grid, side }, grid.iter().product(), prefix, sizes);
        }
    }
}
