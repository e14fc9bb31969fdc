//! `lara bench attention`: rows for every mechanism, direction and N, and where a mechanism overtakes softmax.

use std::path::Path;

use crate::cli::{assert_says, json, refusal};

#[test]
fn attention_is_measured_forward_and_backward() {
    let here = Path::new(".");
    let report = json(here, &["bench", "attention", "--mechanism=softmax,lara", "--max-tokens=100", "--json"]);
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let mut expected = Vec::new();
    for mechanism in ["softmax", "lara"] {
        for tokens in [49, 100] {
            for direction in ["forward", "forward+backward"] {
                expected.push(format!("{mechanism} {direction} N = {tokens}"));
            }
        }
    }
    assert_eq!(names, expected);
    for row in rows {
        assert!(row["milliseconds"].as_f64() > Some(0.0) && row["activation_bytes"].as_u64() > Some(0), "{row}");
    }
    let crossovers = report["crossovers"].as_array().unwrap();
    assert_eq!(crossovers.len(), 2, "{report}");
    for (crossover, direction) in crossovers.iter().zip(["forward", "forward+backward"]) {
        assert_eq!((&crossover["mechanism"], &crossover["direction"]), (&"lara".into(), &direction.into()));
        // Which of the two is faster on so few tokens is the adapter's business, but the sentence must agree.
        let ratio = |tokens: usize| {
            let time = |mechanism: &str| {
                let name = format!("{mechanism} {direction} N = {tokens}");
                rows.iter().find(|row| row["name"] == name.as_str()).unwrap()["milliseconds"].as_f64().unwrap()
            };
            time("lara") / time("softmax")
        };
        let finding = crossover["finding"].as_str().unwrap();
        let word = match crossover["tokens"].as_f64() {
            Some(tokens) => {
                assert!(ratio(49) >= 1.0 && ratio(100) < 1.0 && tokens > 48.9 && tokens < 100.1, "{report}");
                "overtakes"
            }
            None if ratio(100) >= 1.0 => "is not faster",
            None => "from the shortest",
        };
        assert_says(finding, &[direction, "lara", word]);
    }
    assert_says(&refusal(here, &["bench", "attention", "--max-tokens=20"]), &["--max-tokens is 20", "49 tokens"]);
}

fn stage(stage: &serde_json::Value) -> (&str, f64) {
    (stage["name"].as_str().unwrap(), stage["milliseconds"].as_f64().unwrap())
}

#[test]
fn bench_loader_says_how_fast_pictures_come() {
    let here = tempfile::tempdir().unwrap();
    let report = json(here.path(), &["bench", "loader", "--images=16", "--threads=1", "--json"]);
    assert!(report["images_per_second"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!((report["images"].as_u64(), report["threads"].as_u64()), (Some(16), Some(1)));
    // An image takes at least what its stages take, and no other process is counted; clocks tick in milliseconds at worst.
    let stages: Vec<(&str, f64)> = report["stages"].as_array().unwrap().iter().map(stage).collect();
    let names: Vec<&str> = stages.iter().map(|stage| stage.0).collect();
    assert_eq!(names, ["decode", "crop and resize", "RandAugment", "flip and normalise", "erase"]);
    assert!(stages[..4].iter().all(|stage| stage.1 > 0.0), "{report}");
    if cfg!(unix) {
        assert!(report["processor_milliseconds_per_image"].as_f64() > Some(stages[0].1 / 2.0), "{report}");
    }
    assert!((20_000..150_000).contains(&report["bytes_per_image"].as_u64().unwrap()), "{report}");
    assert_says(&refusal(here.path(), &["bench", "loader", "step"]), &["measured by itself"]);
    assert_says(&refusal(here.path(), &["bench", "step", "--data=x"]), &["--data x", "`lara bench loader` alone"]);
    assert_says(&refusal(here.path(), &["bench", "loader", "--data=photos"]), &["photos", "train"]);
    assert_says(&refusal(here.path(), &["bench", "loader", "--images=3"]), &["--images is 3", "16"]);
}
