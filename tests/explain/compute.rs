//! Exported rows: which one, over which heads and queries they are averaged, in which order, and with which numbers.

use lara_explain::export::compute::{Asked, Rolling, Selection, gradients, rollouts, rows};
use lara_explain::{Factor, Inspector, Kind, Map, Matrices, Query, Relevance};
use lara_models::Model;
use lara_runtime::Tune;
use lara_runtime::maps::Fusion;
use pollster::block_on;

use crate::gpu;
use crate::inspector::{fresh, inspector, matrices, random};

const HEADS: usize = 2;

fn text(error: lara_explain::Error) -> String {
    error.to_string()
}

fn asked(queries: &[&str]) -> Result<Vec<Asked>, String> {
    queries.iter().map(|query| query.parse().map_err(text)).collect()
}

fn selection(layers: &str, heads: &str, queries: &[&str]) -> Result<Selection, String> {
    let queries = asked(queries)?;
    Ok(Selection { layers: layers.parse().map_err(text)?, heads: heads.parse().map_err(text)?, queries })
}

/// An inspector that has run on an image.
fn run(subject: &Model, image: &[f32]) -> Inspector {
    let mut inspector = inspector(subject, false);
    inspector.run(image, 0).expect("it runs");
    inspector
}

fn picked(inspector: &mut Inspector, layers: &str, heads: &str, queries: &[&str]) -> Result<Vec<Map>, String> {
    block_on(rows(inspector, None, &selection(layers, heads, queries)?)).map_err(text)
}

/// The mean over the heads and queries that a map stands for, of matrices [heads, tokens, tokens].
fn wanted(matrices: &[Vec<f32>], map: &Map) -> Vec<f64> {
    let tokens = map.values.len();
    let heads = map.head.map_or(0..HEADS, |head| head..head + 1);
    let queries = match map.query {
        Query::Class => 0..1,
        Query::Patch(at) => map.prefix + at..map.prefix + at + 1,
        Query::Mean => 0..tokens,
    };
    let count = (heads.len() * queries.len()) as f64;
    let matrix = &matrices[map.layer.expect("a block's row")];
    let of = |h: usize, m: usize| {
        queries.clone().map(|n| f64::from(matrix[(h * tokens + n) * tokens + m])).sum::<f64>() / count
    };
    (0..tokens).map(|m| heads.clone().map(|h| of(h, m)).sum()).collect()
}

fn assert_near(map: &Map, wanted: &[f64], tolerance: f64) {
    assert_eq!(map.values.len(), wanted.len());
    for (m, (&value, &wanted)) in map.values.iter().zip(wanted).enumerate() {
        let error = (f64::from(value) - wanted).abs();
        assert!(error < tolerance, "{}: token {m} has {value}, not {wanted}", map.title());
    }
}

/// Twelve queries are more than are worked out at once.
const QUERIES: [&str; 12] = ["mean", "0,0", "3,3", "center", "1,2", "0,3", "3,0", "2,1", "1,1", "0,1", "mean", "3,2"];

#[test]
fn rows_are_those_of_the_matrices_in_their_order() {
    let cases: [(&[&str], [&str; 4]); 3] = [
        (&["attention.mechanism=softmax", "model.class_token=true", "model.global_pool=token"], ["softmax"; 4]),
        (&["attention.mechanism=lara"], ["lara"; 4]),
        (&["attention=[\"softmax\", \"lara\", \"lara\", \"softmax\"]"], ["softmax", "lara", "lara", "softmax"]),
    ];
    for (sets, mechanisms) in cases {
        let (subject, image) = (fresh(sets), random(5, 64));
        let (matrices, mut inspector) = (matrices(&subject, &image), run(&subject, &image));
        let prefix = subject.config.model.layer(0).prefix;
        let mut queries = QUERIES.to_vec();
        if prefix > 0 {
            queries[11] = "class";
        }
        let maps = picked(&mut inspector, "3,0,1", "1,0", &queries).expect("all of it is there");
        assert_eq!(maps.len(), 3 * 2 * 12);
        for (at, map) in maps.iter().enumerate() {
            let (layer, head, query) = ([3, 0, 1][at / 24], 1 - at / 12 % 2, queries[at % 12]);
            let expected = match query {
                "mean" => Query::Mean,
                "class" => Query::Class,
                "center" => Query::Patch(10),
                patch => {
                    let (row, column) = patch.split_once(',').expect("a patch");
                    Query::Patch(row.parse::<usize>().unwrap() * 4 + column.parse::<usize>().unwrap())
                }
            };
            assert_eq!((map.layer, map.head, map.query), (Some(layer), Some(head), expected));
            assert_eq!((map.mechanism.as_str(), map.kind), (mechanisms[layer], Kind::Attention));
            assert_eq!((map.prefix, map.grid), (prefix, [4, 4]));
            assert_near(map, &wanted(&matrices, map), 1e-5);
        }
        let maps = picked(&mut inspector, "all", "mean", &["mean", "1,0"]).expect("all of it is there");
        assert_eq!(maps.len(), 8);
        for (at, map) in maps.iter().enumerate() {
            assert_eq!((map.layer, map.head), (Some(at / 2), None));
            assert_near(map, &wanted(&matrices, map), 1e-5);
        }
        let named = block_on(rows(&mut inspector, Some("it"), &selection("0", "all", &["mean"]).unwrap())).unwrap();
        assert!(named.len() == HEADS && named.iter().all(|map| map.mechanism == "it"));
    }
}

#[test]
fn what_is_not_there_is_told() {
    let mut inspector = run(&fresh(&["model.depth=2"]), &random(5, 64));
    let cases: [(&str, &str, &str, &[&str]); 8] = [
        ("2", "mean", "mean", &["no layer 2", "has 2"]),
        ("all", "0,5", "mean", &["no head 5", "has 2"]),
        ("all", "mean", "4,0", &["row 4, column 0", "4 x 4"]),
        ("all", "mean", "class", &["no class token"]),
        ("x", "mean", "mean", &["`x`", "`all`"]),
        ("0,", "mean", "mean", &["`0,`"]),
        ("all", "some", "mean", &["`some`", "`mean`"]),
        ("all", "all", "left", &["`left`", "ROW,COLUMN"]),
    ];
    for (layers, heads, query, words) in cases {
        let said = picked(&mut inspector, layers, heads, &[query]).unwrap_err();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    let config = inspector.config().clone();
    let said = block_on(rollouts(Rolling::Linear(&mut inspector), &config, None, &[Asked::At(0, 4)])).unwrap_err();
    assert!(text(said).contains("row 0, column 4"));
    let said = "rolout".parse::<Kind>().map_err(text).unwrap_err();
    assert!(said.contains("`rolout`") && said.contains("rollout and gradient"), "{said}");
}

#[test]
fn rollouts_are_one_map_a_query() {
    let subject = fresh(&["attention=[\"softmax\", \"lara\", \"lara\", \"softmax\"]"]);
    let image = random(5, 64);
    let (config, queries) = (&subject.config, asked(&QUERIES).unwrap());
    let mut inspector = run(&subject, &image);
    let linear = block_on(rollouts(Rolling::Linear(&mut inspector), config, None, &queries)).unwrap();
    let of = |fusion: Fusion, ratio: f32| {
        let tune = Tune::fixed(&[]);
        let compiled = Matrices::new(gpu(), &tune, &subject, Factor::Attention, fusion);
        let mut matrices = block_on(compiled).expect("a small model");
        matrices.run(&image, 0).expect("it runs");
        block_on(rollouts(Rolling::Matrices(&mut matrices, ratio), config, Some("it"), &queries)).unwrap()
    };
    let (mean, discarded) = (of(Fusion::Mean, 0.0), of(Fusion::Max, 0.5));
    assert_eq!((linear.len(), mean.len()), (12, 12));
    for ((linear, mean), discarded) in linear.iter().zip(&mean).zip(&discarded) {
        assert_eq!((linear.kind, linear.layer, linear.head), (Kind::Rollout, None, None));
        assert_eq!((linear.mechanism.as_str(), mean.mechanism.as_str()), ("softmax+lara", "it"));
        assert_eq!((linear.query, linear.grid, linear.prefix), (mean.query, mean.grid, mean.prefix));
        assert_near(linear, &mean.values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), 1e-5);
        assert_ne!(mean.values, discarded.values, "what is discarded is missing");
    }
}

#[test]
fn gradient_weighted_maps_are_means_over_the_queries() {
    // The preset's own initial head is 0, and so is every gradient behind it.
    let subject = fresh(&["attention.mechanism=softmax", "model.depth=2", "model.weight_init=timm"]);
    let image = random(5, 64);
    let tune = Tune::fixed(&[]);
    let mut relevance = block_on(Relevance::new(gpu(), &tune, &subject)).expect("a small model");
    // A class that values of every head speak for: where all speak against one, a map is zero.
    relevance.run(&image, 5).expect("it runs");
    let layers = block_on(relevance.read()).expect("it comes back");
    let of = |layers: &str, heads: &str| {
        let (layers, heads) = (layers.parse().map_err(text)?, heads.parse().map_err(text)?);
        block_on(gradients(&relevance, &subject.config, None, &layers, &heads)).map_err(text)
    };
    let maps = [of("1,0", "1,0").unwrap(), of("1,0", "mean").unwrap()].concat();
    let places = [(1, Some(1)), (1, Some(0)), (0, Some(1)), (0, Some(0)), (1, None), (0, None)];
    assert_eq!(maps.len(), places.len());
    for (map, (layer, head)) in maps.iter().zip(places) {
        assert_eq!((map.kind, map.layer, map.head), (Kind::Gradient, Some(layer), head));
        assert_eq!((map.query, map.mechanism.as_str()), (Query::Mean, "softmax"));
        let row = &layers[layer][head.unwrap_or(HEADS) * 16..][..16];
        assert_near(map, &row.iter().map(|&x| f64::from(x) / 16.0).collect::<Vec<_>>(), 1e-7);
        assert!(map.values.iter().all(|&x| x >= 0.0) && map.values.iter().any(|&x| x > 0.0));
    }
    assert!(of("2", "all").unwrap_err().contains("no layer 2"));
    assert!(of("0", "2").unwrap_err().contains("no head 2"));
    let said = relevance.run(&image, 10).map_err(text).unwrap_err();
    assert!(said.contains("no class 10") && said.contains("has 10"), "{said}");
}
