use lara_runtime::attention::{Attend, AttentionConfig, Context, DrawKeys, MechanismKind, Qkv, mechanism};
use lara_runtime::random::{philox, uniform_open};
use lara_runtime::{Header, Mode, Tape, Tensor};
use lara_tests::{Case, random, run};

use super::attend::{Sizes, VARIANTS};

/// Every way to draw.
const DRAWS: [&str; 2] = ["forward", "forward_rows"];

fn header(step: u32, seed: [u32; 2]) -> Header {
    Header { step, micro_step: 2, seed, ..Header::default() }
}

/// The uniform numbers of a draw, as the host computes them: for a block, a key in it, and a stretch of blocks.
pub(super) fn host_uniforms(header: Header, stream: u32, draw: usize) -> [f64; 3] {
    let bits = philox([draw as u32, header.micro_step, header.step, stream], header.seed);
    [bits[0], bits[1], bits[2]].map(|bits| f64::from(uniform_open(bits)))
}

/// The first of the sums at which they exceed the uniform times their whole, or the last that is positive.
fn host_place(sums: &[f64], uniform: f64) -> usize {
    let (mut sum, whole) = (0.0, sums.iter().sum::<f64>());
    let exceeds = |p: &f64| {
        sum += p;
        sum > uniform * whole
    };
    let last = sums.iter().rposition(|&p| p > 0.0).unwrap_or(0);
    sums.iter().position(exceeds).unwrap_or(last)
}

/// The key of a row of probabilities: a stretch of 64 blocks, a block of it, a key of the block.
pub(super) fn host_key(probabilities: &[f64], [for_block, for_key, for_stretch]: [f64; 3]) -> usize {
    let size = probabilities.len().div_ceil(64).min(256);
    let sums = |of: &[f64], size: usize| of.chunks(size).map(|part| part.iter().sum()).collect::<Vec<f64>>();
    let blocks = sums(probabilities, size);
    let stretch = 64 * host_place(&sums(&blocks, 64), for_stretch);
    let block = stretch + host_place(&blocks[stretch..blocks.len().min(stretch + 64)], for_block);
    let begin = block * size;
    begin + host_place(&probabilities[begin..probabilities.len().min(begin + size)], for_key)
}

/// Whether `key` is the host's, give or take the rounding of sums in f32.
fn agrees(probabilities: &[f64], uniforms: [f64; 3], key: f64) -> bool {
    let nudges = [-1e-5, 0.0, 1e-5];
    let nudged = nudges.into_iter().flat_map(|a| nudges.into_iter().map(move |b| (a, b)));
    nudged
        .into_iter()
        .flat_map(|(a, b)| nudges.map(|c| [uniforms[0] + a, uniforms[1] + b, uniforms[2] + c]))
        .any(|uniforms| host_key(probabilities, uniforms) as f64 == key)
}

/// Softmax weights [Z N, M] in float64.
pub(super) fn host_softmax(
    sizes: &Sizes,
    q: &[f64],
    k: &[f64],
    masked: &dyn Fn(usize, usize) -> bool,
) -> Vec<Vec<f64>> {
    let Sizes { n, m, d, .. } = *sizes;
    let row = |(at, q): (usize, &[f64])| {
        let z = at / n;
        let dot = |key: usize| q.iter().zip(&k[(z * m + key) * d..]).map(|(q, k)| q * k).sum::<f64>();
        let logits = (0..m).map(|key| if masked(z, key) { f64::NEG_INFINITY } else { dot(key) / (d as f64).sqrt() });
        let logits: Vec<f64> = logits.collect();
        let largest = logits.iter().copied().fold(f64::MIN, f64::max);
        let sum = logits.iter().map(|l| (l - largest).exp()).sum::<f64>();
        logits.iter().map(|l| (l - largest).exp() / sum).collect()
    };
    q.chunks(d).enumerate().map(row).collect()
}

/// Rows that are drawn from in two slabs, as attention would.
#[test]
fn draws_where_the_sum_exceeds_the_uniform() {
    for ([rows, keys], samples) in
        [([2, 1], 1), ([5, 7], 3), ([65, 64], 1), ([9, 131], 8), ([130, 3], 2), ([3, 4099], 70), ([2, 50_003], 70)]
    {
        let positive = random(1, rows * keys).into_iter().map(|x| x.max(0.0)).collect::<Vec<f64>>();
        let normal = positive.chunks(keys).flat_map(|row| {
            let sum = row.iter().sum::<f64>().max(1e-9);
            row.iter().map(move |x| f64::from((x / sum) as f32))
        });
        let p: Vec<f64> = normal.collect();
        let first = rows / 3;
        let header = header(7, [0xdead_beef, 5]);
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let index = tape.rec.scratch("index", [1, rows, samples]);
            let draw = DrawKeys { samples, stream: 11, by_batch: true, ranks: None };
            for (at, part) in x.iter().enumerate() {
                draw.record(&mut tape.rec, *part, [at * first, part.rows()], index);
            }
            vec![index]
        };
        let mut case = Case::new(format!("draw_keys {rows} {keys} {samples}"), &build).header(header);
        for part in [&p[..first * keys], &p[first * keys..]].into_iter().filter(|part| !part.is_empty()) {
            case = case.constant([part.len() / keys, keys], part.to_vec());
        }
        let draws = DRAWS.iter().map(|variant| run(&case, &[variant], 1).outputs.remove(0));
        for (draw, key) in draws.flat_map(|index| index.into_iter().enumerate()) {
            let row = &p[draw / samples * keys..][..keys];
            let uniforms = host_uniforms(header, 11, draw);
            assert!(
                agrees(row, uniforms, key),
                "{rows} {keys} {samples}: draw {draw} is {key} for the uniforms {uniforms:?}"
            );
            assert!(row[key as usize] > 0.0 || row.iter().all(|&p| p == 0.0), "draw {draw}: key {key} has no weight");
        }
    }
}

#[test]
fn rows_need_not_sum_to_one_and_keys_without_weight_are_never_drawn() {
    let rows = [[0.25, 0.25, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1e-7, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]];
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        let index = tape.rec.scratch("index", [1, 4, 64]);
        DrawKeys { samples: 64, stream: 1, by_batch: true, ranks: None }.record(&mut tape.rec, x[0], [0, 4], index);
        vec![index]
    };
    let case = Case::new("draw_keys", &build).constant([4, 4], rows.concat());
    for variant in DRAWS {
        let index = run(&case, &[variant], 1).outputs.remove(0);
        let count = |row: usize, key: f64| index[row * 64..][..64].iter().filter(|&&k| k == key).count();
        assert!(
            count(0, 0.0) > 16 && count(0, 1.0) > 16 && count(0, 0.0) + count(0, 1.0) == 64,
            "{variant}: {index:?}"
        );
        assert_eq!([count(1, 0.0), count(2, 1.0)], [64, 64], "{variant}: {index:?}");
        assert!(count(3, 1.0) > 0 && count(3, 2.0) > 0 && count(3, 1.0) + count(3, 2.0) == 64, "{variant}: {index:?}");
    }
}

fn drawn(sizes: Sizes, [q, k]: [&[f64]; 2], bias: Option<Vec<f64>>, samples: usize, header: Header) -> Case<'static> {
    let Sizes { batch, heads, n, m, d } = sizes;
    let scale = sizes.scale();
    let build = move |tape: &mut Tape<'_>, x: &[Tensor]| {
        let draw = DrawKeys { samples, stream: 4, by_batch: true, ranks: None };
        vec![Attend::new(scale).draw(&mut tape.rec, [x[0], x[1]], x.get(2).copied(), draw)]
    };
    // A case borrows what it records; these few live as long as the test.
    let case = Case::new(format!("draw {sizes:?}"), Box::leak(Box::new(build))).mode(Mode::Eval).header(header);
    let case = case.constant([batch, heads, n, d], q.to_vec()).constant([batch, heads, m, d], k.to_vec());
    bias.map_or(case.clone(), |bias| case.constant([batch, heads, m], bias))
}

/// Pearson's statistic of 40,000 draws a query: M - 1 on average, with a variance of 2 (M - 1); five standard errors.
#[test]
fn frequencies_are_the_softmax_weights() {
    let (sizes, samples) = (Sizes::new([2, 2, 3, 7, 4]), 40_000);
    let q: Vec<f64> = random(1, 48).into_iter().map(|x| 2.0 * x).collect();
    let k: Vec<f64> = random(2, 112).into_iter().map(|x| 2.0 * x).collect();
    let masked = |z: usize, key: usize| z == 2 && key % 3 == 1;
    let bias = (0..28).map(|i| if masked(i / 7, i % 7) { -1e30 } else { 0.0 }).collect();
    let expected = host_softmax(&sizes, &q, &k, &masked);
    let case = drawn(sizes, [&q, &k], Some(bias), samples, header(3, [1, 2]));
    for preferred in VARIANTS {
        let index = run(&case, preferred, 1).outputs.remove(0);
        for (row, (draws, expected)) in index.chunks(samples).zip(&expected).enumerate() {
            let mut counts = [0.0; 7];
            draws.iter().for_each(|&key| counts[key as usize] += 1.0);
            let seen = expected.iter().zip(counts).filter(|(p, _)| **p > 0.0);
            let terms: Vec<f64> =
                seen.map(|(p, count)| (count - p * samples as f64).powi(2) / (p * samples as f64)).collect();
            let (free, chi) = (terms.len() as f64 - 1.0, terms.iter().sum::<f64>());
            assert!(
                (chi - free).abs() < 5.0 * (2.0 * free).sqrt(),
                "row {row}: chi-square {chi}, not {free}: {counts:?}"
            );
            let unseen = expected.iter().zip(counts).filter(|(p, _)| **p == 0.0);
            assert!(unseen.into_iter().all(|(_, count)| count == 0.0), "row {row}: a masked key was drawn: {counts:?}");
        }
    }
}

/// More logits than fit a slab (4 Mi): slabs of whole matrices, and slabs of some rows of a matrix.
#[test]
fn slabs_find_their_places() {
    for sizes in [Sizes::new([17, 1, 512, 512, 1]), Sizes::new([2, 1, 1030, 4100, 1])] {
        let Sizes { batch, n, m, .. } = sizes;
        let [q, k] = [(1, n), (2, m)].map(|(seed, len)| random(seed, batch * len));
        let header = header(1, [9, 8]);
        let index = run(&drawn(sizes, [&q, &k], None, 1, header), &["forward_rows"], 1).outputs.remove(0);
        for at in [0, 1, n - 1, n, 1021, 1022, 1023, batch * n - n - 1, batch * n - n, batch * n - 1] {
            let matrix = &k[at / n * m..][..m];
            let row = host_softmax(&Sizes { batch: 1, n: 1, ..sizes }, &q[at..=at], matrix, &|_, _| false).remove(0);
            let uniforms = host_uniforms(header, 4, at);
            assert!(agrees(&row, uniforms, index[at]), "{sizes:?}: draw {at} is {} for {uniforms:?}", index[at]);
        }
    }
}

#[test]
fn another_step_seed_or_stream_draws_other_keys() {
    let sizes = Sizes::new([1, 1, 8, 16, 2]);
    let (q, k) = (random(1, 16), random(2, 32));
    let draw = |header| run(&drawn(sizes, [&q, &k], None, 4, header), &[], 1).outputs.remove(0);
    let base = draw(header(5, [1, 2]));
    assert_eq!(base, draw(header(5, [1, 2])));
    for other in
        [header(6, [1, 2]), header(5, [2, 2]), header(5, [1, 3]), Header { micro_step: 0, ..header(5, [1, 2]) }]
    {
        assert_ne!(base, draw(other), "{other:?}");
    }
}

/// `draws` keys of uniform probabilities.
fn uniform_draws(variant: &'static str, keys: usize, draws: usize) -> Vec<f64> {
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        let index = tape.rec.scratch("index", [1, 1, draws]);
        DrawKeys { samples: draws, stream: 3, by_batch: true, ranks: None }.record(&mut tape.rec, x[0], [0, 1], index);
        vec![index]
    };
    let share = f64::from(1.0 / keys as f32);
    let case =
        Case::new(format!("{keys} keys"), &build).constant([1, keys], vec![share; keys]).header(header(2, [7, 4]));
    run(&case, &[variant], 1).outputs.remove(0)
}

/// Every key of very many is drawn as often as any other, the last ones, too: Pearson's statistic over hundredths of the
/// keys, five standard errors, and the last hundredth by itself. (One running sum of 10^6 probabilities in f32 ends at
/// 1.009: the last 9,478 keys were never drawn.)
#[test]
fn the_last_of_very_many_keys_are_drawn_as_often_as_the_first() {
    for (keys, draws) in [(50_000, 40_000), (1_000_000, 20_000)] {
        let drawn = uniform_draws("forward", keys, draws);
        let mut counts = vec![0.0; 100];
        drawn.iter().for_each(|&key| counts[key as usize * 100 / keys] += 1.0);
        let (last, expected) = (counts[99], draws as f64 / 100.0);
        assert!((last - expected).abs() < 4.5 * expected.sqrt(), "{keys} keys: {last}, not {expected}, at the end");
        let chi: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
        assert!((chi - 99.0).abs() < 5.0 * 198.0_f64.sqrt(), "{keys} keys: chi-square {chi}, not 99: {counts:?}");
        let few = uniform_draws("forward_rows", keys, 64);
        assert_eq!(few, drawn[..64], "{keys} keys: the other variant draws others");
    }
}

/// At evaluation a sample draws the same keys in any place of any batch; while training copies draw others.
#[test]
fn only_training_draws_by_the_place_in_the_batch() {
    let config = AttentionConfig { mechanism: MechanismKind::Ra, num_samples: 2, ..AttentionConfig::default() };
    let copies = 3;
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        vec![mechanism(&config).unwrap().attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &Context::default())]
    };
    let outputs = |mode: Mode, copies: usize| {
        let mut case = Case::new("ra", &build).mode(mode).header(header(0, [5, 6]));
        for seed in 1..=3 {
            case = case.constant([copies, 2, 12, 4], random(seed, 2 * 12 * 4).repeat(copies));
        }
        run(&case, &["slabs", "forward"], 1).outputs.remove(0)
    };
    let alone = outputs(Mode::Eval, 1);
    let many = outputs(Mode::Eval, copies);
    assert!(many.chunks(alone.len()).all(|one| one == alone), "{many:?}, alone {alone:?}");
    let training = outputs(Mode::Train { accumulate: false }, copies);
    assert_eq!(training[..alone.len()], outputs(Mode::Train { accumulate: false }, 1));
    assert_ne!(training[..alone.len()], training[alone.len()..2 * alone.len()]);
}

#[test]
fn more_draws_than_can_be_recorded_are_refused_at_once() {
    let tune = lara_runtime::Tune::fixed(&[]);
    let mut parameters = lara_runtime::Parameters::new(lara_tests::adapter());
    let mut tape = Tape::new(&mut parameters, &tune, Mode::Eval);
    let [q, k] = ["q", "k"].map(|name| tape.input(name, [4096, 1, 65_536, 1]));
    _ = Attend::new(1.0).draw(
        &mut tape.rec,
        [q, k],
        None,
        DrawKeys { samples: 1, stream: 1, by_batch: true, ranks: None },
    );
    let error = tape.finish().expect_err("this must be refused").to_string();
    assert!(error.starts_with("drawing from 65536 keys for each of 65536 queries takes more than "), "{error}");
}
