//! Checkpoints of a run: `checkpoint-000123/` with model.safetensors, optimizer.safetensors and state.json; `best/` the
//! same.
//!
//! A checkpoint is written into a folder beside its place, synced and renamed, so it is there whole or not at all.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::atomic_dir;
use super::config::TrainConfig;
use crate::data::Position;
use crate::error::{Error, Result};
use crate::weights::{self, Metadata, TensorFile, TensorView};

/// Weights, with timm's names. The configuration and the classes' names travel in its metadata.
pub const MODEL_FILE: &str = "model.safetensors";
/// AdamW's moments and the moving average, under the weights' names with these prefixes.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// The rest of a [`Snapshot`], as JSON.
pub const STATE_FILE: &str = "state.json";
/// The folder of the best checkpoint.
pub const BEST: &str = "best";
const PREFIX: &str = "checkpoint-";
const EXP_AVG: &str = "exp_avg.";
const EXP_AVG_SQ: &str = "exp_avg_sq.";
const EMA: &str = "ema.";
/// Raised when an older program could not read a checkpoint any more.
const FORMAT: u32 = 1;

/// Where a run stands. The random generators are functions of (seed, step) and of (seed, epoch, sample), so these are
/// their state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps taken.
    pub step: u64,
    /// The next batch.
    pub position: Position,
    /// The run's seed.
    pub seed: u64,
    /// Best value of the metric so far, if there was an evaluation.
    pub best_metric: Option<f64>,
    /// The step that had it.
    pub best_step: Option<u64>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The configuration, TOML.
    pub config: String,
    /// Kernel variants in use ([`lara_runtime::Tune`]); a resumed run keeps them, since others round differently.
    #[serde(default)]
    pub kernels: std::collections::BTreeMap<String, String>,
}

/// state.json.
#[derive(Serialize, Deserialize)]
struct StateFile {
    format: u32,
    #[serde(flatten)]
    state: State,
}

/// Everything a checkpoint holds, borrowed for writing.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// Where the run stands.
    pub state: &'a State,
    /// The weights.
    pub weights: Vec<TensorView<'a>>,
    /// First moments, named like the weights.
    pub exp_avg: Vec<TensorView<'a>>,
    /// Second moments, named like the weights.
    pub exp_avg_sq: Vec<TensorView<'a>>,
    /// Moving average of the weights, where one is kept.
    pub ema: Option<Vec<TensorView<'a>>>,
}

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// The checkpoints in the run's folder `dir`, which is created if need be; the newest `keep` (at least 1) are kept.
    /// Puts right what a crash in the middle of a save may have left.
    pub fn open(dir: impl AsRef<Path>, keep: usize) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        atomic_dir::recover(&dir).map_err(Error::io("tidy", &dir))?;
        Ok(Self { dir, keep: keep.max(1) })
    }

    /// Saves a checkpoint, then removes the oldest beyond those kept. Returns its folder.
    ///
    /// If it fails (disk full, say) nothing that was there is touched, and the error says which checkpoint survives.
    pub fn save(&self, snapshot: &Snapshot<'_>) -> Result<PathBuf> {
        let name = format!("{PREFIX}{:06}", snapshot.state.step);
        let target = self.dir.join(&name);
        let written = contents(snapshot).and_then(|(metadata, state)| {
            atomic_dir::write(&self.dir, &name, |folder| {
                folder.file(MODEL_FILE, |out| weights::write(out, &snapshot.weights, &metadata))?;
                let moments = optimizer_tensors(snapshot);
                folder.file(OPTIMIZER_FILE, |out| weights::write(out, &moments, &Metadata::new()))?;
                folder.file(STATE_FILE, |out| out.write_all(state.as_bytes()))
            })
        });
        written.map_err(|error| self.save_error(&target, &error))?;
        for old in self.surplus(snapshot.state.step) {
            if let Err(error) = fs::remove_dir_all(&old) {
                tracing::warn!("cannot remove the old checkpoint {}: {error}", old.display());
            }
        }
        Ok(target)
    }

    /// Makes `best/` a copy of a saved checkpoint (by hard links where the file system has them).
    pub fn promote_to_best(&self, checkpoint: &Path) -> Result<PathBuf> {
        let target = self.dir.join(BEST);
        atomic_dir::write(&self.dir, BEST, |folder| {
            [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE]
                .iter()
                .try_for_each(|name| folder.link(name, &checkpoint.join(name)))
        })
        .map_err(|error| self.save_error(&target, &error))?;
        Ok(target)
    }

    /// Removes checkpoints beyond `step`: for a run that goes back to an older one, whose future they no longer are.
    pub fn discard_after(&self, step: u64) -> Result<()> {
        for (_, path) in list(&self.dir).into_iter().filter(|(at, _)| *at > step) {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// Oldest first, never the one of `step`.
    fn surplus(&self, step: u64) -> Vec<PathBuf> {
        let all = list(&self.dir);
        let count = all.len().saturating_sub(self.keep);
        all.into_iter().filter(|(at, _)| *at != step).take(count).map(|(_, path)| path).collect()
    }

    fn save_error(&self, target: &Path, error: &std::io::Error) -> Error {
        let survives = match latest(&self.dir) {
            Some(last) => format!("the last checkpoint, {}, is intact", last.display()),
            None => "there was no checkpoint before it".into(),
        };
        let advice = "; free some space or set output.dir to another disk";
        let advice = if error.kind() == std::io::ErrorKind::StorageFull { advice } else { "" };
        Error::Save { path: target.to_path_buf(), problem: error.to_string(), survives: survives + advice }
    }
}

/// Metadata of the model file, and state.json.
fn contents(snapshot: &Snapshot<'_>) -> std::io::Result<(Metadata, String)> {
    let state = snapshot.state;
    let metadata = Metadata::from([
        // Readers of PyTorch models look for it.
        ("format".into(), "pt".into()),
        ("config".into(), state.config.clone()),
        ("classes".into(), serde_json::to_string(&state.classes)?),
    ]);
    let file = StateFile { format: FORMAT, state: state.clone() };
    Ok((metadata, serde_json::to_string_pretty(&file)? + "\n"))
}

fn optimizer_tensors<'a>(snapshot: &Snapshot<'a>) -> Vec<TensorView<'a>> {
    let ema = snapshot.ema.as_deref().unwrap_or_default();
    [(EXP_AVG, &snapshot.exp_avg[..]), (EXP_AVG_SQ, &snapshot.exp_avg_sq[..]), (EMA, ema)]
        .into_iter()
        .flat_map(|(prefix, tensors)| {
            tensors.iter().map(move |tensor| TensorView {
                name: Cow::Owned(format!("{prefix}{}", tensor.name)),
                ..tensor.clone()
            })
        })
        .collect()
}

/// (step, folder) of every checkpoint in a run's folder, oldest first.
fn list(dir: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            entry.path().is_dir().then(|| (step, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// The newest checkpoint in a run's folder.
pub fn latest(dir: impl AsRef<Path>) -> Option<PathBuf> {
    list(dir.as_ref()).pop().map(|(_, path)| path)
}

/// A checkpoint in memory, to resume from.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Where the run stood.
    pub state: State,
    model: TensorFile,
    optimizer: TensorFile,
}

/// AdamW's moments and the moving average, each in the order asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// First moments.
    pub exp_avg: Vec<Vec<f32>>,
    /// Second moments.
    pub exp_avg_sq: Vec<Vec<f32>>,
    /// Moving average of the weights, if the checkpoint has one.
    pub ema: Option<Vec<Vec<f32>>>,
}

impl Checkpoint {
    /// Loads a checkpoint's folder, or the newest checkpoint of a run's folder.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Err(Error::input(path, "is not a folder; name a run's folder or one of its checkpoints"));
        }
        let path = match latest(path) {
            Some(latest) if !path.join(STATE_FILE).is_file() => latest,
            _ => path.to_path_buf(),
        };
        let state_path = path.join(STATE_FILE);
        if !state_path.is_file() {
            let problem = format!("holds no checkpoint: there is neither a {STATE_FILE} nor a folder {PREFIX}NNNNNN");
            return Err(Error::input(path, problem));
        }
        let text = fs::read_to_string(&state_path).map_err(Error::io("read", &state_path))?;
        let damaged = |error| Error::input(&state_path, format!("is damaged ({error}); use another checkpoint"));
        let header: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
        if let Some(format) = header["format"].as_u64().filter(|&format| format > u64::from(FORMAT)) {
            let problem =
                format!("has format {format}, newer than the {FORMAT} that this program reads; use a newer lara");
            return Err(Error::input(&state_path, problem));
        }
        let StateFile { state, .. } = serde_json::from_value(header).map_err(damaged)?;
        let model = TensorFile::open(path.join(MODEL_FILE))?;
        let optimizer = TensorFile::open(path.join(OPTIMIZER_FILE))?;
        Ok(Self { path, state, model, optimizer })
    }

    /// The configuration it was trained with.
    pub fn config(&self) -> Result<TrainConfig> {
        TrainConfig::from_toml(&self.state.config, &format!("config in {}", self.path.join(STATE_FILE).display()))
    }

    /// The weights `wanted` (name, shape), in that order; the file must have these and no others.
    pub fn weights<N: AsRef<str>, S: AsRef<[usize]>>(&self, wanted: &[(N, S)]) -> Result<Vec<Vec<f32>>> {
        self.model.get_all(wanted)
    }

    /// The optimizer's state for the weights `wanted` (name, shape), in that order.
    pub fn optimizer<N: AsRef<str>, S: AsRef<[usize]>>(&self, wanted: &[(N, S)]) -> Result<OptimizerState> {
        let file = &self.optimizer;
        let with = |prefix: &str| -> Result<Vec<Vec<f32>>> {
            wanted.iter().map(|(name, shape)| file.get(&format!("{prefix}{}", name.as_ref()), shape.as_ref())).collect()
        };
        let has_ema = file.names().any(|name| name.starts_with(EMA));
        let ema = if has_ema { Some(with(EMA)?) } else { None };
        let state = OptimizerState { exp_avg: with(EXP_AVG)?, exp_avg_sq: with(EXP_AVG_SQ)?, ema };
        let known: Vec<String> = [EXP_AVG, EXP_AVG_SQ, EMA]
            .iter()
            .flat_map(|prefix| wanted.iter().map(move |(name, _)| format!("{prefix}{}", name.as_ref())))
            .collect();
        file.refuse_others(known.iter().map(String::as_str))?;
        Ok(state)
    }
}

/// Weights to evaluate or predict with.
#[derive(Clone, Debug)]
pub struct TrainedModel {
    /// The weights.
    pub weights: TensorFile,
    /// The configuration, if the file carries one (those that [`Checkpoints`] wrote do).
    pub config: Option<TrainConfig>,
    /// Names of the classes; empty if the file does not carry them.
    pub classes: Vec<String>,
}

impl TrainedModel {
    /// Opens a safetensors file, a checkpoint's folder, or a run's folder (its best checkpoint, else its newest).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let candidates = [Some(path.to_path_buf()), Some(path.join(BEST)), latest(path)];
        let file = if path.is_dir() {
            let inside = candidates.into_iter().flatten().map(|folder| folder.join(MODEL_FILE));
            inside.into_iter().find(|file| file.is_file()).ok_or_else(|| {
                Error::input(path, format!("holds no model: there is no {MODEL_FILE}, no {BEST} and no {PREFIX}NNNNNN"))
            })?
        } else {
            path.to_path_buf()
        };
        Self::from_weights(TensorFile::open(&file)?)
    }

    /// The model in the bytes of a safetensors file; `name` stands for the file in messages.
    ///
    /// # Errors
    /// Bytes that are no safetensors file, or whose configuration does not parse.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::from_weights(TensorFile::from_bytes(name, bytes)?)
    }

    fn from_weights(weights: TensorFile) -> Result<Self> {
        let config = weights.metadata().get("config");
        let config = config
            .map(|text| TrainConfig::from_toml(text, &format!("config in {}", weights.path().display())))
            .transpose()?;
        let classes = weights.metadata().get("classes").and_then(|text| serde_json::from_str(text).ok());
        Ok(Self { weights, config, classes: classes.unwrap_or_default() })
    }
}
