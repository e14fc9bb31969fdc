//! What the viewer shows is the implied matrix, and it takes no matrix to show it.

use lara_explain::{Head, Inspector, Query};
use lara_models::train::TrainConfig;
use lara_models::{Model, Predictor, Weights};
use lara_runtime::{Parameters, Role, Tune};

use crate::gpu;

fn tune() -> Tune {
    Tune::fixed(&[])
}

pub(crate) fn random(seed: u32, count: usize) -> Vec<f32> {
    lara_tests::random(seed, count).into_iter().map(|x| x as f32).collect()
}

pub(crate) fn inspector(subject: &Model, noise: bool) -> Inspector {
    let tune = tune();
    pollster::block_on(Inspector::new(gpu(), &tune, subject, &subject.config, noise)).expect("the model compiles")
}

/// A model with fresh weights, and those weights.
pub(crate) fn fresh(sets: &[&str]) -> Model {
    let mut all = vec!["train.seed=3"];
    all.extend(sets);
    let config = TrainConfig::load("digits", &all).expect("a preset with settings");
    let mut parameters = Parameters::new(gpu());
    let tune = tune();
    pollster::block_on(Predictor::new(gpu(), &tune, &config, &mut parameters, 1, false)).expect("a small model");
    parameters.initialize(gpu(), 3).unwrap();
    // Weights as they are drawn give nearly uniform attention; larger ones do not.
    for (index, entry) in parameters.entries().iter().enumerate().filter(|(_, e)| e.name.contains("qkv.weight")) {
        let values: Vec<f32> = random(index as u32, entry.shape.len()).iter().map(|x| 0.3 * x).collect();
        parameters.write(gpu(), Role::Weight, index, &values).unwrap();
    }
    let weights = Weights::Live(std::sync::Arc::new(parameters));
    Model { name: "fresh".into(), config, classes: vec![], weights }
}

fn rows(subject: &Model, image: &[f32], queries: &[Query]) -> Vec<lara_explain::Map> {
    let mut inspector = inspector(subject, false);
    inspector.run(image, 0).expect("it runs");
    let layers: Vec<usize> = (0..inspector.sizes().layers).collect();
    inspector.look(queries, &layers, None).expect("it can be looked at");
    let heads = [Head::One(0), Head::One(1), Head::Mean];
    pollster::block_on(inspector.read_maps("", &layers, &heads)).expect("rows come back")
}

/// Rows of the N x N matrices that `Attention::weights` makes.
pub(crate) fn matrices(subject: &Model, image: &[f32]) -> Vec<Vec<f32>> {
    let Weights::Live(parameters) = &subject.weights else { panic!("fresh weights are live") };
    let mut parameters = (**parameters).clone();
    let tune = tune();
    let new = Predictor::new(gpu(), &tune, &subject.config, &mut parameters, 1, true);
    let predictor = pollster::block_on(new).expect("the model compiles");
    pollster::block_on(predictor.logits(image)).expect("it runs");
    pollster::block_on(predictor.maps()).expect("maps come back").into_iter().map(|(_, values)| values).collect()
}

#[test]
fn rows_are_those_of_the_implied_matrix_for_every_mechanism() {
    let cases: [&[&str]; 8] = [
        &["attention.mechanism=softmax", "model.class_token=true", "model.global_pool=token"],
        &["attention.mechanism=softmax"],
        &["attention.mechanism=lara"],
        &["attention.mechanism=lara", "attention.proposal_gen=pool-vmixed", "attention.mis_type=mis-bh"],
        &["attention.mechanism=lara", "attention.mis_type=mis-biased", "model.class_token=true"],
        &["attention.mechanism=ra", "attention.num_samples=0", "attention.noise=none"],
        &["attention.mechanism=rfa"],
        &["attention.mechanism=performer"],
    ];
    for sets in cases {
        let subject = fresh(sets);
        let image = random(5, 64);
        let grid_tokens = 16 + subject.config.model.layer(0).prefix;
        let prefix = grid_tokens - 16;
        let mut queries = vec![Query::Patch(0), Query::Patch(7), Query::Patch(15), Query::Mean];
        if prefix > 0 {
            queries.push(Query::Class);
        }
        let matrices = matrices(&subject, &image);
        for map in rows(&subject, &image, &queries) {
            let matrix = &matrices[map.layer.unwrap()];
            let heads: Vec<usize> = map.head.map_or_else(|| vec![0, 1], |head| vec![head]);
            let weight = |n: usize, m: usize| {
                let sum: f32 = heads.iter().map(|h| matrix[(h * grid_tokens + n) * grid_tokens + m]).sum();
                sum / heads.len() as f32
            };
            for m in 0..grid_tokens {
                let wanted = match map.query {
                    Query::Class => weight(0, m),
                    Query::Patch(n) => weight(prefix + n, m),
                    Query::Mean => (0..grid_tokens).map(|n| weight(n, m)).sum::<f32>() / grid_tokens as f32,
                };
                let error = (map.values[m] - wanted).abs();
                assert!(error < 2e-5, "{sets:?} {}: key {m} has {} and not {wanted}", map.title(), map.values[m]);
            }
        }
    }
}

#[test]
fn three_thousand_tokens_take_no_matrix() {
    let sets = [
        "attention.mechanism=lara",
        "attention.num_landmarks=49",
        "model.image_size=56",
        "model.patch_size=1",
        "model.depth=1",
    ];
    let subject = fresh(&sets);
    let mut inspector = inspector(&subject, false);
    let tokens = inspector.sizes().tokens();
    assert_eq!(tokens, 3136);
    let largest = inspector.plan().largest_buffer();
    let matrix = (tokens * tokens * 4) as u64;
    assert!(largest * 4 < matrix, "a buffer of {largest} bytes; a matrix has {matrix}");
    inspector.run(&random(1, tokens), 0).expect("it runs");
    inspector.look(&[Query::Patch(99)], &[0], None).expect("it can be looked at");
    let maps = pollster::block_on(inspector.read_maps("lara", &[0], &[Head::One(1)])).expect("rows come back");
    let sum: f32 = maps[0].values.iter().sum();
    assert!((sum - 1.0).abs() < 1e-4, "a row of attention sums to {sum}");
}

#[test]
fn noise_is_drawn_only_where_it_is_asked_for() {
    let subject = fresh(&["attention.mechanism=lara"]);
    let image = random(2, 64);
    let draw = |noise: bool, number: u32| {
        let mut inspector = inspector(&subject, noise);
        inspector.run(&image, number).expect("it runs");
        inspector.look(&[Query::Patch(3)], &[0], None).expect("it can be looked at");
        pollster::block_on(inspector.read_maps("lara", &[0], &[Head::Mean])).expect("rows come back").remove(0).values
    };
    assert_eq!(draw(false, 0), draw(false, 1), "evaluation has no noise");
    assert_ne!(draw(true, 0), draw(true, 1), "two draws differ");
    assert_eq!(draw(true, 1), draw(true, 1), "a draw is a function of its number");
}
