//! Sums over very many terms stay exact to 1e-5: equal terms, whose roundings all go the same way, are the worst case.

use lara_runtime::attention::{
    Attend, AttentionConfig, Broadcast, ColumnLse, Context, GatherKeys, LaraWeights, MechanismKind, PerformerFeatures,
    ProposalGen, Qkv, mechanism,
};
use lara_runtime::maps::map_distance;
use lara_runtime::ops::{
    CrossEntropy, DepthwiseConv, LayerNorm, Layout, PositionEmbedding, Product, TokenPooling, agc, column_sum,
};
use lara_runtime::{Header, Init, Keep, Mode, Parameters, Plan, Recorder, Role, Shape, Tape, Tensor};
use lara_tests::{adapter, random, tune};

const TOLERANCE: f64 = 1e-5;

fn assert_all_close(name: &str, got: &[f32], want: impl Fn(usize) -> f64) {
    let error = |(i, x): (usize, &f32)| (f64::from(*x) - want(i)).abs() / want(i).abs();
    let worst = got.iter().enumerate().map(error).fold(0.0, f64::max);
    assert!(worst < TOLERANCE, "{name}: relative error {worst:.1e}");
}

/// a of ones, b the same number down every column (or row, where it is transposed).
#[test]
fn of_products() {
    let lanes: &[&str] = if adapter().has_lanes() { &["lanes"] } else { &[] };
    let sizes = [12_544, 1_000_003].map(|k| [Layout::Nt, Layout::Nn, Layout::Tn].map(|layout| (k, layout)));
    for (k, layout) in sizes.into_iter().flatten() {
        for variant in ["tiles", "tiles_split", "rows", "rows4"].iter().chain(lanes) {
            // 5 columns: rows of a transposed copy are padded.
            for n in if layout == Layout::Nt && k < 1_000_000 { vec![8, 5] } else { vec![8] } {
                let m = 4;
                let mut rec = Recorder::new(tune(&[variant]));
                let [a, b] = [m * k, k * n].map(|len| rec.pinned("x", [len]));
                let c = rec.pinned("c", [m * n]);
                let product = Product { layout, batch: 1, m, n, k, scale: 0.5, accumulate: false };
                product.record(&mut rec, a, b, None, c);
                let plan = Plan::compile_blocking(adapter(), rec, &Parameters::new(adapter())).expect("it compiles");
                plan.poison();
                let column: Vec<f32> = random(1, n).into_iter().map(|x| x as f32).collect();
                let of = |i: usize| if layout == Layout::Nt { column[i / k] } else { column[i % n] };
                plan.write(a, &vec![1.0; m * k]).unwrap();
                plan.write(b, &(0..k * n).map(of).collect::<Vec<_>>()).unwrap();
                plan.run().steps().submit().expect("it runs");
                let got = plan.read_blocking(c).expect("c is pinned");
                assert_all_close(&format!("{variant} {layout:?} k = {k}"), &got, |i| {
                    0.5 * k as f64 * f64::from(column[i % n])
                });
            }
        }
    }
}

/// Outputs, and gradients of all inputs, of what `build` records; `dy` gives the gradient of the first output.
fn outcome(
    preferred: &[&str],
    inputs: Vec<(Shape, Vec<f32>)>,
    build: impl Fn(&mut Tape<'_>, &[Tensor]) -> Vec<Tensor>,
    dy: Option<&dyn Fn(usize) -> f32>,
) -> [Vec<Vec<f32>>; 2] {
    let mut parameters = Parameters::new(adapter());
    let mode = if dy.is_some() { Mode::Differentiate } else { Mode::Eval };
    let mut tape = Tape::new(&mut parameters, &tune(preferred), mode);
    let x: Vec<Tensor> = inputs.iter().map(|(shape, _)| tape.variable("x", *shape)).collect();
    let y = build(&mut tape, &x);
    y.iter().for_each(|&y| tape.rec.pin(y));
    let given = dy.map(|_| tape.input("dy", y[0].shape()));
    if let Some(given) = given {
        tape.backward(&[(y[0], given)]);
    }
    let gradients: Vec<Tensor> = x.iter().filter_map(|&x| given.and(tape.gradient(x))).collect();
    gradients.iter().for_each(|&g| tape.rec.pin(g));
    let rec = tape.finish().expect("it can be recorded");
    let plan = Plan::compile_blocking(adapter(), rec, &parameters).expect("it compiles");
    plan.poison();
    x.iter().zip(inputs).for_each(|(&x, (_, values))| plan.write(x, &values).expect("it is pinned"));
    if let (Some(given), Some(dy)) = (given, dy) {
        plan.write(given, &(0..given.len()).map(dy).collect::<Vec<_>>()).expect("it is pinned");
    }
    plan.run().header(Header::default()).steps().submit().expect("it runs");
    [y, gradients].map(|tensors| tensors.into_iter().map(|t| plan.read_blocking(t).expect("pinned")).collect())
}

fn attention_variants() -> Vec<&'static [&'static str]> {
    let mut variants: Vec<&[&str]> = vec![&["streamed"], &["slabs", "forward"], &["slabs", "forward_rows", "rows"]];
    if adapter().has_lanes() {
        variants.push(&["slabs", "forward_rows4", "lanes"]);
    }
    variants
}

const CHANNELS: [f32; 4] = [0.7, -1.3, 0.1, 0.9];

/// Two queries that see all keys alike: the output is the values' common row, the log-sum-exp ln M.
#[test]
fn over_keys_of_softmax() {
    for keys in [12_544, 1_000_000] {
        for variant in attention_variants() {
            let constant: Vec<f32> = (0..keys * 4).map(|i| CHANNELS[i % 4]).collect();
            let q = (Shape::from([1, 1, 2, 4]), vec![0.0; 8]);
            let [k, v] = [constant.clone(), constant].map(|x| (Shape::from([1, 1, keys, 4]), x));
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend::new(0.5), x);
            let [y, _] = outcome(variant, vec![q, k, v], build, None);
            let name = format!("{variant:?} over {keys} keys");
            assert_all_close(&name, &y[0], |i| f64::from(CHANNELS[i % 4]));
            assert_all_close(&name, &y[1], |_| (keys as f64).ln());
        }
    }
}

/// Every one of many queries asks the same of four keys, so gradients of keys, values and key terms are sums of equal terms.
#[test]
fn over_queries_in_the_gradients_of_softmax() {
    const VALUES: [f32; 4] = [1.0, -1.0, 0.5, -0.5];
    for queries in [12_544, 1_000_000] {
        for variant in attention_variants() {
            let q = (Shape::from([1, 1, queries, 4]), (0..queries * 4).map(|i| CHANNELS[i % 4]).collect());
            let k = (Shape::from([1, 1, 4, 4]), vec![0.0; 16]);
            let v = (Shape::from([1, 1, 4, 4]), (0..16).map(|i| VALUES[i / 4]).collect());
            let bias = (Shape::from([1, 1, 4]), vec![0.0; 4]);
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(Attend::new(0.5), x);
            let [_, dx] = outcome(variant, vec![q, k, v, bias], build, Some(&|i| CHANNELS[i % 4]));
            let name = format!("{variant:?} over {queries} queries");
            let share = queries as f64 * 0.25;
            let all = CHANNELS.iter().map(|&c| f64::from(c)).sum::<f64>();
            let of_bias = |m: usize| share * all * f64::from(VALUES[m]);
            assert_all_close(&format!("{name}: dk"), &dx[1], |i| 0.5 * of_bias(i / 4) * f64::from(CHANNELS[i % 4]));
            assert_all_close(&format!("{name}: dv"), &dx[2], |i| share * f64::from(CHANNELS[i % 4]));
            assert_all_close(&format!("{name}: dbias"), &dx[3], of_bias);
        }
    }
}

/// Whatever the weights are, they sum to one: constant values come out unchanged.
#[test]
fn of_linear_mechanisms() {
    for tokens in [12_544, 1_000_000] {
        for kind in [MechanismKind::Lara, MechanismKind::Rfa, MechanismKind::Performer] {
            let config = AttentionConfig {
                mechanism: kind,
                num_landmarks: 4,
                proposal_gen: ProposalGen::NoParamPool,
                features: 8,
                ..AttentionConfig::default()
            };
            let rows = Shape::from([1, 1, tokens, 4]);
            let zero = vec![0.0; tokens * 4];
            let v = (0..tokens * 4).map(|i| CHANNELS[i % 4]).collect();
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
                let qkv = Qkv { q: x[0], k: x[1], v: x[2] };
                vec![mechanism(&config).expect("settings fit").attend(tape, qkv, &Context::default())]
            };
            let lanes = attention_variants().pop().unwrap_or_default();
            let [y, _] = outcome(lanes, vec![(rows, zero.clone()), (rows, zero), (rows, v)], build, None);
            assert_all_close(&format!("{kind:?} over {tokens}"), &y[0], |i| f64::from(CHANNELS[i % 4]));
        }
    }
}

/// Sums down columns, and their mean.
#[test]
fn of_columns() {
    for (rows, cols) in [(12_544, 4), (1_000_003, 4), (30_000_003, 1)] {
        let x: Vec<f32> = (0..rows * cols).map(|i| CHANNELS[i % cols]).collect();
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let sums = tape.rec.scratch("sums", [cols]);
            column_sum(&mut tape.rec, x[0], [1, rows, cols], sums, 1.0, false);
            if cols == 1 {
                return vec![sums];
            }
            vec![sums, tape.apply(TokenPooling { first: 0, count: rows }, x)]
        };
        let [y, _] = outcome(&[], vec![(Shape::from([1, rows, cols]), x)], build, None);
        assert_all_close(&format!("sum of {rows} rows"), &y[0], |i| rows as f64 * f64::from(CHANNELS[i]));
        for mean in &y[1..] {
            assert_all_close(&format!("mean of {rows} rows"), mean, |i| f64::from(CHANNELS[i]));
        }
    }
}

/// Gradients of a depthwise convolution's weight and bias: over squares, and over a column of lines of one pixel.
#[test]
fn of_depthwise_gradients() {
    for [height, width] in [[112, 112], [1000, 1000], [300_000, 1]] {
        let x = (Shape::from([1, height * width, 4]), (0..height * width * 4).map(|i| CHANNELS[i % 4]).collect());
        let weight = (Shape::from([4, 1, 3, 3]), vec![0.0; 36]);
        let bias = (Shape::from([4]), vec![0.0; 4]);
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(DepthwiseConv { grid: [height, width] }, x)];
        let [_, dx] = outcome(&[], vec![x, weight, bias], build, Some(&|_| 0.7));
        let name = format!("{height} x {width}");
        // As many pixels as there are whose neighbour on that side is within the grid.
        let pixels = |side: usize, place: usize| (side - usize::from(place != 1)) as f64;
        let of_weight = |i: usize| pixels(height, i % 9 / 3) * pixels(width, i % 3) * 0.7 * f64::from(CHANNELS[i / 9]);
        let there: Vec<usize> = (0..36).filter(|&i| of_weight(i) != 0.0).collect();
        let got: Vec<f32> = there.iter().map(|&i| dx[1][i]).collect();
        assert_all_close(&format!("{name}: dweight"), &got, |i| of_weight(there[i]));
        assert_all_close(&format!("{name}: dbias"), &dx[2], |_| (height * width) as f64 * 0.7);
    }
}

/// Log-sum-exp down columns, within what a relative error of the sum makes of it. Every thousandth number is larger, for the sum of
/// exp(0) is exact however it is made.
#[test]
fn of_exponentials_down_columns() {
    for (rows, cols) in [(12_544_usize, 4), (1_000_003, 4), (30_000_003, 1)] {
        let low = -(rows as f32).ln();
        let x = |i: usize| low + CHANNELS[i % cols] + if (i / cols).is_multiple_of(1000) { 1.1 } else { 0.0 };
        let inputs = vec![(Shape::from([1, 1, rows, cols]), (0..rows * cols).map(x).collect())];
        let [y, _] = outcome(&[], inputs, |tape, x| vec![tape.apply(ColumnLse, x)], None);
        for (i, &got) in y[0].iter().enumerate() {
            let [high, low] = [i, i + cols].map(|i| f64::from(x(i)));
            let many = rows.div_ceil(1000);
            let want = high + (many as f64 + (low - high).exp() * (rows - many) as f64).ln();
            let error = (f64::from(got) - want).abs();
            assert!(error < TOLERANCE, "{rows} rows, column {i}: off by {error:.1e}");
        }
    }
}

/// Loss and gradient over the words of a vocabulary, of which all but the right one are equally likely.
#[test]
fn of_classes() {
    for classes in [32_000, 65_536, 1_000_003] {
        let logits = (0..3 * classes).map(|i| if i % classes == 0 { 0.7 } else { 0.1 }).collect();
        let logits = (Shape::from([3, classes]), logits);
        let targets = (Shape::from([3, 3]), vec![0.0; 9]);
        let build =
            |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(CrossEntropy { smoothing: 0.1 }, x)[..1].to_vec();
        let [y, dx] = outcome(&[], vec![logits, targets], build, Some(&|_| 1.0));
        let (others, count) = (f64::from(0.1_f32) - f64::from(0.7_f32), classes as f64);
        let sum = 1.0 + (count - 1.0) * others.exp();
        let smoothing = f64::from(0.1_f32);
        assert_all_close(&format!("loss over {classes}"), &y[0], |_| {
            sum.ln() - smoothing * others * (count - 1.0) / count
        });
        assert_all_close(&format!("gradient over {classes}"), &dx[0], |i| match i % classes {
            0 => (1.0 / sum - (1.0 - smoothing) - smoothing / count) / 3.0,
            _ => (others.exp() / sum - smoothing / count) / 3.0,
        });
    }
}

/// Norms of a unit's weights and gradients in adaptive clipping. The squares of the weights add up exactly.
#[test]
fn of_squares_in_a_unit() {
    let mut parameters = Parameters::new(adapter());
    let shapes: [&[usize]; 2] = [&[1, 1_000_003], &[1_000_003]];
    for (name, shape) in ["matrix", "vector"].into_iter().zip(shapes) {
        parameters.declare(name, shape.into(), Init::Zeros, Keep::Decayed).expect("it is new");
    }
    parameters.allocate_blocking(adapter(), &[Role::Weight, Role::Grad]).expect("it fits");
    let mut rec = Recorder::new(tune(&[]));
    agc(&mut rec, &parameters, 0.05, "head");
    let plan = Plan::compile_blocking(adapter(), rec, &parameters).expect("it compiles");
    for index in 0..2 {
        parameters.write(adapter(), Role::Weight, index, &[0.5; 1_000_003]).expect("it is there");
        parameters.write(adapter(), Role::Grad, index, &[0.7; 1_000_003]).expect("it is there");
    }
    plan.run().steps().submit().expect("it runs");
    for grads in pollster::block_on(parameters.read(adapter(), Role::Grad)).expect("they can be read") {
        assert_all_close("clipped gradients", &grads, |_| f64::from(0.05_f32) * 0.5);
    }
}

/// Gradients of what a batch shares: a position table with a class token, and a random projection.
#[test]
fn over_a_batch() {
    let batch = 1_000_003;
    let [x, position, class] = [batch, 2, 1].map(|rows| (Shape::from([rows, 4]), vec![0.0; rows * 4]));
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        let tokens = [x[0].reshape([batch, 1, 4]), x[1], x[2]];
        vec![tape.apply(PositionEmbedding, &tokens)]
    };
    let [_, dx] = outcome(&[], vec![x, position, class], build, Some(&|i| CHANNELS[i % 4]));
    for gradient in &dx[1..] {
        assert_all_close("position table", gradient, |i| batch as f64 * f64::from(CHANNELS[i % 4]));
    }
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(Broadcast { batch, factor: 1.0 }, x)];
    let once = vec![(Shape::from([1, 1, 4]), vec![0.0; 4])];
    let [_, dx] = outcome(&[], once, build, Some(&|i| CHANNELS[i % 4]));
    assert_all_close("projection", &dx[0], |i| batch as f64 * f64::from(CHANNELS[i]));
}

/// The gradient of a key that all queries drew.
#[test]
fn of_queries_that_drew_one_key() {
    let (queries, samples) = (16_385, 16);
    let q = (Shape::from([1, 1, queries, 4]), vec![0.0; queries * 4]);
    let k = (Shape::from([1, 1, 1, 4]), vec![0.0; 4]);
    let index = (Shape::from([1, 1, queries * samples]), vec![0.0; queries * samples]);
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(GatherKeys { samples }, x)];
    let [_, dx] = outcome(&[], vec![q, k, index], build, Some(&|i| CHANNELS[i % 4]));
    assert_all_close("key", &dx[1], |i| (queries * samples) as f64 * f64::from(CHANNELS[i]));
}

/// Layer normalisation over the widest rows that there may be, and its gradient.
#[test]
fn of_wide_rows() {
    let cols = 65_536;
    let x: Vec<f32> = (0..cols).map(|i| if i % 4 == 0 { 1.6 } else { 0.1 }).collect();
    let [high, low] = [x[0], x[1]].map(f64::from);
    let (mean, deviation) = (0.25 * high + 0.75 * low, (0.1875 * (high - low).powi(2)).sqrt());
    let (dy, gain) = (CHANNELS.map(f64::from), f64::from(0.3_f32));
    let h = |i: usize| (if i.is_multiple_of(4) { high - mean } else { low - mean }) / deviation;
    let [mean_g, mean_gh] = [0, 1].map(|power| (0..4).map(|i| gain * dy[i] * h(i).powi(power)).sum::<f64>() / 4.0);
    for variant in ["forward", "forward_rows"] {
        let inputs = vec![
            (Shape::from([1, cols]), x.clone()),
            (Shape::from([cols]), vec![0.3; cols]),
            (Shape::from([cols]), vec![0.0; cols]),
        ];
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(LayerNorm { eps: 0.0 }, x)];
        let [y, dx] = outcome(&[variant], inputs, build, Some(&|i| CHANNELS[i % 4]));
        assert_all_close(&format!("{variant}: norm"), &y[0], |i| gain * h(i));
        let dx_of = |i: usize| (gain * dy[i % 4] - mean_g - h(i) * mean_gh) / deviation;
        // The large ones are all alike, and so their gradient is what cancels.
        let size = (0..4).map(|i| dx_of(i).abs()).fold(0.0, f64::max);
        for (i, got) in dx[0].iter().enumerate() {
            let error = (f64::from(*got) - dx_of(i)).abs() / size;
            assert!(error < TOLERANCE, "{variant}: gradient {i} is off by {error:.1e}");
        }
    }
}

/// The gradient of a norm that all features share.
#[test]
fn of_features() {
    let width = 65_537;
    let x = (Shape::from([1, 1, 1, width]), (0..width).map(|i| if i == 0 { 0.7 } else { 0.1 }).collect());
    let norm = (Shape::from([1, 1, 1]), vec![0.0]);
    let favorp = PerformerFeatures::Favorp { factor: 1.0, eps: 0.0, per_token: true, padding: None };
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(favorp, x)];
    let [_, dx] = outcome(&[], vec![x, norm], build, Some(&|_| 0.7));
    let others = (f64::from(0.1_f32) - f64::from(0.7_f32)).exp() * (width - 1) as f64;
    assert_all_close("norm", &dx[1], |_| f64::from(0.7_f32) * (1.0 + others));
}

/// Balances of very many proposals, each of which is likelier under its own mean than under the others.
#[test]
fn of_proposals() {
    let landmarks = 4096;
    let g = (0..landmarks * landmarks).map(|i| if i % (landmarks + 1) == 0 { 0.7 } else { -0.4 }).collect();
    let inputs =
        vec![(Shape::from([1, 1, landmarks, landmarks]), g), (Shape::from([1, 1, landmarks]), vec![0.0; landmarks])];
    let [y, _] = outcome(&[], inputs, |tape, x| tape.apply_all(LaraWeights, x), None);
    let others = (f64::from(-0.4_f32) - f64::from(0.7_f32)).exp() * (landmarks - 1) as f64;
    assert_all_close("balances", &y[0], |_| 1.0 / (1.0 + others));
}

/// The mean loss of rows that are all alike.
#[test]
fn of_losses() {
    let rows = 1_000_003;
    let logits = (Shape::from([rows, 2]), [0.7, 0.1].repeat(rows));
    let targets = (Shape::from([rows, 3]), [0.0, 0.0, 0.0].repeat(rows));
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| tape.apply_all(CrossEntropy { smoothing: 0.0 }, x);
    let [y, _] = outcome(&[], vec![logits, targets], build, None);
    let loss = (f64::from(0.1_f32) - f64::from(0.7_f32)).exp().ln_1p();
    assert_all_close("loss", &y[0], |_| loss);
    assert_all_close("statistics", &y[1], |i| [loss, 1.0, rows as f64][i]);
}

/// Distances of two maps that are each the same number everywhere.
#[test]
fn of_distances() {
    for cols in [12_544, 1_000_003] {
        let [a, b] = [0.7_f32, 0.9].map(|x| x / cols as f32);
        let maps = [a, b].map(|x| (Shape::from([1, cols]), vec![x; cols]));
        for variant in ["forward", "forward_rows"] {
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![map_distance(&mut tape.rec, x[0], x[1])];
            let [y, _] = outcome(&[variant], maps.to_vec(), build, None);
            let [a, b, n] = [f64::from(a), f64::from(b), cols as f64];
            let want = [(b - a) / b, n * b * (b / a).ln(), 0.5 * n * (b - a), b - a];
            assert_all_close(&format!("{variant} over {cols}"), &y[0], |i| want[i]);
        }
    }
}

/// The gradient norm of four thousand million numbers, from their partial sums.
#[test]
fn of_squared_gradients() {
    let partials = 1_000_003;
    let mut rec = Recorder::new(tune(&[]));
    let (partial, norm) = (rec.pinned("squared gradients", [partials]), rec.pinned("gradient norm", [2]));
    let step = rec.step(&lara_shaders::GRAD_NORM, "finish").bind("partial", partial).bind("norm", norm);
    let step = step.uint("len", 0).uint("offset", 0).uint("partials", partials);
    step.float("max_norm", 1.0).float("not_finite", f32::NAN).dispatch([1, 1, 1]);
    let plan = Plan::compile_blocking(adapter(), rec, &Parameters::new(adapter())).expect("it compiles");
    plan.poison();
    plan.write(partial, &vec![0.7; partials]).expect("it is pinned");
    plan.run().steps().submit().expect("it runs");
    let length = (partials as f64 * f64::from(0.7_f32)).sqrt();
    let got = plan.read_blocking(norm).expect("it is pinned");
    assert_all_close("norm and factor", &got, |i| [length, 1.0 / length][i]);
}
