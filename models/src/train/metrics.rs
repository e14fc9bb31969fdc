//! Metrics of a run: one JSON object a line in metrics.jsonl, and the same numbers as TensorBoard events.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::atomic_dir::sync_dir;
use super::clock::seconds_since_1970;
use super::tensorboard::EventWriter;
use crate::error::{Error, Result};

/// The file's name in the folder of a run.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Writes the metrics of a run.
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    events: Option<EventWriter>,
}

impl MetricsLog {
    /// Opens the log in `dir`, which is created if need be.
    ///
    /// A run that resumes after step `resumed` drops the lines beyond it (they will be written again) and a last line
    /// cut short by a crash. A new run (`None`) begins an empty file; one that is there is kept as metrics.1.jsonl,
    /// metrics.2.jsonl, ...
    pub fn open(dir: impl AsRef<Path>, resumed: Option<u64>, tensorboard: bool) -> Result<Self> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let path = dir.join(METRICS_FILE);
        match resumed {
            Some(step) => drop_lines_beyond(&path, step)?,
            None => set_aside(dir, &path)?,
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io("open", &path))?;
        let first_step = resumed.map_or(0, |step| step + 1);
        let events = if tensorboard { Some(EventWriter::create(dir, first_step)?) } else { None };
        Ok(Self { path, file, events })
    }

    /// Waits until the disk has every line: no checkpoint must outlive the metrics before it.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("write", &self.path))
    }

    /// Keeps a copy of the log in `dir` as metrics.1.jsonl, metrics.2.jsonl, ..., for a run that goes back to an older
    /// checkpoint.
    pub fn keep_copy(dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let path = dir.join(METRICS_FILE);
        match free_name(dir) {
            Some(free) if path.is_file() => fs::copy(&path, free).map(drop).map_err(Error::io("copy", &path)),
            _ => Ok(()),
        }
    }

    /// Writes a line with `step`, `time` (seconds since 1970) and the values, in that order, and hands it to the
    /// system. What is not finite becomes null in JSON, which has no word for it.
    pub fn log(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut line = format!("{{\"step\":{step},\"time\":{:.3}", seconds_since_1970());
        for (name, value) in values {
            line += &format!(",{}:{}", Value::from(*name), Value::from(*value));
        }
        line += "}\n";
        // One write a line: a line is whole or is the last.
        self.file.write_all(line.as_bytes()).map_err(Error::io("write", &self.path))?;
        if let Some(events) = &mut self.events {
            events.scalars(step, values)?;
            events.flush()?;
        }
        Ok(())
    }
}

fn drop_lines_beyond(path: &Path, step: u64) -> Result<()> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(Error::io("read", path))?,
    };
    // By bytes: a line that a failing disk left may be anything.
    let within = |line: &&[u8]| {
        let value: Option<Value> = serde_json::from_slice(line).ok();
        value.and_then(|value| value.get("step")?.as_u64()).is_some_and(|at| at <= step)
    };
    let kept: Vec<u8> =
        bytes.split(|&byte| byte == b'\n').filter(within).flat_map(|line| [line, b"\n"]).flatten().copied().collect();
    if kept == bytes {
        return Ok(());
    }
    let temporary = path.with_extension("jsonl.tmp");
    // On the disk before it takes the place of the whole one: else a power cut could leave an empty file.
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(&kept)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_dir(path.parent().unwrap_or(path))
    };
    write().map_err(Error::io("rewrite", path))
}

fn set_aside(dir: &Path, path: &Path) -> Result<()> {
    if fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0 {
        return Ok(());
    }
    match free_name(dir) {
        Some(free) => fs::rename(path, free).map_err(Error::io("rename", path)),
        None => Ok(()),
    }
}

fn free_name(dir: &Path) -> Option<PathBuf> {
    (1..).map(|count| dir.join(format!("metrics.{count}.jsonl"))).find(|candidate| !candidate.exists())
}
