//! Sizes of files, and what must not be written in them.

use crate::{assert_none, files_below, name, with_extension};

const MOST_LINES: usize = 499;

/// Folders of a person's or a machine's own, in pieces so that this file does not hold them.
const MACHINE_PATHS: [&str; 5] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
    concat!(":\\Us", "ers\\"),
];

#[test]
fn no_source_file_has_500_lines() {
    let sources = with_extension(files_below(""), &["rs", "wgsl"]);
    assert!(sources.len() > 10, "found only {} source files: is the root right?", sources.len());
    let long = sources.iter().filter_map(|path| {
        let lines = std::fs::read_to_string(path).unwrap_or_default().lines().count();
        (lines > MOST_LINES).then(|| format!("{}: {lines} lines", name(path)))
    });
    assert_none("a file of 500 lines is two files", &long.collect::<Vec<_>>());
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let mut breaches = Vec::new();
    for path in files_below("") {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            let starts_a_path = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~/".contains(c));
            let holds = |pattern: &&&str| {
                line.match_indices(**pattern).any(|(at, _)| pattern.starts_with(':') || starts_a_path(at))
            };
            if let Some(pattern) = MACHINE_PATHS.iter().find(holds) {
                breaches.push(format!("{}:{}: {pattern}", name(&path), number + 1));
            }
        }
    }
    assert_none("paths are relative to the repository, or given by the user", &breaches);
}
