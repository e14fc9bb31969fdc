//! Rollout and gradient-weighted attention, against a plain calculation over the explicit matrices.

use lara_explain::{Error, Factor, Head, Inspector, MOST_TOKENS, Matrices, Query, Relevance};
use lara_models::data::{Dataset, Digits, Split};
use lara_models::{Model, Predictor};
use lara_runtime::maps::Fusion;
use lara_runtime::{Gpu, Parameters, Role, Tune};

use crate::gpu;
use crate::inspector::{fresh, inspector, random};

const TOKENS: usize = 64;

fn subject() -> Model {
    lara_explain::bundled_digits().expect("the bundled model is whole")
}

fn image(subject: &Model) -> Vec<f32> {
    let digit = Digits::new(Split::Test).get(2).expect("the digits are in the program");
    subject.normalise(&digit.pixels).expect("digits fit")
}

/// Attention matrices [heads, N, N] of every layer.
fn matrices(gpu: &Gpu, subject: &Model, image: &[f32]) -> Vec<Vec<f32>> {
    let mut parameters = Parameters::new(gpu);
    let tune = Tune::fixed(&[]);
    let new = Predictor::new(gpu, &tune, &subject.config, &mut parameters, 1, true);
    let predictor = pollster::block_on(new).expect("the model compiles");
    let lara_models::Weights::Stored(trained) = &subject.weights else { panic!("a file's weights") };
    let wanted = lara_models::train::names_and_shapes(&parameters);
    for (index, values) in trained.get_all(&wanted).expect("all weights").iter().enumerate() {
        parameters.write(gpu, Role::Weight, index, values).unwrap();
    }
    pollster::block_on(predictor.logits(image)).expect("it runs");
    pollster::block_on(predictor.maps()).expect("maps come back").into_iter().map(|(_, values)| values).collect()
}

fn compiled(subject: &Model, factor: Factor, fusion: Fusion) -> Matrices {
    let tune = Tune::fixed(&[]);
    pollster::block_on(Matrices::new(gpu(), &tune, subject, factor, fusion)).expect("the model compiles")
}

fn relevance(subject: &Model) -> Relevance {
    let tune = Tune::fixed(&[]);
    pollster::block_on(Relevance::new(gpu(), &tune, subject)).expect("the model compiles")
}

/// Rollout rows in linear memory.
fn rolled(inspector: &mut Inspector, queries: &[Query]) -> Vec<f32> {
    assert_eq!(inspector.roll_out(queries).expect("it rolls"), queries.len());
    pollster::block_on(inspector.read_rolled()).expect("rows come back")
}

/// (A + I) / 2 with rows summing to 1, multiplied from the first layer on; heads averaged.
fn plain_rollout(layers: &[Vec<f32>]) -> Vec<f64> {
    let heads = layers[0].len() / (TOKENS * TOKENS);
    let mut result: Vec<f64> = (0..TOKENS * TOKENS).map(|i| f64::from(u8::from(i / TOKENS == i % TOKENS))).collect();
    for layer in layers {
        let mut mixed = vec![0.0; TOKENS * TOKENS];
        for n in 0..TOKENS {
            let row: Vec<f64> = (0..TOKENS)
                .map(|m| {
                    let mean = (0..heads).map(|h| f64::from(layer[(h * TOKENS + n) * TOKENS + m])).sum::<f64>();
                    mean / heads as f64 + f64::from(u8::from(n == m))
                })
                .collect();
            let sum: f64 = row.iter().sum();
            (0..TOKENS).for_each(|m| mixed[n * TOKENS + m] = row[m] / sum);
        }
        let product = |n: usize, m: usize| (0..TOKENS).map(|k| mixed[n * TOKENS + k] * result[k * TOKENS + m]).sum();
        result = (0..TOKENS * TOKENS).map(|i| product(i / TOKENS, i % TOKENS)).collect();
    }
    result
}

#[test]
fn rollout_is_the_product_of_the_layers() {
    let subject = subject();
    let image = image(&subject);
    let wanted = plain_rollout(&matrices(gpu(), &subject, &image));
    let mut rolled = compiled(&subject, Factor::Attention, Fusion::Mean);
    rolled.run(&image, 0).expect("it runs");
    rolled.look(&[Query::Patch(20), Query::Mean], 0.0).expect("it can be looked at");
    let rows = pollster::block_on(rolled.read()).expect("rows come back");
    for m in 0..TOKENS {
        let mean = (0..TOKENS).map(|n| wanted[n * TOKENS + m]).sum::<f64>() / TOKENS as f64;
        assert!((f64::from(rows[m]) - wanted[20 * TOKENS + m]).abs() < 1e-5, "token {m}: {}", rows[m]);
        assert!((f64::from(rows[TOKENS + m]) - mean).abs() < 1e-5, "mean of token {m}: {}", rows[TOKENS + m]);
    }
    rolled.look(&[Query::Patch(20)], 0.9).expect("it can be looked at");
    let discarded = pollster::block_on(rolled.read()).expect("rows come back");
    assert_ne!(&rows[..TOKENS], &discarded[..TOKENS], "discarding nine tenths changes the row");
    let sum: f32 = discarded[..TOKENS].iter().sum();
    assert!((sum - 1.0).abs() < 1e-4, "a rollout row sums to {sum}");
}

#[test]
fn gradient_weighted_attention_depends_on_the_class_and_is_not_negative() {
    let subject = subject();
    let image = image(&subject);
    let mut weighted = compiled(&subject, Factor::Gradient, Fusion::Mean);
    let mut relevance = relevance(&subject);
    let mut read = |class: usize| {
        weighted.run(&image, class).expect("it runs");
        weighted.look(&[Query::Mean], 0.0).expect("it can be looked at");
        relevance.run(&image, class).expect("it runs");
        let rows = pollster::block_on(weighted.read()).expect("rows come back");
        (rows, pollster::block_on(relevance.read()).expect("layers come back"))
    };
    let ((one, layers), (other, others)) = (read(1), read(8));
    assert_ne!(one, other, "two classes have two explanations");
    assert_ne!(layers, others, "two classes have two explanations");
    assert_eq!(layers.len(), relevance.sizes().layers);
    let said = weighted.run(&image, 10).expect_err("ten classes are counted from 0").to_string();
    assert!(said.contains("no class 10") && said.contains("has 10"), "{said}");
    assert!(layers.iter().flatten().chain(&one).all(|x| x.is_finite() && *x >= 0.0));
    assert!(layers.iter().all(|layer| layer.iter().any(|x| *x > 0.0)), "every layer has something to say");
}

#[test]
fn more_tokens_than_a_matrix_is_worked_out_for_are_refused_with_the_numbers() {
    let mut subject = subject();
    subject.config.set("model.image_size=64").unwrap();
    let tune = Tune::fixed(&[]);
    let refused = pollster::block_on(Matrices::new(gpu(), &tune, &subject, Factor::Attention, Fusion::Mean));
    let Err(Error::BadInput(sentence)) = refused else { panic!("4,096 tokens were accepted") };
    assert!(sentence.contains("4096") && sentence.contains(&MOST_TOKENS.to_string()), "{sentence}");
}

#[test]
fn a_rollout_without_matrices_is_the_same() {
    let subject = subject();
    let image = image(&subject);
    let mut matrices = compiled(&subject, Factor::Attention, Fusion::Mean);
    matrices.run(&image, 0).expect("it runs");
    let mut linear = inspector(&subject, false);
    linear.run(&image, 0).expect("it runs");
    let layers: Vec<usize> = (0..linear.sizes().layers).collect();
    let rows_of = |linear: &mut Inspector| {
        linear.look(&[Query::Patch(7)], &layers, None).expect("it can be looked at");
        pollster::block_on(linear.read_maps("", &layers, &[Head::Mean])).expect("rows come back")
    };
    let before = rows_of(&mut linear);
    for queries in [&[Query::Patch(20), Query::Mean, Query::Patch(0), Query::Patch(63)][..], &[Query::Patch(36)]] {
        matrices.look(queries, 0.0).expect("it can be looked at");
        let wanted = pollster::block_on(matrices.read()).expect("rows come back");
        let got = rolled(&mut linear, queries);
        for (at, (got, wanted)) in got.iter().zip(&wanted).take(queries.len() * TOKENS).enumerate() {
            let (query, token) = (queries[at / TOKENS], at % TOKENS);
            assert!((got - wanted).abs() < 1e-5, "{query:?}, token {token}: {got}, not {wanted}");
        }
        // The selection was rolled on in place; it is written anew every time.
        assert_eq!(rolled(&mut linear, queries), got);
    }
    assert_eq!(rows_of(&mut linear), before, "a look behind a rollout sees what it saw before it");
    assert!(linear.rolled(0).is_some() && linear.rolled(linear.sizes().slots).is_none());
    assert_eq!(linear.roll_out(&[Query::Class, Query::Patch(64)]).expect("there is nothing to roll"), 0);
}

/// LARA with this many patches a side and two blocks.
fn large(side: usize) -> Model {
    let size = format!("model.image_size={side}");
    // The preset's own initial head is 0, and so is every gradient behind it.
    let sets = ["model.patch_size=1", "model.depth=2", "model.weight_init=timm"];
    fresh(&[&[&size, "attention.mechanism=lara", "attention.num_landmarks=36"][..], &sets].concat())
}

#[test]
fn three_thousand_tokens_roll_out_without_a_matrix() {
    let subject = large(56);
    let mut linear = inspector(&subject, false);
    let mut weighted = relevance(&subject);
    let tokens = linear.sizes().tokens();
    assert_eq!(tokens, 3136);
    let matrix = (tokens * tokens * 4) as u64;
    for largest in [linear.plan().largest_buffer(), weighted.plan().largest_buffer()] {
        assert!(largest * 4 < matrix, "a buffer of {largest} bytes; a matrix has {matrix}");
    }
    let image = random(1, tokens);
    linear.run(&image, 0).expect("it runs");
    let rows = rolled(&mut linear, &[Query::Patch(99), Query::Mean]);
    for (row, own) in rows.chunks(tokens).zip([Some(99), None]) {
        let sum: f64 = row.iter().map(|&x| f64::from(x)).sum();
        assert!((sum - 1.0).abs() < 1e-4, "a row of a rollout sums to {sum}");
        // What the residual connection passes on through two layers is a quarter.
        assert!(own.is_none_or(|own| row[own] > 0.25), "{own:?} keeps {:?}", own.map(|own| row[own]));
    }
    weighted.run(&image, 0).expect("it runs");
    let layers = pollster::block_on(weighted.read()).expect("layers come back");
    assert!(layers.len() == 2 && layers.iter().flatten().all(|x| x.is_finite() && *x >= 0.0));
    assert!(layers.iter().all(|layer| layer.iter().any(|x| *x > 0.0)), "every layer has something to say");
}
