//! The campaigns in small: what CI can do in a minute. `cargo xtask fuzz` does them at length.

use std::process::Command;

fn fuzz(arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fuzz"));
    let output = command.args(arguments).arg("--dump").arg(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn hostile_files_are_taken_or_refused_with_a_sentence() {
    fuzz(&["--cases", "1000"]);
}

/// What a million cases found: zipped pictures that unpack to other lengths than they promise were held before they were
/// counted.
#[test]
fn what_a_long_campaign_found_stays_mended() {
    for case in ["48654", "471409"] {
        fuzz(&["--seed", "9", "--case", case]);
    }
}

#[test]
fn a_killed_run_ends_as_if_nothing_had_been() {
    fuzz(&["--kill", "1"]);
}

#[test]
fn a_run_survives_a_small_and_a_lost_device() {
    fuzz(&["--device", "1"]);
}
