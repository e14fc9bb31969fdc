//! Files that commands write: whole or not at all, and tensors in them.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use lara_models::attend::Array;
use lara_models::weights::{self, Metadata, TensorView};

use crate::fail::{Failure, Outcome};

/// Writes beside the file first, so that what was there before stays if this fails.
pub(crate) fn write(path: &Path, body: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Outcome {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let written = fs::File::create(&beside).and_then(|file| {
        let mut out = BufWriter::new(file);
        body(&mut out)?;
        out.into_inner()?.sync_all()?;
        fs::rename(&beside, path)
    });
    written.map_err(|error| {
        // The original error is the one to tell.
        let _ = fs::remove_file(&beside);
        Failure::input(format!("cannot write {}: {error}", path.display()))
    })
}

/// Writes tensors as a safetensors file.
pub(crate) fn write_tensors(path: &Path, tensors: &[(String, Array)], metadata: &Metadata) -> Outcome {
    let views: Vec<TensorView<'_>> = tensors
        .iter()
        .map(|(name, array)| TensorView { name: name.into(), shape: &array.shape, data: &array.values })
        .collect();
    write(path, |out| weights::write(out, &views, metadata))
}

/// Before anything is computed that could not be written.
pub(crate) fn check_output(input: &Path, output: &Path) -> Outcome {
    let is_input = fs::canonicalize(output).is_ok_and(|path| fs::canonicalize(input).is_ok_and(|i| i == path));
    if is_input {
        return Err(Failure::input(format!("--output {} is the input itself; name another file", output.display())));
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() && !output.is_dir() {
        return Ok(());
    }
    let problem = if output.is_dir() { "is a folder" } else { "lies in a folder that does not exist" };
    Err(Failure::input(format!("--output {} {problem}; name a file in a folder that is there", output.display())))
}

/// Refuses to write what is no number.
pub(crate) fn check_finite(results: &[(String, Array)], hint: &str) -> Outcome {
    for (name, array) in results {
        if let Some((value, place)) = array.not_finite() {
            return Err(Failure::failed(format!(
                "{name} came out as {value} at {place:?} and nothing was written; {hint}"
            )));
        }
    }
    Ok(())
}
