//! Rules of the house that no compiler checks. Each test lists every breach at once.

mod files;
mod imports;
mod shaders;
mod translate;
mod tree;
mod twins;

use std::path::{Path, PathBuf};

/// The workspace's root.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A path as the repository names it, with `/` on every system.
fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

/// Every file below `folder` that the repository could hold: what .gitignore names at the root is left out.
fn files_below(folder: &str) -> Vec<PathBuf> {
    let ignored = std::fs::read_to_string(root().join(".gitignore")).unwrap_or_default();
    let ignored: Vec<PathBuf> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('/'))
        .map(|line| root().join(line.trim_end_matches('/')))
        .collect();
    let (mut found, mut waiting) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = waiting.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.is_symlink() || path.ends_with(".git") || ignored.contains(&path) {
                continue;
            }
            if path.is_dir() { waiting.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn with_extension(mut paths: Vec<PathBuf>, extensions: &[&str]) -> Vec<PathBuf> {
    paths.retain(|path| path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known)));
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// One assertion for all breaches, so that a run shows the whole list.
#[track_caller]
fn assert_none(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}\n{} breaches:\n  {}", breaches.len(), breaches.join("\n  "));
}
