//! Rollout and gradient-weighted attention, against a plain calculation over the explicit matrices.

use lara_models::Predictor;
use lara_runtime::maps::Fusion;
use lara_runtime::{Gpu, Parameters, Role, Tune};
use lara_viewer::inspect::{Factor, MOST_TOKENS, Matrices, Subject};
use lara_viewer::pictures::Gallery;
use lara_viewer::settings::{Page, Settings};
use lara_viewer::{Error, Query};

use egui_kittest::kittest::Queryable;

use crate::window::{app, gpu, open, snapshot, wait};

const TOKENS: usize = 64;

fn subject() -> Subject {
    Subject::bundled().expect("the bundled model is whole")
}

fn image(subject: &Subject) -> Vec<f32> {
    let gallery = Gallery::digits(3).expect("the digits are in the program");
    subject.normalise(&gallery.entries[2].pixels).expect("digits fit")
}

/// Attention matrices [heads, N, N] of every layer.
fn matrices(gpu: &Gpu, subject: &Subject, image: &[f32]) -> Vec<Vec<f32>> {
    let mut parameters = Parameters::new(gpu);
    let tune = Tune::fixed(&[]);
    let new = Predictor::new(gpu, &tune, &subject.config, &mut parameters, 1, true);
    let predictor = pollster::block_on(new).expect("the model compiles");
    let lara_viewer::inspect::Weights::Stored(trained) = &subject.weights else { panic!("a file's weights") };
    let wanted = lara_models::train::names_and_shapes(&parameters);
    for (index, values) in trained.weights.get_all(&wanted).expect("all weights").iter().enumerate() {
        parameters.write(gpu, Role::Weight, index, values);
    }
    pollster::block_on(predictor.logits(image)).expect("it runs");
    pollster::block_on(predictor.maps()).expect("maps come back").into_iter().map(|(_, values)| values).collect()
}

fn compiled(subject: &Subject, factor: Factor, fusion: Fusion) -> Matrices {
    let tune = Tune::fixed(&[]);
    pollster::block_on(Matrices::new(gpu(), &tune, subject, factor, fusion)).expect("the model compiles")
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
    let (rows, _) = pollster::block_on(rolled.read()).expect("rows come back");
    for m in 0..TOKENS {
        let mean = (0..TOKENS).map(|n| wanted[n * TOKENS + m]).sum::<f64>() / TOKENS as f64;
        assert!((f64::from(rows[m]) - wanted[20 * TOKENS + m]).abs() < 1e-5, "token {m}: {}", rows[m]);
        assert!((f64::from(rows[TOKENS + m]) - mean).abs() < 1e-5, "mean of token {m}: {}", rows[TOKENS + m]);
    }
    rolled.look(&[Query::Patch(20)], 0.9).expect("it can be looked at");
    let (discarded, _) = pollster::block_on(rolled.read()).expect("rows come back");
    assert_ne!(&rows[..TOKENS], &discarded[..TOKENS], "discarding nine tenths changes the row");
    let sum: f32 = discarded[..TOKENS].iter().sum();
    assert!((sum - 1.0).abs() < 1e-4, "a rollout row sums to {sum}");
}

#[test]
fn gradient_weighted_attention_depends_on_the_class_and_is_not_negative() {
    let subject = subject();
    let image = image(&subject);
    let mut weighted = compiled(&subject, Factor::Gradient, Fusion::Mean);
    let mut read = |class: usize| {
        weighted.run(&image, class).expect("it runs");
        weighted.look(&[Query::Mean], 0.0).expect("it can be looked at");
        pollster::block_on(weighted.read()).expect("rows come back")
    };
    let ((one, layers), (other, _)) = (read(1), read(8));
    assert_ne!(one, other, "two classes have two explanations");
    assert!(layers.iter().flatten().chain(&one).all(|x| x.is_finite() && *x >= 0.0));
    assert!(layers.iter().all(|layer| layer.iter().any(|x| *x > 0.0)), "every layer has something to say");
}

#[test]
fn more_tokens_than_a_matrix_is_worked_out_for_are_refused_with_the_numbers() {
    let mut subject = subject();
    subject.config.model.image_size = 64;
    let tune = Tune::fixed(&[]);
    let refused = pollster::block_on(Matrices::new(gpu(), &tune, &subject, Factor::Attention, Fusion::Mean));
    let Err(Error::BadInput(sentence)) = refused else { panic!("4,096 tokens were accepted") };
    assert!(sentence.contains("4096") && sentence.contains(&MOST_TOKENS.to_string()), "{sentence}");
}

#[test]
fn the_page_shows_rollouts_and_layers() {
    let mut window = open([1180.0, 780.0], 1.0, Settings { page: Page::Rollout, ..Settings::default() });
    wait(&mut window, "the rollout", |app| !app.is_busy());
    window.run_steps(3);
    snapshot(&mut window, "rollout");
    window.get_by_label("Gradient-weighted, by layer").click();
    window.step();
    wait(&mut window, "the gradient", |app| !app.is_busy());
    window.run_steps(3);
    snapshot(&mut window, "relevance");
    assert!(window.query_all_by_label("layer 3").count() > 0, "every layer has a map");
    assert_eq!(app(&mut window).status().errors, Vec::<String>::new());
}
