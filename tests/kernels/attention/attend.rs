use lara_runtime::attention::Attend;
use lara_runtime::{Mode, Parameters, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, assert_close, check, random, run, tune};

/// Keys with a bias of at most this are masked.
const MASKED: f64 = -1e29;

/// Every way to compute attention.
pub(crate) const VARIANTS: &[&[&str]] =
    &[&["streamed"], &["slabs", "forward"], &["slabs", "forward_rows"], &["slabs", "forward_rows4"]];

/// Softmax attention of Z matrices, query by query; inputs q, k, v and, if there is a fourth, a key bias.
pub(super) struct Exact {
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) dim: usize,
    pub(super) scale: f64,
}

impl Exact {
    /// Output and log-sum-exp of a query; nothing and -1e30 if every key is masked.
    fn query<R: Real>(&self, q: &[R], k: &[R], v: &[R], bias: Option<&[R]>) -> (Vec<R>, R) {
        let visible: Vec<usize> = (0..self.keys).filter(|&m| bias.is_none_or(|b| b[m].value() > MASKED)).collect();
        if visible.is_empty() {
            return (vec![R::of(0.0); self.dim], R::of(-1e30));
        }
        let logit = |m: usize| {
            let product = (0..self.dim).fold(R::of(0.0), |sum, d| sum + q[d] * k[m * self.dim + d]);
            R::of(self.scale) * product + bias.map_or(R::of(0.0), |b| b[m])
        };
        let logits: Vec<R> = visible.iter().map(|&m| logit(m)).collect();
        let lse = super::lse(&logits);
        let mut out = vec![R::of(0.0); self.dim];
        for (&m, &l) in visible.iter().zip(&logits) {
            let p = (l - lse).exp();
            out.iter_mut().enumerate().for_each(|(d, out)| *out += p * v[m * self.dim + d]);
        }
        (out, lse)
    }
}

impl Reference for Exact {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let (mut out, mut lse) = (Vec::new(), Vec::new());
        for (at, q) in x[0].chunks(self.dim).enumerate() {
            let z = at / self.queries;
            let of = |x: &Vec<R>, width: usize| x[z * self.keys * width..(z + 1) * self.keys * width].to_vec();
            let (k, v) = (of(&x[1], self.dim), of(&x[2], self.dim));
            let bias = x.get(3).map(|b| of(b, 1));
            let (one, total) = self.query(q, &k, &v, bias.as_deref());
            out.extend(one);
            lse.push(total);
        }
        vec![out, lse]
    }
}

/// Shape of one attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) n: usize,
    pub(super) m: usize,
    pub(super) d: usize,
}

impl Sizes {
    pub(super) fn new([batch, heads, n, m, d]: [usize; 5]) -> Self {
        Sizes { batch, heads, n, m, d }
    }

    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    pub(super) fn exact(&self) -> Exact {
        Exact { queries: self.n, keys: self.m, dim: self.d, scale: f64::from(self.scale()) }
    }

    /// Random q, k, v of the given sizes of numbers.
    pub(super) fn case<'a>(&self, name: &str, size: f64, build: lara_tests::Build<'a>) -> Case<'a> {
        let Sizes { batch, heads, n, m, d } = *self;
        let sized = |seed, len: usize| random(seed, len).into_iter().map(|x| f64::from((size * x) as f32)).collect();
        Case::new(format!("{name} {self:?}"), build)
            .variable([batch, heads, n, d], sized(1, batch * heads * n * d))
            .variable([batch, heads, m, d], sized(2, batch * heads * m * d))
            .variable([batch, heads, m, d], random(3, batch * heads * m * d))
            .tolerance(1e-5)
    }
}

#[test]
fn takes_every_head_dimension() {
    for d in [1, 2, 3, 5, 8, 17, 32, 64, 100, 128, 256] {
        for [n, m] in [[5, 7], [33, 18]] {
            let sizes = Sizes::new([1, 2, n, m, d]);
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend::new(sizes.scale()), x);
            check(&sizes.case("attend", 2.0, &build), &sizes.exact(), VARIANTS);
        }
    }
}

#[test]
fn takes_every_number_of_queries_and_keys() {
    for shape in [
        [1, 1, 1, 1, 4],
        [2, 3, 1, 65, 4],
        [3, 1, 65, 1, 4],
        [1, 1, 63, 64, 8],
        [1, 2, 64, 63, 3],
        [2, 1, 65, 66, 5],
        [3, 2, 67, 68, 12],
        [1, 1, 49, 131, 16],
        [1, 1, 129, 127, 2],
        [5, 7, 3, 2, 6],
    ] {
        let sizes = Sizes::new(shape);
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend::new(sizes.scale()), x);
        check(&sizes.case("attend", 2.0, &build), &sizes.exact(), VARIANTS);
    }
}

/// The streaming kernel splits its columns where there are few rows: keys of few queries, queries of few keys.
#[test]
fn few_rows_against_many_columns_are_split_and_joined() {
    for shape in [[1, 1, 7, 777, 4], [1, 2, 600, 5, 3], [2, 1, 49, 1025, 8], [1, 1, 520, 530, 40]] {
        let sizes = Sizes::new(shape);
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend::new(sizes.scale()), x);
        let bias = random(4, shape[0] * shape[1] * shape[3]);
        let case = sizes.case("attend with splits", 2.0, &build).variable([shape[0], shape[1], shape[3]], bias);
        check(&case, &sizes.exact(), &[&["streamed"]]);
    }
}

#[test]
fn takes_arbitrary_shapes() {
    for seed in 0..16 {
        let draws: Vec<usize> = random(500 + seed, 5).into_iter().map(|x| ((x + 1.0) * 1e4) as usize).collect();
        let [batch, heads, n, m, d] =
            [(0, 3), (1, 3), (2, 140), (3, 140), (4, 40)].map(|(i, most)| 1 + draws[i] % most);
        let sizes = Sizes::new([batch, heads, n, m, d]);
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend::new(sizes.scale()), x);
        check(&sizes.case("attend", 2.0, &build), &sizes.exact(), VARIANTS);
    }
}

/// Whole splits without a visible key must neither count nor spoil the others.
#[test]
fn masked_splits_do_not_count() {
    let sizes = Sizes::new([1, 2, 3, 900, 4]);
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend::new(sizes.scale()), x);
    let bias = random(4, 1800).into_iter().enumerate();
    let bias = bias.map(|(i, b)| if i % 900 < 700 || i % 5 == 0 { -1e30 } else { b }).collect();
    let case = sizes.case("attend with masked splits", 2.0, &build).variable([1, 2, 900], bias);
    check(&case, &sizes.exact(), VARIANTS);
}

#[test]
fn every_variant_is_taken_when_asked_for() {
    for (preferred, d, taken) in [
        (VARIANTS[0], 8, "attend_vector.forward"),
        (VARIANTS[0], 7, "attend_scalar.forward"),
        (VARIANTS[1], 8, "softmax.forward"),
        (VARIANTS[2], 8, "softmax.forward_rows"),
        (VARIANTS[3], 8, "softmax.forward_rows4"),
        (VARIANTS[3], 8, "softmax.divide_rows"),
        // Rows that are not whole vec4s take the first variant instead.
        (VARIANTS[3], 7, "softmax.forward"),
    ] {
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(preferred), Mode::Eval);
        let x = ["q", "k", "v"].map(|label| tape.input(label, [1, 1, 12, d]));
        tape.apply_all(Attend::new(1.0), &x);
        let steps: Vec<&str> = tape.rec.steps().iter().map(|step| step.label.as_str()).collect();
        assert!(steps.contains(&taken), "{preferred:?} records {steps:?}");
    }
}

#[test]
fn gradients_may_be_wanted_of_some_inputs_only() {
    let sizes = Sizes::new([1, 2, 9, 11, 4]);
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        // q, k, v in the order of the operation, of which k comes first here as the only variable.
        tape.apply_all(Attend::new(0.5), &[x[1], x[0], x[2]])
    };
    struct Reordered(Exact);
    impl Reference for Reordered {
        fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
            self.0.eval(&[x[1].clone(), x[0].clone(), x[2].clone()])
        }
    }
    let case = Case::new("attend with constant queries and values", &build)
        .variable([1, 2, 11, 4], random(1, 88))
        .constant([1, 2, 9, 4], random(2, 72))
        .constant([1, 2, 11, 4], random(3, 88))
        .tolerance(1e-5);
    check(&case, &Reordered(sizes.exact()), VARIANTS);
}

#[test]
fn probabilities_are_those_of_the_output() {
    let sizes = Sizes::new([2, 3, 13, 17, 5]);
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        let attend = Attend::new(sizes.scale());
        let probabilities = attend.probabilities(&mut tape.rec, x[0], x[1], Some(x[3]));
        vec![tape.apply_all(attend, x)[0], probabilities]
    };
    let bias: Vec<f64> =
        random(4, 102).into_iter().enumerate().map(|(i, b)| if i % 7 == 3 { -1e30 } else { b }).collect();
    let case = sizes.case("probabilities", 2.0, &build).constant([2, 3, 17], bias).gradients_of(&[0]);
    for preferred in VARIANTS {
        let outputs = run(&case, preferred, 1).outputs;
        let v = random(3, 6 * 17 * 5);
        let mut product = Vec::new();
        for (row, p) in outputs[1].chunks(17).enumerate() {
            let values = &v[row / 13 * 85..];
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{preferred:?}: row {row} does not sum to 1: {p:?}");
            product.extend((0..5).map(|d| (0..17).map(|m| p[m] * values[m * 5 + d]).sum::<f64>()));
        }
        assert_close(&format!("{preferred:?}: probabilities times values"), &outputs[0], &product, 1e-5);
    }
}

#[test]
fn refuses_shapes_that_do_not_fit() {
    let mut parameters = Parameters::new(adapter());
    for (q, k, v) in [
        (vec![1, 2, 3, 4], vec![1, 2, 5, 3], vec![1, 2, 5, 3]),
        (vec![1, 2, 3, 4], vec![1, 3, 5, 4], vec![1, 3, 5, 4]),
        (vec![1, 2, 3, 4], vec![1, 2, 5, 4], vec![1, 2, 6, 4]),
        (vec![2, 3, 4], vec![2, 5, 4], vec![2, 5, 4]),
    ] {
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Differentiate);
        let x = [tape.input("q", &q[..]), tape.input("k", &k[..]), tape.input("v", &v[..])];
        tape.apply(Attend::new(1.0), &x);
        let error = tape.finish().expect_err("these shapes do not fit").to_string();
        assert_eq!(error, format!("attention over {q:?}, {k:?}, {v:?} does not fit together"));
    }
}
