//! `lara experiment`: small ones, to their files.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::cli::{assert_says, json, output, refusal, trained};

/// 48 tokens of 8 channels, two seeds.
const SMALL: [&str; 7] = [
    "experiment",
    "approximation",
    "--tokens=48",
    "--head-dim=8",
    "--heads=2",
    "--seeds=2",
    "--estimators=lara-mean,lara-exact",
];

/// `more` in the place of what is there under the same names.
fn laid_over<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let option = |argument: &str| argument.split('=').next().map(str::to_owned);
    let is_kept = |argument: &&&str| {
        !argument.starts_with("--")
            || argument.starts_with("--set")
            || !more.iter().any(|m| option(m) == option(argument))
    };
    arguments.iter().filter(is_kept).chain(more).copied().collect()
}

fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    laid_over(&SMALL, more)
}

/// Mean squared error of a point.
fn mse(report: &Value, group: &str, estimator: &str, samples: u64) -> f64 {
    let points = report["points"].as_array().unwrap().iter();
    let mut found =
        points.filter(|p| p["group"] == group && p["estimator"] == estimator && p["samples"].as_u64() == Some(samples));
    let point = found.next().unwrap_or_else(|| panic!("no {estimator} S = {samples} of {group} in {report}"));
    point["mse"]["mean"].as_f64().unwrap()
}

/// A table as CSV, with so many lines, and JSON, and its chart.
fn assert_files(folder: &Path, stem: &str, lines: usize) {
    assert_table(folder, stem, lines);
    assert!(fs::read(folder.join(format!("{stem}.png"))).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
    let svg = fs::read_to_string(folder.join(format!("{stem}.svg"))).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("<text"), "{svg}");
}

fn assert_table(folder: &Path, stem: &str, lines: usize) {
    let csv = fs::read_to_string(folder.join(format!("{stem}.csv"))).unwrap();
    assert_eq!(csv.lines().count(), lines, "{csv}");
    let columns = |line: &str| line.split('"').step_by(2).map(|part| part.matches(',').count()).sum::<usize>();
    assert!(csv.lines().all(|line| columns(line) == columns(csv.lines().next().unwrap())), "{csv}");
    serde_json::from_str::<Value>(&fs::read_to_string(folder.join(format!("{stem}.json"))).unwrap()).unwrap();
}

#[test]
fn approximation_of_random_attention() {
    let temp = tempfile::tempdir().unwrap();
    let run =
        |more: &[&str]| json(temp.path(), &small(&[&["--output-dir=a", "--json", "--samples=1,16,64"], more].concat()));
    let report = run(&[]);
    // Values are standard normal and attention is nearly uniform: the variance of a mean of 48, give or take.
    let uniform = mse(&report, "random", "uniform", 0);
    assert!(uniform > 1e-4 && uniform < 4e-3, "{uniform}");
    // Noise of 2^(3/4) a proposal, averaged over more of them.
    assert!(mse(&report, "random", "lara-exact", 16) < mse(&report, "random", "lara-exact", 1), "{report}");
    assert!(mse(&report, "random", "lara-mean", 16) < mse(&report, "random", "lara-exact", 16), "{report}");
    assert!(report["points"][0]["relative"]["standard_error"].as_f64() > Some(0.0));
    let skipped = report["skipped"].as_array().unwrap();
    assert_eq!((skipped.len(), &skipped[0]["samples"][0]), (2, &Value::from(64)), "{report}");
    assert_files(&temp.path().join("a"), "approximation", 1 + 5);
    assert_eq!(report, run(&[]), "the same seeds gave other errors");
    // All queries and keys are zero: everything attends equally, and there is no error that a chart could show.
    let report = run(&["--amplitude=0", "--estimators=lara-mean"]);
    for (estimator, samples) in [("uniform", 0), ("lara-mean", 1), ("lara-mean", 16)] {
        assert!(mse(&report, "random", estimator, samples) < 1e-10, "{report}");
    }
    let said = output(temp.path(), &small(&["--output-dir=a", "--samples=4,64", "--seeds=1"]));
    assert_says(&said, &["random, amplitude 0.5", "S = 4", "lara-mean", "uniform", "left out for S = 64", "48 tokens"]);
}

#[test]
fn approximation_of_a_trained_models_attention() {
    let (folder, temp) = (trained(), tempfile::tempdir().unwrap());
    let dir = temp.path().to_str().unwrap();
    let arguments =
        ["experiment", "approximation", "--source", "checkpoint", "run", "--count=4", "--seeds=2", "--samples=1,4"];
    let more = ["--estimators=lara-mean,lara-learned", "--json", "--output-dir", dir];
    let report = json(folder, &[&arguments[..], &more].concat());
    // 8x8 pixels in patches of 4; two heads of 16.
    assert_eq!(report["shape"], Value::from(vec![4, 2, 4, 16]));
    for (estimator, samples) in [("lara-mean", 1), ("lara-learned", 4), ("uniform", 0)] {
        let error = mse(&report, "block 0", estimator, samples);
        assert!(error > 1e-6 && error < 10.0, "{error}");
    }
    assert_ne!(mse(&report, "block 0", "lara-mean", 4), mse(&report, "block 0", "lara-learned", 4));
    assert_files(temp.path(), "approximation", 1 + 5);
    let said = refusal(folder, &laid_over(&arguments, &["--count=300"]));
    assert_says(&said, &["--count 300", "600", "360 held-out images"]);
}

#[test]
fn approximation_refuses_what_makes_no_sense() {
    let temp = tempfile::tempdir().unwrap();
    let says = |more: &[&str], words: &[&str]| assert_says(&refusal(temp.path(), &small(more)), words);
    says(&["--source", "chekpoint"], &["chekpoint", "--source random"]);
    says(&["--source", "checkpoint", "nowhere"], &["nowhere"]);
    says(&["--images", "a.png"], &["--images", "--source checkpoint"]);
    says(&["--samples=0"], &["--samples has a 0"]);
    says(&["--head-dim=257"], &["--head-dim is 257", "256"]);
    says(&["--amplitude=nan"], &["--amplitude is NaN"]);
    says(&["--set=proposal_gen=pool"], &["proposal_gen", "no-param-pool"]);
    says(&["--set=mis_typ=mis-bh"], &["mis_typ", "did you mean `mis_type`?"]);
    says(&["--samples=64"], &["nothing could be measured", "48 tokens"]);
}

#[test]
fn classification_trains_each_mechanism_once() {
    let temp = tempfile::tempdir().unwrap();
    let arguments = [
        "experiment",
        "classification",
        "--mechanisms=softmax,lara",
        "--seeds=2",
        "--epochs=1",
        "--set=model.patch_size=4",
        "--set=model.embed_dim=16",
        "--set=model.depth=1",
        "--output-dir=c",
    ];
    let with = |more: &[&'static str]| laid_over(&arguments, more);
    let report = json(temp.path(), &with(&["--json"]));
    let names: Vec<&str> =
        report["rows"].as_array().unwrap().iter().map(|r| r["mechanism"].as_str().unwrap()).collect();
    assert_eq!(names, ["softmax", "lara"]);
    // LARA's landmark generators have weights of their own.
    assert!(report["rows"][0]["parameters"].as_u64() < report["rows"][1]["parameters"].as_u64());
    for run in report["runs"].as_array().unwrap() {
        assert_eq!(run["steps"], 44);
        let accuracy = run["accuracy"].as_f64().unwrap();
        assert!(accuracy > 0.05 && accuracy <= 1.0 && run["step_milliseconds"].as_f64() > Some(0.0), "{run}");
    }
    assert_files(&temp.path().join("c"), "classification", 1 + 4);
    // A finished run is taken from its file: another number there comes back.
    let file = temp.path().join("c/lara-seed-2/result.json");
    let mut result: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    result["accuracy"] = Value::from(1.0);
    fs::write(&file, result.to_string()).unwrap();
    let said = output(temp.path(), &arguments);
    assert_says(&said, &["digits: 44 steps, 2 seeds", "softmax", "to 100.00 %"]);
    let said = refusal(temp.path(), &with(&["--set=train.lr=1e-4"]));
    assert_says(&said, &["softmax-seed-1", "other settings", "--output-dir"]);
    fs::write(&file, "{}").unwrap();
    assert_says(&refusal(temp.path(), &arguments), &["result.json", "delete it"]);
    assert_says(&refusal(temp.path(), &with(&["--mechanisms=soft"])), &["soft", "softmax"]);
}

/// Two factors show that one is varied at a time.
#[test]
fn ablation_varies_one_setting_at_a_time() {
    let temp = tempfile::tempdir().unwrap();
    let arguments = [
        "experiment",
        "ablation",
        "--factors=landmarks,mis",
        "--seeds=1",
        "--epochs=1",
        "--set=model.patch_size=4",
        "--set=model.embed_dim=16",
        "--set=model.depth=1",
        "--output-dir=a",
    ];
    let with = |more: &[&'static str]| laid_over(&arguments, more);
    let report = json(temp.path(), &with(&["--json"]));
    let rows = |factor: usize| {
        let rows = report["factors"][factor]["rows"].as_array().unwrap().iter();
        rows.map(|r| (r["value"].as_str().unwrap(), r["baseline"].as_bool().unwrap())).collect::<Vec<_>>()
    };
    // 4 tokens on a grid of 2 x 2.
    assert_eq!(rows(0), [("1", false), ("4", true)]);
    assert_eq!(rows(1), [("mis-opt", true), ("mis-bh", false), ("mis-biased", false)]);
    let runs = report["runs"].as_array().unwrap();
    let names: Vec<&str> = runs.iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["baseline", "landmarks-1", "mis-bh", "mis-biased"]);
    let accuracies: Vec<f64> = runs.iter().map(|run| run["accuracy"].as_f64().unwrap()).collect();
    let losses: Vec<f64> = runs.iter().map(|run| run["loss"].as_f64().unwrap()).collect();
    assert!((1..4).all(|at| losses[at] != losses[0]), "a setting changed nothing: {losses:?}");
    assert_eq!(report["factors"][1]["rows"][0]["accuracy"]["mean"], accuracies[0]);
    // One line a factor, value and seed: the preset's stands in both.
    assert_table(&temp.path().join("a"), "ablation", 1 + 5);
    for stem in ["ablation-landmarks", "ablation-mis"] {
        assert!(fs::read_to_string(temp.path().join(format!("a/{stem}.svg"))).unwrap().contains("<text"));
        assert!(temp.path().join(format!("a/{stem}.png")).exists());
    }
    // What is complete is taken from its file, for another factor as well; that one's runs are added.
    let file = temp.path().join("a/baseline-seed-1/result.json");
    let mut result: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    result["accuracy"] = Value::from(1.0);
    fs::write(&file, result.to_string()).unwrap();
    let said = output(temp.path(), &with(&["--factors=alpha", "--alpha=0.5"]));
    assert_says(&said, &["digits: 44 steps", "alpha_coeff", "0.5 ", "2*", "100.00 to 100.00 %", "ablation-alpha"]);
    assert_says(&refusal(temp.path(), &with(&["--set=train.lr=1e-4"])), &["baseline-seed-1", "other settings"]);
    assert_says(&refusal(temp.path(), &with(&["--landmarks=3"])), &["--landmarks 3", "no square", "1 x 1"]);
    assert_says(&refusal(temp.path(), &with(&["--landmarks=9"])), &["num_landmarks is 9", "4 patches"]);
    assert_says(&refusal(temp.path(), &with(&["--set=attention=softmax"])), &["softmax", "--set attention=lara"]);
    let said = refusal(temp.path(), &with(&["--factors=alpha", "--set=attention.mis_type=mis-bh"]));
    assert_says(&said, &["alpha_coeff", "mis-opt"]);
}

/// The generators that grids have, with the preset's kind of projection, and the plain one with the other kind.
#[test]
fn ablation_of_proposal_generators() {
    let temp = tempfile::tempdir().unwrap();
    let arguments = [
        "experiment",
        "ablation",
        "--factors=proposals",
        "--seeds=1",
        "--epochs=1",
        "--set=model.patch_size=4",
        "--set=model.embed_dim=16",
        "--set=model.depth=1",
        "--set=attention.proposal_gen=pool-mixed",
        "--output-dir=a",
        "--json",
    ];
    let report = json(temp.path(), &arguments);
    let rows = report["factors"][0]["rows"].as_array().unwrap();
    let found: Vec<(&str, u64)> =
        rows.iter().map(|r| (r["value"].as_str().unwrap(), r["parameters"].as_u64().unwrap())).collect();
    // Two landmark generators a block, Linear and LayerNorm over a head's 8 channels or over all 16.
    let [none, light, dense] = [0, 2 * (8 * 8 + 8 + 16), 2 * (16 * 16 + 16 + 32)].map(|more| found[4].1 + more);
    let wanted = [
        ("pool/light", light),
        ("pool/dense", dense),
        ("pool-mixed/light", light),
        ("pool-vmixed/light", light),
        ("no-param-pool", none),
        ("no-param-pool-mixed", none),
    ];
    assert_eq!(found, wanted);
    let marked: Vec<&str> =
        rows.iter().filter(|r| r["baseline"] == true).map(|r| r["value"].as_str().unwrap()).collect();
    assert_eq!(marked, ["pool-mixed/light"]);
    assert_eq!(report["runs"].as_array().unwrap().len(), 6);
}

/// Blocks of a pyramid have no sizes in common.
#[test]
fn pyramids_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let pyramid = crate::library::golden("timm_pvt_v2");
    image::RgbImage::new(64, 64).save(temp.path().join("a.png")).unwrap();
    let said = refusal(
        temp.path(),
        &["experiment", "approximation", "--source", "checkpoint", &pyramid.to_string_lossy(), "--images", "a.png"],
    );
    assert_says(&said, &["timm_pvt_v2", "block 0 has others", "lara export-maps"]);
}
