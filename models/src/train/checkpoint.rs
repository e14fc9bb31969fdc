//! One checkpoint: a folder with model.safetensors, optimizer.safetensors and state.json. Which of them a run keeps:
//! checkpoints.rs.

mod trained;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lara_runtime::{Entry, Gpu, Parameters, Role};
use serde::{Deserialize, Serialize};

use super::atomic_dir::{self, Checksum};
use super::layout::{BEST, PREFIX, missing, numbered};
pub use super::layout::{MODEL_FILE, OPTIMIZER_FILE, STATE_FILE};
use crate::config::TrainConfig;
use crate::data::{Fingerprint, Position};
use crate::error::{Error, Result};
use crate::finite::first_tensor;
use crate::weights::{self, Metadata, TensorFile, TensorView};
pub use trained::{RESAMPLING, TrainedModel};

/// Where the configuration stands in a model's metadata.
const CONFIG: &str = "config";
/// Prefixes in [`OPTIMIZER_FILE`].
const EXP_AVG: &str = "exp_avg.";
const EXP_AVG_SQ: &str = "exp_avg_sq.";
const WEIGHT: &str = "weight.";
/// In format 1 the average was here and the weights that are trained in [`MODEL_FILE`].
const EMA: &str = "ema.";
/// Raised when an older program could not read a checkpoint any more.
const FORMAT: u32 = 2;
/// A checkpoint without an average is one that the first programs read.
const FORMAT_WITHOUT_EMA: u32 = 1;

/// Where a run stands. The random generators are functions of (seed, step) and of (seed, epoch, sample), so these are
/// their state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps taken.
    pub step: u64,
    /// The next batch.
    pub position: Position,
    /// Whether the evaluation that belongs after this step was not made: the run was stopped in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evaluation_due: bool,
    /// The run's seed.
    pub seed: u64,
    /// Best value of the metric so far, if there was an evaluation.
    pub best_metric: Option<f64>,
    /// The step that had it.
    pub best_step: Option<u64>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// What the run learns from and what is held out, as it was then; older programs did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSets>,
    /// The configuration, TOML.
    pub config: String,
    /// Kernel variants in use ([`lara_runtime::Tune`]); a resumed run keeps them, since others round differently.
    #[serde(default)]
    pub kernels: std::collections::BTreeMap<String, String>,
}

/// The data of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSets {
    /// What it learns from.
    pub train: Fingerprint,
    /// What it is evaluated on.
    pub held_out: Fingerprint,
}

/// state.json.
#[derive(Serialize, Deserialize)]
struct StateFile {
    format: u32,
    #[serde(flatten)]
    state: State,
    /// Checksums of the other two files; older programs wrote none.
    #[serde(default)]
    files: BTreeMap<String, Checksum>,
}

/// Everything a checkpoint holds, borrowed for writing.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// Where the run stands.
    pub state: &'a State,
    /// The weights that are trained.
    pub weights: Vec<TensorView<'a>>,
    /// First moments, named like the weights.
    pub exp_avg: Vec<TensorView<'a>>,
    /// Second moments, named like the weights.
    pub exp_avg_sq: Vec<TensorView<'a>>,
    /// Moving average of the weights, where one is kept.
    pub ema: Option<Vec<TensorView<'a>>>,
}

/// What a run has learnt, on the CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Learnt {
    weights: Vec<Vec<f32>>,
    exp_avg: Vec<Vec<f32>>,
    exp_avg_sq: Vec<Vec<f32>>,
    ema: Option<Vec<Vec<f32>>>,
}

impl Learnt {
    /// Downloads weights, moments, and the average where one is kept.
    ///
    /// # Errors
    /// [`Error::Diverged`] for the first weight or moment that is not finite; a lost device.
    pub async fn read(gpu: &Gpu, parameters: &Parameters) -> Result<Self> {
        let read = async |role| -> Result<Vec<Vec<f32>>> {
            let values = parameters.read(gpu, role).await?;
            match first_tensor(parameters.entries_of(role), &values) {
                Some(trouble) if role != Role::Ema => {
                    Err(Error::Diverged(format!("the {role}s are not finite (first {trouble})")))
                }
                _ => Ok(values),
            }
        };
        Ok(Learnt {
            weights: read(Role::Weight).await?,
            exp_avg: read(Role::FirstMoment).await?,
            exp_avg_sq: read(Role::SecondMoment).await?,
            ema: if parameters.has(Role::Ema) { Some(read(Role::Ema).await?) } else { None },
        })
    }

    /// A checkpoint of it, of the parameters that it was read from.
    pub fn snapshot<'a>(&'a self, parameters: &'a Parameters, state: &'a State) -> Snapshot<'a> {
        let view = |(entry, data): (&'a Entry, &'a Vec<f32>)| TensorView {
            name: entry.name.as_str().into(),
            shape: entry.shape.dims(),
            data,
        };
        let views = |role, values: &'a Vec<Vec<f32>>| parameters.entries_of(role).zip(values).map(view).collect();
        Snapshot {
            state,
            weights: views(Role::Weight, &self.weights),
            exp_avg: views(Role::FirstMoment, &self.exp_avg),
            exp_avg_sq: views(Role::SecondMoment, &self.exp_avg_sq),
            ema: self.ema.as_ref().map(|ema| views(Role::Ema, ema)),
        }
    }
}

pub(super) fn write(dir: &Path, name: &str, snapshot: &Snapshot<'_>) -> std::io::Result<()> {
    let state = snapshot.state;
    let mut metadata = Metadata::from([
        // Readers of PyTorch models look for it.
        ("format".into(), "pt".into()),
        (CONFIG.into(), state.config.clone()),
        ("classes".into(), serde_json::to_string(&state.classes)?),
    ]);
    let model = snapshot.ema.as_ref().unwrap_or(&snapshot.weights);
    let mut format = FORMAT_WITHOUT_EMA;
    if snapshot.ema.is_some() {
        metadata.insert("weights".into(), "exponential moving average".into());
        format = FORMAT;
    }
    atomic_dir::write(dir, name, |folder| {
        let model = folder.file(MODEL_FILE, |out| weights::write(out, model, &metadata))?;
        let tensors = optimizer_tensors(snapshot);
        let optimizer = folder.file(OPTIMIZER_FILE, |out| weights::write(out, &tensors, &Metadata::new()))?;
        let files = [(MODEL_FILE.to_owned(), model), (OPTIMIZER_FILE.to_owned(), optimizer)].into();
        let state = StateFile { format, state: state.clone(), files };
        let text = serde_json::to_string_pretty(&state)? + "\n";
        folder.file(STATE_FILE, |out| out.write_all(text.as_bytes())).map(drop)
    })
}

fn optimizer_tensors<'a>(snapshot: &Snapshot<'a>) -> Vec<TensorView<'a>> {
    let weights = if snapshot.ema.is_some() { &snapshot.weights[..] } else { &[] };
    [(EXP_AVG, &snapshot.exp_avg[..]), (EXP_AVG_SQ, &snapshot.exp_avg_sq[..]), (WEIGHT, weights)]
        .into_iter()
        .flat_map(|(prefix, tensors)| {
            tensors.iter().map(move |tensor| TensorView {
                name: Cow::Owned(format!("{prefix}{}", tensor.name)),
                ..tensor.clone()
            })
        })
        .collect()
}

/// A checkpoint in memory, to resume from.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Where the run stood.
    pub state: State,
    /// Newer ones of the run that could not be used.
    pub passed_over: Vec<PathBuf>,
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
    /// Loads a checkpoint's folder, or the newest checkpoint of a run's folder that is whole. Newer ones that are not
    /// are passed over, and the log says why.
    ///
    /// # Errors
    /// A checkpoint that is missing, incomplete or damaged, or that a newer program wrote; for a run's folder, if that
    /// is so of every one.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Err(Error::input(path, "is not a folder; name a run's folder or one of its checkpoints"));
        }
        if path.join(STATE_FILE).is_file() {
            return Self::read(path).map_err(Unusable::into_error);
        }
        let (mut passed_over, mut reasons) = (Vec::new(), Vec::new());
        for (_, folder) in numbered(path).into_iter().rev() {
            match Self::read(&folder) {
                Ok(checkpoint) => {
                    for reason in &reasons {
                        tracing::warn!("{reason}. Going on from {} instead", checkpoint.path.display());
                    }
                    return Ok(Self { passed_over, ..checkpoint });
                }
                // Whoever has a newer program would lose by going on from an older checkpoint with this one.
                Err(Unusable::Newer(error)) => return Err(error),
                Err(Unusable::Damaged(error)) => {
                    passed_over.push(folder);
                    reasons.push(error.to_string());
                }
            }
        }
        Err(match &reasons[..] {
            [] => Error::input(
                path,
                format!("holds no checkpoint: there is neither a {STATE_FILE} nor a folder {PREFIX}NNNNNN"),
            ),
            [reason] => Error::BadInput(reason.clone()),
            _ => Error::input(path, format!("holds no checkpoint that can be used: {}", reasons.join("; "))),
        })
    }

    pub(super) fn read(path: &Path) -> std::result::Result<Self, Unusable> {
        if let Some(name) = missing(path) {
            return Err(Error::input(path, format!("is no whole checkpoint: it has no {name}")).into());
        }
        let state_path = path.join(STATE_FILE);
        let text = fs::read(&state_path).map_err(Error::io("read", &state_path))?;
        let damaged = |error| Error::input(&state_path, format!("is damaged ({error}); use another checkpoint"));
        let header: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        if let Some(format) = header["format"].as_u64().filter(|&format| format > u64::from(FORMAT)) {
            let problem =
                format!("has format {format}, newer than the {FORMAT} that this program reads; use a newer lara");
            return Err(Unusable::Newer(Error::input(&state_path, problem)));
        }
        let StateFile { state, files, .. } = serde_json::from_value(header).map_err(damaged)?;
        let open = |name: &str| -> Result<TensorFile> {
            let file = path.join(name);
            let bytes = fs::read(&file).map_err(Error::io("read", &file))?;
            let sum = Checksum::of(&bytes);
            // Whether it is short is said with numbers.
            let tensors = TensorFile::from_bytes(&file, bytes)?;
            match files.get(name) {
                Some(&expected) if expected != sum => Err(Error::input(
                    &file,
                    "is damaged: its checksum is not the one that was saved; use another checkpoint",
                )),
                _ => Ok(tensors),
            }
        };
        let (model, optimizer) = (open(MODEL_FILE)?, open(OPTIMIZER_FILE)?);
        let checkpoint = Self { path: path.to_path_buf(), state, passed_over: Vec::new(), model, optimizer };
        checkpoint.config()?;
        Ok(checkpoint)
    }

    /// The configuration it was trained with.
    pub fn config(&self) -> Result<TrainConfig> {
        TrainConfig::from_toml(&self.state.config, &format!("config in {}", self.path.join(STATE_FILE).display()))
    }

    /// The weights as they were trained, and state that is not: those `wanted` (name, shape), in that order; there must be
    /// no others.
    pub fn weights<N: AsRef<str>, S: AsRef<[usize]>>(&self, wanted: &[(N, S)]) -> Result<Vec<Vec<f32>>> {
        if !self.model_is_average() {
            return self.model.get_all(wanted);
        }
        self.model.refuse_others(wanted.iter().map(|(name, _)| name.as_ref()))?;
        self.prefixed(WEIGHT, wanted)
    }

    /// The optimizer's state for the trained weights `wanted` (name, shape), in that order.
    pub fn optimizer<N: AsRef<str>, S: AsRef<[usize]>>(&self, wanted: &[(N, S)]) -> Result<OptimizerState> {
        let ema = if self.model_is_average() {
            Some(
                wanted
                    .iter()
                    .map(|(name, shape)| self.model.get(name.as_ref(), shape.as_ref()))
                    .collect::<Result<_>>()?,
            )
        } else if self.has(EMA) {
            Some(self.prefixed(EMA, wanted)?)
        } else {
            None
        };
        let (exp_avg, exp_avg_sq) = (self.prefixed(EXP_AVG, wanted)?, self.prefixed(EXP_AVG_SQ, wanted)?);
        let known = [EXP_AVG, EXP_AVG_SQ, EMA].iter();
        let known = known.flat_map(|prefix| wanted.iter().map(move |(name, _)| format!("{prefix}{}", name.as_ref())));
        let known: Vec<String> = known.chain(self.model.names().map(|name| format!("{WEIGHT}{name}"))).collect();
        self.optimizer.refuse_others(known.iter().map(String::as_str))?;
        Ok(OptimizerState { exp_avg, exp_avg_sq, ema })
    }

    /// Uploads weights, moments and average.
    ///
    /// # Errors
    /// If it is of another model.
    pub fn restore(&self, gpu: &Gpu, parameters: &Parameters) -> Result<()> {
        let wanted = weights::names_and_shapes(parameters);
        // State that is not trained has neither moments nor an average.
        let (trained, of_trained): (Vec<usize>, Vec<_>) =
            wanted.iter().cloned().enumerate().filter(|(index, _)| parameters.entries()[*index].is_trained()).unzip();
        let OptimizerState { exp_avg, exp_avg_sq, ema } = self.optimizer(&of_trained)?;
        if self.is_of_format_1_with_ema() {
            tracing::info!("from here on evaluations and {BEST} are of the averaged weights; before, they were not");
        }
        for (index, values) in self.weights(&wanted)?.iter().enumerate() {
            parameters.write(gpu, Role::Weight, index, values)?;
        }
        let roles = [(Role::FirstMoment, Some(exp_avg)), (Role::SecondMoment, Some(exp_avg_sq)), (Role::Ema, ema)];
        for (role, values) in roles {
            for (&index, values) in trained.iter().zip(values.iter().flatten()) {
                parameters.write(gpu, role, index, values)?;
            }
        }
        Ok(())
    }

    /// Whether it is from when the average was kept and not evaluated.
    fn is_of_format_1_with_ema(&self) -> bool {
        self.has(EMA)
    }

    /// Whether [`MODEL_FILE`] holds the average of the weights: since format 2, where one is kept.
    fn model_is_average(&self) -> bool {
        self.has(WEIGHT)
    }

    fn has(&self, prefix: &str) -> bool {
        self.optimizer.names().any(|name| name.starts_with(prefix))
    }

    fn prefixed<N: AsRef<str>, S: AsRef<[usize]>>(&self, prefix: &str, wanted: &[(N, S)]) -> Result<Vec<Vec<f32>>> {
        let get = |(name, shape): &(N, S)| self.optimizer.get(&format!("{prefix}{}", name.as_ref()), shape.as_ref());
        wanted.iter().map(get).collect()
    }
}

/// Why a checkpoint cannot be used.
pub(super) enum Unusable {
    /// Something of it is missing or broken: an older one may do.
    Damaged(Error),
    /// A newer program wrote it.
    Newer(Error),
}

impl Unusable {
    fn into_error(self) -> Error {
        match self {
            Self::Damaged(error) | Self::Newer(error) => error,
        }
    }
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Self {
        Self::Damaged(error)
    }
}
