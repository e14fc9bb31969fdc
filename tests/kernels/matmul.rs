use lara_runtime::ops::{Layout, Linear, MatMul, Operand, Product};
use lara_runtime::{Mode, Parameters, Plan, Recorder, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

const VARIANTS: &[&[&str]] = &[&["tiles"], &["tiles_split"], &["rows"], &["rows4"], &["lanes"]];

/// Those that the adapter can run: `lanes` asks for subgroups of 8.
fn variants() -> &'static [&'static [&'static str]] {
    &VARIANTS[..VARIANTS.len() - usize::from(!adapter().has_lanes())]
}

/// Where a(i, k) and b(k, j) of a layout lie.
fn places(layout: Layout, [m, n, k]: [usize; 3]) -> (impl Fn(usize, usize) -> usize, impl Fn(usize, usize) -> usize) {
    let a = move |i: usize, l: usize| if layout == Layout::Tn { l * m + i } else { i * k + l };
    let b = move |l: usize, j: usize| if layout == Layout::Nt { j * k + l } else { l * n + j };
    (a, b)
}

/// scale a b, row-major [m, n].
fn product<R: Real>(layout: Layout, sizes @ [m, n, k]: [usize; 3], scale: f64, a: &[R], b: &[R]) -> Vec<R> {
    let (at_a, at_b) = places(layout, sizes);
    let mut c = Vec::with_capacity(m * n);
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let sum = (0..k).fold(R::of(0.0), |sum, l| sum + a[at_a(i, l)] * b[at_b(l, j)]);
        c.push(R::of(scale) * sum);
    }
    c
}

struct Layer {
    sizes: [usize; 3],
}

impl Reference for Layer {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let mut y = product(Layout::Nt, self.sizes, 1.0, &x[0], &x[1]);
        if let Some(bias) = x.get(2) {
            y.iter_mut().enumerate().for_each(|(at, y)| *y += bias[at % self.sizes[1]]);
        }
        vec![y]
    }
}

/// Ones, primes, around a tile of 64, several tiles, sums long enough to be split, and multiples of 4 for `rows4`.
const SIZES: [[usize; 3]; 19] = [
    [1, 4, 4],
    [65, 8, 12],
    [129, 36, 68],
    [33, 132, 4],
    [7, 36, 2048],
    [1, 1, 1],
    [1, 7, 5],
    [13, 1, 3],
    [63, 5, 64],
    [64, 64, 16],
    [65, 63, 17],
    [5, 65, 127],
    [127, 3, 128],
    [128, 8, 129],
    [129, 127, 2],
    [31, 129, 37],
    [2, 3, 3000],
    [7, 65, 1025],
    [66, 1, 2049],
];

#[test]
fn linear_matches_with_and_without_bias() {
    for sizes @ [m, n, k] in SIZES {
        for bias in [false, true] {
            let name = format!("linear {m} {n} {k} bias {bias}");
            let mut case = Case::new(name, &|tape, x| vec![tape.apply(Linear, x)])
                .variable([m, k], random(1, m * k))
                .variable([n, k], random(2, n * k))
                .tolerance(1e-5);
            if bias {
                case = case.variable([n], random(3, n));
            }
            check(&case, &Layer { sizes }, variants());
        }
    }
}

#[test]
fn linear_takes_arbitrary_sizes() {
    for seed in 0..16 {
        let draws: Vec<usize> = random(500 + seed, 3).into_iter().map(|x| ((x + 1.0) * 1e4) as usize).collect();
        let sizes @ [m, n, k] = [0, 1, 2].map(|i| 1 + draws[i] % 100);
        let case = Case::new(format!("linear {m} {n} {k}"), &|tape, x| vec![tape.apply(Linear, x)])
            .variable([m, k], random(1, m * k))
            .variable([n, k], random(2, n * k))
            .variable([n], random(3, n))
            .tolerance(1e-5);
        check(&case, &Layer { sizes }, variants());
    }
}

#[test]
fn many_rows_give_split_weight_gradients() {
    let sizes @ [m, n, k] = [3001, 5, 3];
    let case = Case::new("linear over 7 x 3001 / 7 rows", &|tape, x| vec![tape.apply(Linear, x)])
        .variable([1, m, k], random(1, m * k))
        .variable([n, k], random(2, n * k))
        .variable([n], random(3, n))
        .tolerance(1e-5);
    check(&case, &Layer { sizes }, variants());
}

struct Batched {
    layout: Layout,
    sizes: [usize; 3],
    scale: f64,
}

impl Reference for Batched {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let [m, n, k] = self.sizes;
        let matrices = x[0].chunks(m * k).zip(x[1].chunks(k * n));
        vec![matrices.flat_map(|(a, b)| product(self.layout, self.sizes, self.scale, a, b)).collect()]
    }
}

#[test]
fn products_of_activations_match() {
    for sizes @ [m, n, k] in [
        [1, 1, 1],
        [5, 3, 7],
        [65, 63, 5],
        [17, 64, 33],
        [3, 65, 64],
        [7, 2, 2000],
        [129, 5, 65],
        [4, 4, 4],
        [68, 12, 36],
        [65, 36, 64],
        [5, 8, 1200],
    ] {
        for layout in [Layout::Nt, Layout::Nn, Layout::Tn] {
            for (batch, heads) in [(1, 1), (2, 3)] {
                let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(MatMul { layout, scale: 0.375 }, x)];
                let one = if layout == Layout::Tn { [batch, heads, k, m] } else { [batch, heads, m, k] };
                let other = if layout == Layout::Nt { [batch, heads, n, k] } else { [batch, heads, k, n] };
                let case = Case::new(format!("matmul {layout:?} {batch} {heads} {m} {n} {k}"), &build)
                    .variable(one, random(1, batch * heads * m * k))
                    .variable(other, random(2, batch * heads * n * k))
                    .tolerance(1e-5);
                check(&case, &Batched { layout, sizes, scale: 0.375 }, variants());
            }
        }
    }
}

/// c of a larger tensor, which holds given values before.
struct Placed {
    product: Product,
    offsets: [usize; 3],
    bias: bool,
}

/// Elements behind the last matrix, which nobody may touch.
const BEHIND: usize = 3;

impl Placed {
    fn lens(&self) -> [usize; 3] {
        let Product { batch, m, n, k, .. } = self.product;
        let [a, b, c] = self.offsets;
        [a + batch * m * k, b + batch * k * n, c + batch * m * n + BEHIND]
    }

    fn record(&self, tape: &mut Tape<'_>, x: &[Tensor]) -> Vec<Tensor> {
        let len = self.lens()[2];
        let c = tape.rec.scratch("c", [len]);
        let fill = Product { layout: Layout::Nn, batch: 1, m: len, n: 1, k: 1, scale: 1.0, accumulate: false };
        fill.record(&mut tape.rec, x[2], x[3], None, c);
        let [a, b, c] = [(x[0], 0), (x[1], 1), (c, 2)].map(|(tensor, i)| Operand { tensor, offset: self.offsets[i] });
        self.product.record(&mut tape.rec, a, b, self.bias.then_some(x[4]), c);
        vec![c.tensor]
    }
}

impl Reference for Placed {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let Product { layout, batch, m, n, k, scale, accumulate } = self.product;
        let mut c = x[2].clone();
        for z in 0..batch {
            let (a, b) = (self.offsets[0] + z * m * k, self.offsets[1] + z * k * n);
            let plain = product(layout, [m, n, k], f64::from(scale), &x[0][a..a + m * k], &x[1][b..b + k * n]);
            for (i, value) in plain.into_iter().enumerate() {
                let at = self.offsets[2] + z * m * n + i;
                let bias = if self.bias { x[4][i % n] } else { R::of(0.0) };
                c[at] = value + bias + if accumulate { c[at] } else { R::of(0.0) };
            }
        }
        vec![c]
    }
}

#[test]
fn products_go_where_they_are_told() {
    for (batch, [m, n, k]) in [
        (1, [1, 1, 1]),
        (3, [5, 7, 2]),
        (2, [64, 65, 31]),
        (1, [65, 64, 129]),
        (5, [2, 3, 1500]),
        (1, [63, 2, 3000]),
        (3, [8, 36, 20]),
        (2, [68, 64, 12]),
        (1, [4, 100, 1600]),
        (3, [40, 49, 64]),
        (2, [33, 67, 8]),
    ] {
        for layout in [Layout::Nt, Layout::Nn, Layout::Tn] {
            for (accumulate, bias, offsets) in [
                (false, false, [0, 0, 0]),
                (true, false, [64, 4, 8]),
                (false, true, [4, 64, 12]),
                (true, true, [3, 5, 7]),
            ] {
                let product = Product { layout, batch, m, n, k, scale: -1.5, accumulate };
                let placed = Placed { product, offsets, bias };
                let [a, b, c] = placed.lens();
                let build = |tape: &mut Tape<'_>, x: &[Tensor]| placed.record(tape, x);
                let case = Case::new(format!("{product:?} at {offsets:?} bias {bias}"), &build)
                    .constant([a], random(1, a))
                    .constant([b], random(2, b))
                    .constant([c], random(3, c))
                    .constant([1], vec![1.0])
                    .constant([n], random(4, n))
                    .tolerance(1e-5);
                check(&case, &placed, variants());
            }
        }
    }
}

#[test]
fn refuses_sizes_that_do_not_fit() {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    let (x, weight) = (tape.input("x", [2, 5]), tape.input("weight", [3, 4]));
    tape.apply(Linear, &[x, weight]);
    let error = tape.finish().expect_err("5 channels do not fit 4").to_string();
    assert_eq!(error, "a Linear with weight [3, 4] takes 4 channels, not 5");
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    let (a, b) = (tape.input("a", [1, 2, 3, 4]), tape.input("b", [1, 2, 5, 6]));
    tape.apply(MatMul { layout: Layout::Nn, scale: 1.0 }, &[a, b]);
    let error = tape.finish().expect_err("4 does not fit 5").to_string();
    assert_eq!(error, "no Nn product of [1, 2, 3, 4] and [1, 2, 5, 6]");
}

/// A forced variant that the adapter lacks is an error of the plan, not one of the driver.
#[test]
fn lanes_run_or_are_refused_with_a_reason() {
    let mut rec = Recorder::new(tune(&["lanes"]));
    let [a, b, c] = ["a", "b", "c"].map(|label| rec.scratch(label, [8, 8]));
    let product = Product { layout: Layout::Tn, batch: 1, m: 8, n: 8, k: 8, scale: 1.0, accumulate: false };
    product.record(&mut rec, a, b, None, c);
    match Plan::compile_blocking(adapter(), rec, &Parameters::new(adapter())) {
        Ok(_) => assert!(adapter().has_lanes(), "compiled without subgroups of 8 lanes"),
        Err(error) => {
            assert!(!adapter().has_lanes(), "{error}");
            assert!(error.to_string().contains("has no subgroups of 8 lanes; take another variant"), "{error}");
        }
    }
}

#[test]
fn every_variant_is_taken_when_asked_for() {
    for layout in [Layout::Nt, Layout::Nn, Layout::Tn] {
        let taken = |preferred: &[&str], k: usize| {
            let mut rec = Recorder::new(tune(preferred));
            let [a, b, c] = [8 * k, 8 * k, 64].map(|len| rec.scratch("x", [len]));
            let product = Product { layout, batch: 1, m: 8, n: 8, k, scale: 1.0, accumulate: false };
            product.record(&mut rec, a, b, None, c);
            rec.steps().iter().map(|step| step.label.clone()).collect::<Vec<_>>()
        };
        let entry = format!("{layout:?}").to_lowercase();
        assert_eq!(taken(&["tiles"], 8), [format!("matmul_tiles.{entry}")]);
        assert_eq!(taken(&["tiles_split"], 2048), [format!("matmul_tiles.{entry}"), "matmul_tiles.sum_splits".into()]);
        assert_eq!(taken(&["rows"], 8), [format!("matmul_rows.{entry}")]);
        let rows4 = taken(&["rows4"], 8);
        assert!(rows4.iter().all(|label| label.starts_with("matmul_rows4.")), "{layout:?}: {rows4:?}");
        let lanes = taken(&["lanes"], 8);
        let product = if layout == Layout::Tn { "matmul_lanes.tn" } else { "matmul_lanes.nn" };
        assert_eq!(lanes.last().map(String::as_str), Some(product), "{layout:?}: {lanes:?}");
        // 49 columns are no whole vec4s: the transposed copy of b is padded.
        let mut rec = Recorder::new(tune(&["lanes"]));
        let [a, b, c] = [8 * 8, 49 * 8, 8 * 49].map(|len| rec.scratch("x", [len]));
        let product = Product { layout, batch: 1, m: 8, n: 49, k: 8, scale: 1.0, accumulate: false };
        product.record(&mut rec, a, b, None, c);
        let ragged = rec.steps().iter().any(|step| step.label == "matmul_lanes.nn_ragged");
        assert_eq!(ragged, layout == Layout::Nt, "{layout:?}");
        // A row of 7 is no row of whole vec4s, unless it is a column: then a is read float by float.
        let odd = taken(&["lanes"], 7);
        let entry = ["matmul_tiles.nt", "matmul_lanes.nn_odd", "matmul_lanes.tn"][layout as usize];
        assert_eq!(odd, [entry], "{layout:?}");
    }
}
