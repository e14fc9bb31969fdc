use lara_runtime::ops::DepthwiseConv;
use lara_runtime::{Header, Mode, Parameters, Plan, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    grid: [usize; 2],
    channels: usize,
    side: usize,
}

impl Sizes {
    const fn new(batch: usize, grid: [usize; 2], channels: usize, side: usize) -> Self {
        Sizes { batch, grid, channels, side }
    }

    fn len(&self) -> usize {
        self.batch * self.grid[0] * self.grid[1] * self.channels
    }
}

/// `torch.nn.Conv2d(C, C, side, padding = side / 2, groups = C)`, channels last.
impl Reference for Sizes {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let Sizes { batch, grid: [height, width], channels, side } = *self;
        let reach = side / 2;
        let mut y = Vec::with_capacity(x[0].len());
        for (b, row, column) in (0..batch).flat_map(|b| (0..height * width).map(move |p| (b, p / width, p % width))) {
            for c in 0..channels {
                let mut sum = x[2][c];
                for (ky, kx) in (0..side * side).map(|tap| (tap / side, tap % side)) {
                    let (Some(r), Some(s)) = ((row + ky).checked_sub(reach), (column + kx).checked_sub(reach)) else {
                        continue;
                    };
                    if r < height && s < width {
                        let pixel = (b * height + r) * width + s;
                        sum += x[1][(c * side + ky) * side + kx] * x[0][pixel * channels + c];
                    }
                }
                y.push(sum);
            }
        }
        vec![y]
    }
}

fn case<'a>(sizes: &Sizes, build: &'a dyn Fn(&mut Tape<'_>, &[Tensor]) -> Vec<Tensor>) -> Case<'a> {
    let Sizes { batch, grid, channels, side } = *sizes;
    Case::new(format!("{sizes:?}"), build)
        .variable([batch, grid[0] * grid[1], channels], random(1, sizes.len()))
        .variable([channels, 1, side, side], random(2, channels * side * side))
        .variable([channels], random(3, channels))
}

/// Channels that are whole vec4s and others; grids that are thin, smaller than the kernel, one below and one above strips of
/// four, pieces of 128 and a workgroup; every kind of side.
const SIZES: [Sizes; 14] = [
    Sizes::new(1, [1, 1], 1, 1),
    Sizes::new(2, [7, 7], 64, 3),
    Sizes::new(2, [5, 6], 5, 3),
    Sizes::new(3, [4, 3], 8, 3),
    Sizes::new(1, [1, 9], 4, 3),
    Sizes::new(1, [9, 1], 3, 3),
    Sizes::new(2, [2, 2], 12, 5),
    Sizes::new(1, [6, 11], 4, 7),
    Sizes::new(1, [3, 5], 2, 9),
    Sizes::new(1, [2, 127], 4, 3),
    Sizes::new(1, [2, 129], 1, 3),
    Sizes::new(1, [3, 257], 4, 5),
    Sizes::new(65, [8, 2], 4, 3),
    Sizes::new(1, [4, 5], 260, 3),
];

#[test]
fn matches_the_formula() {
    for sizes in SIZES {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(DepthwiseConv { grid: sizes.grid }, x)];
        check(&case(&sizes, &build), &sizes, &[&[]]);
    }
}

/// Blocks of more than one piece of a line.
#[test]
fn sums_the_gradient_of_the_weight_in_blocks() {
    for sizes in [Sizes::new(3, [350, 1], 4, 3), Sizes::new(2, [400, 3], 1, 3)] {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(DepthwiseConv { grid: sizes.grid }, x)];
        check(&case(&sizes, &build), &sizes, &[&[]]);
    }
}

/// Outputs and gradients, bit by bit, and the number of steps, when no dispatch is predicted to take more than `most`.
fn run(sizes: Sizes, most: f64) -> (usize, Vec<Vec<u32>>) {
    let Sizes { batch, grid, channels, side } = sizes;
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]).with_most_flops(most), Mode::Differentiate);
    let x = tape.variable("x", [batch, grid[0] * grid[1], channels]);
    let weight = tape.variable("weight", [channels, 1, side, side]);
    let bias = tape.variable("bias", [channels]);
    let y = tape.apply(DepthwiseConv { grid }, &[x, weight, bias]);
    let dy = tape.input("dy", y.shape());
    tape.backward(&[(y, dy)]);
    let mut read = vec![y];
    read.extend([x, weight, bias].map(|x| tape.gradient(x).expect("all are variables")));
    read.iter().for_each(|&t| tape.rec.pin(t));
    let rec = tape.finish().expect("it can be recorded");
    let steps = rec.steps().len();
    let plan = Plan::compile_blocking(adapter(), rec, &parameters).expect("it compiles");
    plan.poison();
    for (seed, tensor) in [x, weight, bias, dy].into_iter().enumerate() {
        let values: Vec<f32> = random(seed as u32, tensor.len()).into_iter().map(|x| x as f32).collect();
        plan.write(tensor, &values).expect("it is pinned");
    }
    plan.run().header(Header::default()).steps().submit().expect("it runs");
    let bits = |&t: &Tensor| plan.read_blocking(t).expect("it is pinned").iter().map(|x| x.to_bits()).collect();
    (steps, read.iter().map(bits).collect())
}

#[test]
fn pieces_of_a_long_dispatch_have_the_same_bits() {
    for sizes in [Sizes::new(3, [5, 9], 8, 3), Sizes::new(2, [7, 4], 3, 5)] {
        let [whole, cut] = [f64::INFINITY, 2e3].map(|most| run(sizes, most));
        assert!(cut.0 > whole.0 + 4, "{sizes:?}: {} and {} steps", whole.0, cut.0);
        assert!(whole.1 == cut.1, "{sizes:?}: other bits in {} steps", cut.0);
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let mut parameters = Parameters::new(adapter());
    for (shape, weight, bias, said) in [
        (vec![2, 4, 5, 8], [8, 1, 3, 3], 8, "depthwise_conv takes [batch, tokens, channels], not [2, 4, 5, 8]"),
        (vec![2, 21, 8], [8, 1, 3, 3], 8, "depthwise_conv on a grid of 4 x 5 does not take the tokens of [2, 21, 8]"),
        (
            vec![2, 20, 8],
            [8, 1, 4, 4],
            8,
            "depthwise_conv of 8 channels takes a weight [8, 1, side, side] of an odd side and a bias [8], not [8, 1, 4, 4] and [8]",
        ),
        (
            vec![2, 20, 8],
            [8, 1, 3, 3],
            7,
            "depthwise_conv of 8 channels takes a weight [8, 1, side, side] of an odd side and a bias [8], not [8, 1, 3, 3] and [7]",
        ),
        (
            vec![2, 20, 8],
            [8, 8, 3, 3],
            8,
            "depthwise_conv of 8 channels takes a weight [8, 1, side, side] of an odd side and a bias [8], not [8, 8, 3, 3] and [8]",
        ),
    ] {
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let x = tape.input("x", &shape[..]);
        let (weight, bias) = (tape.input("weight", weight), tape.input("bias", [bias]));
        tape.apply(DepthwiseConv { grid: [4, 5] }, &[x, weight, bias]);
        let error = tape.finish().expect_err("this must be refused");
        assert_eq!(error.to_string(), said);
    }
}
