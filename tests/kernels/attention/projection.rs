use lara_runtime::attention::{
    AttentionConfig, Context, DrawProjection, MechanismKind, Projection, Qkv, SampleScheme, mechanism,
};
use lara_runtime::random::{normal_pair, philox};
use lara_runtime::{Header, Init, Mode, Parameters, Role, Tape, Tensor};
use lara_tests::{Case, adapter, assert_close, run, tune};

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `len` numbers of the host's generator from four times `first` on.
fn host_normals(draw: &DrawProjection, header: Header, part: u32, first: u32, len: usize) -> Vec<f64> {
    let (key, at) = draw.interval.map_or(([draw.seed, 0], 0), |interval| (header.seed, header.step / interval as u32));
    let four = |i: usize| {
        let bits = philox([first + i as u32, part, at, draw.stream], key);
        [normal_pair([bits[0], bits[1]]), normal_pair([bits[2], bits[3]])].concat()
    };
    (0..len.div_ceil(4)).flat_map(four).map(f64::from).take(len).collect()
}

/// What the device should draw, [heads, rows, dim].
pub(super) fn host_projection(draw: &DrawProjection, header: Header, [heads, rows, dim]: [usize; 3]) -> Vec<f64> {
    let gaussian = host_normals(draw, header, 0, 0, heads * rows * dim);
    if !draw.orthogonal {
        return gaussian;
    }
    let mut all: Vec<Vec<f64>> = Vec::new();
    for (at, row) in gaussian.chunks(dim).enumerate() {
        let mut w = row.to_vec();
        let block = at - at % rows % dim;
        for other in all[block..].iter().chain(&all[block..]) {
            let along = dot(other, &w);
            w.iter_mut().zip(other).for_each(|(w, o)| *w -= along * o);
        }
        let length = dot(&w, &w).sqrt();
        all.push(w.into_iter().map(|w| w / length).collect());
    }
    let quads = dim.div_ceil(4) as u32;
    let scaled = all.iter().enumerate().flat_map(|(at, w)| {
        let length = host_normals(draw, header, 1, at as u32 * quads, dim);
        let length = dot(&length, &length).sqrt();
        w.iter().map(move |w| w * length).collect::<Vec<f64>>()
    });
    scaled.collect()
}

const VARIANTS: [&str; 2] = ["orthogonalise", "orthogonalise_rows"];

fn drawn_by(variant: &str, draw: DrawProjection, header: Header, shape: [usize; 3]) -> Vec<f64> {
    let build = |tape: &mut Tape<'_>, _: &[Tensor]| vec![draw.record(&mut tape.rec, shape)];
    let case = Case::new(format!("projection {shape:?} {variant}"), &build).mode(Mode::Eval).header(header);
    run(&case, &[variant], 1).outputs.remove(0)
}

fn drawn(draw: DrawProjection, header: Header, shape: [usize; 3]) -> Vec<f64> {
    drawn_by(VARIANTS[0], draw, header, shape)
}

const DRAW: DrawProjection = DrawProjection { orthogonal: true, stream: 17, interval: None, seed: 5 };

fn header(step: u32, seed: [u32; 2]) -> Header {
    Header { step, micro_step: 3, seed, ..Header::default() }
}

/// Shapes around a block of rows, a workgroup, and a portion of products.
const SHAPES: [[usize; 3]; 9] =
    [[1, 1, 1], [2, 5, 1], [3, 1, 3], [2, 7, 3], [1, 64, 8], [2, 33, 16], [1, 65, 65], [1, 130, 64], [1, 300, 260]];

#[test]
fn draws_the_hosts_numbers() {
    let header = header(23, [0xdead_beef, 9]);
    for shape in SHAPES {
        for orthogonal in [false, true] {
            for interval in [None, Some(1), Some(10)] {
                let draw = DrawProjection { orthogonal, interval, ..DRAW };
                let want = host_projection(&draw, header, shape);
                // The last rows of a block are what little is left of a Gaussian row: digits go with the rest.
                let tolerance = if orthogonal { 1e-3 } else { 1e-5 };
                for variant in &VARIANTS[..if orthogonal { 2 } else { 1 }] {
                    let got = drawn_by(variant, draw, header, shape);
                    assert_close(&format!("{variant} {draw:?} {shape:?}"), &want, &got, tolerance);
                }
            }
        }
    }
}

#[test]
fn rows_are_orthogonal_in_blocks() {
    let shapes = SHAPES.into_iter().chain([[2, 256, 256]]);
    for (shape @ [_, rows, dim], variant) in shapes.flat_map(|shape| VARIANTS.map(|variant| (shape, variant))) {
        let w = drawn_by(variant, DRAW, Header::default(), shape);
        for (head, w) in w.chunks(rows * dim).enumerate() {
            for (block, rows) in w.chunks(dim * dim).enumerate() {
                let rows: Vec<&[f64]> = rows.chunks(dim).collect();
                for (i, a) in rows.iter().enumerate() {
                    for (j, b) in rows[..i].iter().enumerate() {
                        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
                        assert!(
                            cosine.abs() < 2e-6,
                            "{variant} {shape:?} head {head} block {block}: {i}, {j}: {cosine}"
                        );
                    }
                }
            }
        }
    }
}

fn mean(values: impl Iterator<Item = f64>, count: usize) -> f64 {
    values.sum::<f64>() / count as f64
}

/// Every row alone is N(0, I): moments of an element as in `noise`, and E |w|^2 = d with variance 2 d; five standard
/// errors. Orthogonal elements depend on each other (their number inside a block is fixed by the lengths), which only
/// lowers the variance of the squares.
#[test]
fn moments_are_those_of_normal_rows() {
    let shape @ [heads, rows, dim] = [16, 256, 16];
    let count = heads * rows * dim;
    for orthogonal in [false, true] {
        let w = drawn(DrawProjection { orthogonal, ..DRAW }, Header::default(), shape);
        let root = (count as f64).sqrt();
        for (power, expected, deviation) in
            [(1, 0.0, 1.0_f64), (2, 1.0, 2.0_f64.sqrt()), (3, 0.0, 15.0_f64.sqrt()), (4, 3.0, 96.0_f64.sqrt())]
        {
            let moment = mean(w.iter().map(|w| w.powi(power)), count);
            let error = (moment - expected).abs();
            assert!(error < 5.0 * deviation / root, "orthogonal {orthogonal}: moment {power} is {moment}");
        }
        let squares: Vec<f64> = w.chunks(dim).map(|w| dot(w, w)).collect();
        let (d, n) = (dim as f64, squares.len());
        let average = mean(squares.iter().copied(), n);
        assert!((average - d).abs() < 5.0 * (2.0 * d / n as f64).sqrt(), "orthogonal {orthogonal}: E |w|^2 {average}");
        let variance = mean(squares.iter().map(|s| (s - d).powi(2)), n);
        // Variance of a sample variance: (mu_4 - sigma^4) / n with mu_4 = 12 d (d + 4) for chi squared.
        let error = ((12.0 * d * (d + 4.0) - 4.0 * d * d) / n as f64).sqrt();
        assert!((variance - 2.0 * d).abs() < 5.0 * error, "orthogonal {orthogonal}: Var |w|^2 {variance}");
    }
}

#[test]
fn is_drawn_anew_when_it_should_be() {
    let shape = [2, 9, 4];
    let every_ten = DrawProjection { interval: Some(10), ..DRAW };
    let base = drawn(every_ten, header(20, [1, 2]), shape);
    assert_eq!(base, drawn(every_ten, header(29, [1, 2]), shape), "the same ten steps");
    for (draw, header) in [
        (every_ten, header(30, [1, 2])),
        (every_ten, header(20, [1, 3])),
        (DrawProjection { stream: 18, ..every_ten }, header(20, [1, 2])),
        (DRAW, header(20, [1, 2])),
    ] {
        assert_ne!(base, drawn(draw, header, shape), "{draw:?} {header:?}");
    }
    let fixed = drawn(DRAW, header(20, [1, 2]), shape);
    assert_eq!(fixed, drawn(DRAW, header(7, [8, 9]), shape), "a fixed one knows neither step nor seed");
    assert_ne!(fixed, drawn(DrawProjection { seed: 6, ..DRAW }, header(20, [1, 2]), shape));
}

/// What RFA, recorded in a scope after other operations that draw, makes of its projection.
fn recorded(config: &AttentionConfig, mode: Mode, draws_before: usize) -> Vec<f64> {
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        (0..draws_before).for_each(|_| _ = tape.rec.next_stream());
        let qkv = Qkv { q: x[0], k: x[1], v: x[2] };
        vec![tape.scope("blocks", |tape| {
            tape.scope("3", |tape| mechanism(config).unwrap().attend(tape, qkv, &Context::default()))
        })]
    };
    let x = |seed| lara_tests::random(seed, 2 * 5 * 3);
    let case = (1..4).fold(Case::new("rfa", &build), |case, seed| case.constant([1, 2, 5, 3], x(seed)));
    run(&case.mode(mode).header(header(40, [3, 4])), &[], 1).outputs.remove(0)
}

#[test]
fn schemes_decide_when_it_changes() {
    let train = Mode::Train { accumulate: false };
    let with = |sample_scheme, projection_seed| AttentionConfig {
        mechanism: MechanismKind::Rfa,
        features: 4,
        sample_scheme,
        projection_seed,
        ..AttentionConfig::default()
    };
    let (default, fixed) = (with(SampleScheme::Default, 5), with(SampleScheme::Fixed, 5));
    let still = recorded(&fixed, Mode::Eval, 0);
    assert_eq!(still, recorded(&fixed, train, 3), "fixed: training and evaluation have one projection");
    assert_eq!(still, recorded(&default, Mode::Eval, 1), "default: evaluation has the fixed projection");
    assert_eq!(still, recorded(&default, Mode::Differentiate, 0), "default: so have gradients of an evaluation");
    assert_ne!(still, recorded(&default, train, 0), "default: training draws");
    assert_eq!(recorded(&default, train, 0), recorded(&default, train, 2), "other draws do not matter");
    assert_ne!(still, recorded(&with(SampleScheme::Fixed, 6), Mode::Eval, 0), "another seed, another projection");
}

#[test]
fn learned_ones_start_orthogonal_and_reproducibly() {
    let [heads, rows, dim] = [2, 11, 4];
    let initial = |seed: u64| {
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        tape.parameter("projection", [heads, rows, dim], Init::OrthogonalRows);
        parameters.allocate_blocking(adapter(), &[Role::Weight]).unwrap();
        parameters.initialize(adapter(), seed).unwrap();
        let values = pollster::block_on(parameters.read(adapter(), Role::Weight)).expect("weights can be read");
        values[0].iter().copied().map(f64::from).collect::<Vec<f64>>()
    };
    let w = initial(7);
    assert_eq!(w, initial(7));
    assert_ne!(w, initial(8));
    assert_ne!(w[..rows * dim], w[rows * dim..], "heads differ");
    for head in w.chunks(rows * dim) {
        for block in head.chunks(dim * dim) {
            let rows: Vec<&[f64]> = block.chunks(dim).collect();
            for (i, a) in rows.iter().enumerate() {
                assert!(rows[..i].iter().all(|b| dot(a, b).abs() < 1e-5), "row {i} of {rows:?}");
            }
        }
    }
    let lengths = mean(w.chunks(dim).map(|w| dot(w, w)), heads * rows);
    assert!((lengths - dim as f64).abs() < 5.0 * (2.0 * dim as f64 / (heads * rows) as f64).sqrt(), "{lengths}");
}

#[test]
fn refuses_what_does_not_fit() {
    let given = AttentionConfig {
        mechanism: MechanismKind::Rfa,
        projection: Projection::Given,
        features: 6,
        ..AttentionConfig::default()
    };
    let drawn = AttentionConfig { projection: Projection::Iid, ..given.clone() };
    for (config, shape, said) in [
        (&given, None, "projection = \"given\", but none is given; put one [2, 6, 4] in the context"),
        (&drawn, Some(vec![3, 6, 4]), "a projection [3, 6, 4] does not fit 2 heads of dimension 4"),
        (&given, Some(vec![2, 6, 5]), "a projection [2, 6, 5] does not fit 2 heads of dimension 4"),
        (&drawn, Some(vec![1, 2, 6, 4]), "a projection [1, 2, 6, 4] does not fit 2 heads of dimension 4"),
    ] {
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let [q, k, v] = ["q", "k", "v"].map(|label| tape.input(label, [1, 2, 5, 4]));
        let projection = shape.map(|shape| tape.input("projection", &shape[..]));
        mechanism(config).unwrap().attend(&mut tape, Qkv { q, k, v }, &Context { projection, ..Context::default() });
        let error = tape.finish().expect_err("there is no projection").to_string();
        assert!(error.starts_with(said), "{error}");
    }
}
