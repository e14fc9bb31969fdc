//! What the files and folders of a run are called, and which checkpoints its folder has.

use std::fs;
use std::path::{Path, PathBuf};

/// The weights to evaluate and predict with, under timm's names: their moving average where one is kept. The
/// configuration and the classes' names travel in its metadata.
pub const MODEL_FILE: &str = "model.safetensors";
/// AdamW's moments and, where [`MODEL_FILE`] has the average, the weights that are trained.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// The rest of a [`Snapshot`](super::Snapshot), as JSON.
pub const STATE_FILE: &str = "state.json";
/// A checkpoint's files.
pub(super) const FILES: [&str; 3] = [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE];

/// The folder of the best checkpoint.
pub const BEST: &str = "best";
/// What the folders of the others begin with; the step follows.
pub(super) const PREFIX: &str = "checkpoint-";

/// The folder of the checkpoint of a step.
pub(super) fn folder_name(step: u64) -> String {
    format!("{PREFIX}{step:06}")
}

/// (step, folder) of everything in a run's folder that is named like a checkpoint, oldest first.
pub(super) fn numbered(dir: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let step = name.to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            (entry.path().is_dir() && name.to_str()? == folder_name(step)).then(|| (step, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// The first of a checkpoint's files that a folder does not have.
pub(super) fn missing(folder: &Path) -> Option<&'static str> {
    FILES.into_iter().find(|name| !folder.join(name).is_file())
}

/// The newest checkpoint in a run's folder that has all its files.
pub fn latest(dir: impl AsRef<Path>) -> Option<PathBuf> {
    numbered(dir.as_ref()).into_iter().rev().map(|(_, path)| path).find(|path| missing(path).is_none())
}
