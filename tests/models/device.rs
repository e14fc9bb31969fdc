//! A device that is too small or gets lost: one sentence with the numbers and what to do, exit code 1.

use crate::attend::save;
use crate::cli::{assert_says, lara, output, trained};

/// Every command that opens a device, most on a trained model, and what it says is to be lowered.
fn commands<'a>(picture: &'a str, [input, output]: [&'a str; 2], out: &'a str) -> Vec<(Vec<&'a str>, &'static str)> {
    let experiment = ["experiment", "approximation", "--tokens=64", "--seeds=1", "--samples=4", "--output-dir", out];
    let attend = ["attend", "--mechanism=softmax", "--input", input, "--output", output];
    vec![
        (vec!["predict", "run", picture], "an adapter with more (--adapter"),
        (vec!["eval", "run"], "lower --batch-size"),
        (vec!["export-maps", "run", picture, "--kind=attention,gradient", "--out", out], "lower "),
        (experiment.to_vec(), "lower "),
        (attend.to_vec(), "lower the batch, the heads or the tokens of q, k and v"),
        (
            vec!["train", "--preset=digits", "--output-dir", out],
            "lower train.batch_size (train.grad_accum_steps, raised by as much",
        ),
    ]
}

fn fails(variable: &str, value: &str, words: &[&str], names_what_to_lower: bool) {
    let temp = tempfile::tempdir().unwrap();
    let exported = output(trained(), &["data", "digits", "--count=1", "--export", temp.path().to_str().unwrap()]);
    let [input, attended, out] = ["in.safetensors", "attended.safetensors", "out"].map(|name| temp.path().join(name));
    let files = [input.to_str().unwrap(), attended.to_str().unwrap()];
    let tensors: Vec<_> = ["q", "k", "v"].map(|name| (name, vec![1, 1, 256, 32], vec![0.5; 8192])).into();
    save(&input, &tensors);
    for (command, lower) in commands(exported.trim(), files, out.to_str().unwrap()) {
        let assert = lara(trained(), &command).env(variable, value).assert().code(1).stdout("");
        let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("lara: ")).collect();
        assert!(lines.len() == 1 && !said.contains("panicked"), "{command:?} said {said}");
        assert_says(lines[0], words);
        if names_what_to_lower {
            assert_says(lines[0], &[lower]);
        }
        let mut left = std::fs::read_dir(temp.path()).unwrap().flatten().map(|entry| entry.file_name());
        let is_left = left.any(|name| name.to_string_lossy().starts_with("attended"));
        assert!(!is_left, "{command:?} left a file");
    }
}

#[test]
fn too_little_memory_is_told_with_the_numbers() {
    fails("LARA_MEMORY_LIMIT", "10K", &["not enough memory for", "are in use, and the limit is 10.0 KiB; lower"], true);
}

#[test]
fn a_lost_device_is_told() {
    fails("LARA_LOSE_DEVICE_AFTER", "1", &["the GPU device was lost", "after 1 submits"], false);
}
