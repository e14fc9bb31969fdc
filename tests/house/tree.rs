//! The trees drawn in the documents are true.
//!
//! A tree is a fenced block in which a line begins with a folder (`name/`). Of each line, the first column (up to two
//! blanks) names files or folders of the line above that is indented less; `*` stands for anything.

use crate::{assert_none, files_below, name, root};
use std::collections::BTreeSet;

/// One line of a tree: its depth in blanks, and the names in its first column.
fn entry(line: &str) -> (usize, Vec<&str>) {
    let text = line.trim_start();
    let column = text.split("  ").next().unwrap_or(text);
    (line.len() - text.len(), column.split_whitespace().collect())
}

fn is_tree(block: &str) -> bool {
    block.lines().any(|line| entry(line).1.first().is_some_and(|name| name.ends_with('/') && name.len() > 1))
}

/// Paths in every tree of `text`.
fn paths(text: &str) -> Vec<String> {
    // Every second piece between fences is a block; its first line is the language.
    let blocks = text.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n')).map(|(_, body)| body);
    let mut found = Vec::new();
    for block in blocks.filter(|block| is_tree(block)) {
        let mut above: Vec<(usize, String)> = Vec::new();
        for line in block.lines().filter(|line| !line.trim().is_empty()) {
            let (depth, names) = entry(line);
            above.retain(|(shallower, _)| *shallower < depth);
            let folder = above.last().map_or(String::new(), |(_, folder)| folder.clone());
            found.extend(names.iter().map(|name| format!("{folder}{name}")));
            if let Some(inner) = names.last().filter(|name| name.ends_with('/')) {
                above.push((depth, format!("{folder}{inner}")));
            }
        }
    }
    found
}

/// Whether `text` is what `pattern` says, where `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text
            .strip_prefix(start)
            .is_some_and(|tail| (0..=tail.len()).any(|at| tail.get(at..).is_some_and(|t| matches(rest, t)))),
    }
}

fn check(document: &str) {
    let text = std::fs::read_to_string(root().join(document));
    let text = text.unwrap_or_else(|e| panic!("{document} is missing ({e}): a newcomer finds the rooms by its tree"));
    let named = paths(&text);
    assert!(
        !named.is_empty(),
        "{document} holds no tree: a fenced block whose lines begin with folders such as `runtime/`"
    );
    let mut there = BTreeSet::new();
    for file in files_below("") {
        let path = name(&file);
        there.extend(path.match_indices('/').map(|(at, _)| path[..=at].to_owned()));
        there.insert(path);
    }
    let untrue = named.iter().filter(|path| !there.iter().any(|known| matches(path, known)));
    let untrue: Vec<String> = untrue.map(|path| format!("{document}: `{path}` does not exist")).collect();
    assert_none("the tree shows what is there", &untrue);

    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap_or_default();
    let members =
        manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    let untold = members.split('"').skip(1).step_by(2).filter(|member| !named.contains(&format!("{member}/")));
    let untold: Vec<String> = untold.map(|member| format!("{document}: no line for {member}/")).collect();
    assert_none("the tree shows every crate", &untold);
}

#[test]
fn the_tree_of_the_architecture_is_true() {
    check("ARCHITECTURE.md");
}

#[test]
fn the_tree_of_the_readme_is_true() {
    check("README.md");
}

#[test]
fn a_tree_is_read_by_its_indentation() {
    let text = "x\n```sh\ncargo test\n```\n```text\nREADME.md Cargo.toml\nshaders/   crate\n  lib.rs  all\n  common/  parts\n    a.wgsl\n  *.wgsl\ncli/  b\n```\n";
    let expected = [
        "README.md",
        "Cargo.toml",
        "shaders/",
        "shaders/lib.rs",
        "shaders/common/",
        "shaders/common/a.wgsl",
        "shaders/*.wgsl",
        "cli/",
    ];
    assert_eq!(paths(text), expected);
    assert!(matches("shaders/*.wgsl", "shaders/a.wgsl") && !matches("shaders/*.wgsl", "shaders/a.rs"));
}
