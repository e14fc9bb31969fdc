//! The folder and the files that an experiment leaves.

use std::path::Path;

use crate::fail::{Failure, Outcome};

pub(super) fn create(folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder).map_err(|e| Failure::input(format!("cannot create {}: {e}", folder.display())))
}

pub(super) fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text).map_err(|e| Failure::input(format!("cannot write {}: {e}", path.display())))
}
