//! A device that is too small or gets lost under the commands that only look: one sentence with the numbers, exit code 1.

use crate::cli::{assert_says, lara, output, trained};

/// Every command that opens a device on a trained model.
fn commands<'a>(picture: &'a str, out: &'a str) -> [Vec<&'a str>; 4] {
    let attend = ["experiment", "approximation", "--tokens=64", "--seeds=1", "--samples=4", "--output-dir", out];
    [
        vec!["predict", "run", picture],
        vec!["eval", "run"],
        vec!["export-maps", "run", picture, "--kind=attention,gradient", "--out", out],
        attend.to_vec(),
    ]
}

fn fails(variable: &str, value: &str, words: &[&str]) {
    let temp = tempfile::tempdir().unwrap();
    let exported = output(trained(), &["data", "digits", "--count=1", "--export", temp.path().to_str().unwrap()]);
    let out = temp.path().join("out");
    for command in commands(exported.trim(), out.to_str().unwrap()) {
        let assert = lara(trained(), &command).env(variable, value).assert().code(1).stdout("");
        let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("lara: ")).collect();
        assert!(lines.len() == 1 && !said.contains("panicked"), "{command:?} said {said}");
        assert_says(lines[0], words);
    }
}

#[test]
fn too_little_memory_is_told_with_the_numbers() {
    fails("LARA_MEMORY_LIMIT", "10K", &["not enough memory for", "are in use, and the limit is 10.0 KiB; lower"]);
}

#[test]
fn a_lost_device_is_told() {
    fails("LARA_LOSE_DEVICE_AFTER", "1", &["the GPU device was lost", "after 1 submits", "Start again"]);
}
