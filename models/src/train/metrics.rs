//! Metrics of a run: one JSON object a line in metrics.jsonl, and the same numbers as TensorBoard events.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

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

pub(super) fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

fn drop_lines_beyond(path: &Path, step: u64) -> Result<()> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(Error::io("read", path))?,
    };
    let within = |line: &&str| {
        let value: Option<Value> = serde_json::from_str(line).ok();
        value.and_then(|value| value.get("step")?.as_u64()).is_some_and(|at| at <= step)
    };
    let kept: String = text.lines().filter(within).flat_map(|line| [line, "\n"]).collect();
    if kept == text {
        return Ok(());
    }
    let temporary = path.with_extension("jsonl.tmp");
    fs::write(&temporary, kept).map_err(Error::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::io("replace", path))
}

fn set_aside(dir: &Path, path: &Path) -> Result<()> {
    if fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0 {
        return Ok(());
    }
    let free = (1..).map(|count| dir.join(format!("metrics.{count}.jsonl"))).find(|candidate| !candidate.exists());
    match free {
        Some(free) => fs::rename(path, free).map_err(Error::io("rename", path)),
        None => Ok(()),
    }
}
