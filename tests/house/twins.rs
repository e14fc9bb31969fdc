//! A basename is an address: the shader, its user in the runtime and its test have the same one.

use crate::{assert_none, files_below, name, stem, with_extension};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Shaders that are kernels, not parts to import.
fn kernels() -> Vec<PathBuf> {
    let mut shaders = with_extension(files_below("shaders"), &["wgsl"]);
    shaders.retain(|path| !name(path).starts_with("shaders/common/"));
    assert!(!shaders.is_empty(), "there is no shader outside shaders/common");
    shaders
}

/// `attend_vector`, `attend`: a kernel that is split over files is tested under the first part of its name.
fn addresses(basename: &str) -> Vec<&str> {
    let shorter = basename.rmatch_indices('_').map(|(at, _)| &basename[..at]);
    std::iter::once(basename).chain(shorter).collect()
}

fn words(paths: &[PathBuf]) -> HashSet<String> {
    let texts = paths.iter().map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let split = |text: String| words_of(&text).map(str::to_lowercase).collect::<HashSet<String>>();
    texts.flat_map(split).collect()
}

#[test]
fn every_shader_has_a_test_of_its_name() {
    let tests: HashSet<String> =
        with_extension(files_below("tests/kernels"), &["rs"]).iter().map(|path| stem(path)).collect();
    let alone =
        kernels().into_iter().filter(|shader| !addresses(&stem(shader)).iter().any(|name| tests.contains(*name)));
    let told = |shader: PathBuf| format!("{}: no tests/kernels/**/{}.rs", name(&shader), stem(&shader));
    assert_none("every kernel has a test under its own name", &alone.map(told).collect::<Vec<_>>());
}

#[test]
fn every_shader_is_used() {
    let runtime = words(&with_extension(files_below("runtime/src"), &["rs"]));
    let library = words(&[crate::root().join("shaders/lib.rs")]);
    let modules: HashSet<&str> = lara_shaders::MODULES.iter().map(|module| module.name).collect();
    let used = |shader: &Path| {
        let path = name(shader);
        let module = path.trim_start_matches("shaders/").trim_end_matches(".wgsl");
        // A part of a module is only known to the crate that joins it.
        if modules.contains(module) { runtime.contains(&stem(shader)) } else { library.contains(&stem(shader)) }
    };
    let idle = kernels().into_iter().filter(|shader| !used(shader));
    let told =
        |shader: PathBuf| format!("{}: nothing in runtime/src (or shaders/lib.rs, for a part) names it", name(&shader));
    assert_none("every shader is used under its own name", &idle.map(told).collect::<Vec<_>>());
}

/// Names of the types and functions that a Rust source defines, in small letters and without underscores.
fn defined(text: &str) -> Vec<String> {
    let words: Vec<&str> = words_of(text).filter(|word| !word.is_empty()).collect();
    let names = words.windows(2).filter(|pair| ["struct", "enum", "trait", "fn"].contains(&pair[0]));
    names.map(|pair| pair[1].to_lowercase().replace('_', "")).collect()
}

/// `noise.rs` defines `Noise`, `heads.rs` `SplitHeads`. A public module is an address itself (`peak::copy`).
#[test]
fn every_operation_is_named_after_its_file() {
    let modules: HashSet<&str> = lara_shaders::MODULES.iter().map(|module| module.basename()).collect();
    let mut files = with_extension(files_below("runtime/src"), &["rs"]);
    files.retain(|path| modules.contains(stem(path).as_str()) && stem(path) != "peak");
    assert!(files.len() > 30, "only {} files of the runtime share a shader's name", files.len());
    let nameless = files.into_iter().filter(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        !defined(&text).iter().any(|defined| defined.contains(&stem(path).replace('_', "")))
    });
    let told = |path: PathBuf| format!("{}: defines nothing that is called so", name(&path));
    assert_none("an operation's file has its name", &nameless.map(told).collect::<Vec<_>>());
}

#[test]
fn definitions_are_found() {
    assert_eq!(defined("pub struct JoinTokens {\n fn row_softmax(&self) -> u32 {"), ["jointokens", "rowsoftmax"]);
}

/// Whether a Rust source names an entry point: as a string, or as the variant of that name.
fn names_entry(text: &str, entry: &str) -> bool {
    text.contains(&format!("\"{entry}\"")) || words_of(text).any(|word| word == entry.to_uppercase())
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[test]
fn every_entry_point_is_dispatched() {
    let paths = with_extension(files_below("runtime/src"), &["rs"]);
    let texts: Vec<String> = paths.iter().map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect();
    let mut idle = Vec::new();
    for module in lara_shaders::MODULES {
        let constant = module.basename().to_uppercase();
        let users = texts.iter().filter(|text| words_of(text).any(|word| word == constant));
        let users: Vec<&String> = users.collect();
        let entries = naga::front::wgsl::parse_str(&module.source()).unwrap_or_default().entry_points;
        let unnamed = entries.iter().filter(|entry| !users.iter().any(|text| names_entry(text, &entry.name)));
        idle.extend(unnamed.map(|entry| format!("{}.{}", module.name, entry.name)));
    }
    assert_none("every entry point is named by a file of runtime/src that uses its module", &idle);
}

#[test]
fn addresses_shorten_at_underscores() {
    assert_eq!(addresses("attend_merge_all"), ["attend_merge_all", "attend_merge", "attend"]);
}
