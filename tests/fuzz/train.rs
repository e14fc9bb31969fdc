//! The run of the campaigns: small, with everything that a resume has to bring back, and a process of its own.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use lara_models::train::checkpoints::{BEST, latest};
use lara_models::train::metrics::METRICS_FILE;
use lara_models::train::{Control, Event, Summary, TrainConfig, Trainer};
use lara_runtime::{Gpu, GpuOptions, Tune};
use pollster::block_on;

/// The folder of the run, in the folder of its process: a checkpoint holds its configuration, and so the same name.
pub(crate) const RUN: &str = "run";
/// Optimizer steps of an epoch.
pub(crate) const EPOCH: u64 = 11;
/// 66 steps, a checkpoint and an evaluation after every 11; dropout, drawn noise, accumulation, an average.
const SETS: [&str; 19] = [
    "attention=lara",
    "attention.num_landmarks=4",
    "model.patch_size=4",
    "model.embed_dim=16",
    "model.depth=1",
    "model.num_heads=2",
    "model.drop_rate=0.1",
    "train.batch_size=64",
    "train.grad_accum_steps=2",
    "train.epochs=6",
    "train.warmup_epochs=1",
    "train.lr=3e-3",
    "train.model_ema=true",
    "train.model_ema_decay=0.9",
    "output.dir=run",
    "output.log_interval=1",
    "output.eval_interval=1",
    "output.checkpoint_interval=1",
    "output.checkpoint_hist=2",
];

/// How a process trains.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Goes on instead of beginning.
    pub(crate) resumes: bool,
    /// On top of the configuration of the campaigns.
    pub(crate) sets: Vec<String>,
    /// From the first save on no file may become longer, bytes. (Not from the beginning: software adapters keep the
    /// memory of the device in files.)
    pub(crate) file_limit: Option<u64>,
}

/// The configuration of the campaigns.
pub(crate) fn configure(sets: &[String]) -> lara_models::Result<TrainConfig> {
    let sets: Vec<&str> = SETS.iter().copied().chain(sets.iter().map(String::as_str)).collect();
    TrainConfig::load("digits", &sets)
}

/// The adapter that the tests use.
pub(crate) fn adapter() -> GpuOptions {
    GpuOptions { adapter: std::env::var("LARA_ADAPTER").ok(), ..GpuOptions::default() }
}

/// Trains here to the end of the run.
pub(crate) fn here(gpu: &Gpu, options: &Options, on_event: &mut dyn FnMut(Event<'_>)) -> lara_models::Result<Summary> {
    // Measured choices may differ between processes, and others round differently.
    let tune = Tune::fixed(&[]);
    block_on(async {
        let trainer = if options.resumes {
            Trainer::resume(gpu, &tune, Path::new(RUN)).await?
        } else {
            Trainer::new(gpu, &tune, &configure(&options.sets)?).await?
        };
        trainer.run(&Control::new(), on_event).await
    })
}

/// What the process does that [`start`] started: it trains in its folder and tells what happens, a line each.
pub(crate) fn child(options: &Options) -> Result<(), String> {
    let gpu = Gpu::open_blocking(&adapter()).map_err(|error| error.to_string())?;
    let mut out = std::io::stdout();
    // Whoever listened may have ended; the run goes on.
    let mut say = |line: String| _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    let summary = here(&gpu, options, &mut |event| match event {
        Event::Step(progress) => say(format!("step {}\n", progress.result.step + 1)),
        Event::Saved(path) => {
            say(format!("saved {}\n", path.display()));
            if let Some(bytes) = options.file_limit {
                limit_files(bytes);
            }
        }
        _ => {}
    });
    match summary {
        Ok(summary) => {
            say(format!("done {}\n", summary.steps));
            Ok(())
        }
        Err(error) => {
            say(format!("error {} {error}\n", if error.is_bad_input() { 2 } else { 1 }));
            Err(error.to_string())
        }
    }
}

fn limit_files(bytes: u64) {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::resource::{Resource, setrlimit};
        // Where it cannot be set, the run does not fail, and the trial says so.
        _ = setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

/// A process that trains in `folder`. `shell` is what a shell does before it becomes that process.
pub(crate) fn start(folder: &Path, options: &Options, shell: Option<&str>) -> Result<std::process::Child, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = match shell {
        None => Command::new(program),
        Some(before) => {
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!("{before}; exec \"$0\" \"$@\"")).arg(program);
            command
        }
    };
    command.arg("--train").arg(if options.resumes { "resume" } else { "new" });
    options.sets.iter().for_each(|set| _ = command.args(["--set", set]));
    options.file_limit.iter().for_each(|bytes| _ = command.args(["--file-limit", &bytes.to_string()]));
    command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().map_err(|error| format!("cannot start a training process: {error}"))
}

/// Trains in `folder` to the end; the last line that the process said.
pub(crate) fn to_the_end(
    folder: &Path,
    options: &Options,
    shell: Option<&str>,
) -> Result<(ExitStatus, String), String> {
    let output = start(folder, options, shell)?.wait_with_output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok((output.status, text.lines().last().unwrap_or_default().to_owned()))
}

/// How a run ended: every file of its last and its best checkpoint, and what its log says of every step but the times.
#[derive(PartialEq)]
pub(crate) struct End {
    files: Vec<(String, Vec<u8>)>,
    log: Vec<String>,
}

impl End {
    pub(crate) fn of(folder: &Path) -> Result<Self, String> {
        let run = folder.join(RUN);
        let last = latest(&run).ok_or_else(|| format!("{} holds no checkpoint", run.display()))?;
        let mut files = Vec::new();
        for place in [last, run.join(BEST)] {
            let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for entry in fs::read_dir(&place).map_err(|error| error.to_string())?.flatten() {
                let bytes = fs::read(entry.path()).map_err(|error| error.to_string())?;
                files.push((format!("{name}/{}", entry.file_name().to_string_lossy()), bytes));
            }
        }
        files.sort();
        let text = fs::read_to_string(run.join(METRICS_FILE)).map_err(|error| error.to_string())?;
        let log = text.lines().map(without_times).collect::<Result<_, _>>()?;
        Ok(Self { files, log })
    }

    /// The first difference, in words.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let names = |end: &Self| end.files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        if names(self) != names(other) {
            return Some(format!("files {:?} and {:?}", names(self), names(other)));
        }
        if let Some(((name, _), _)) = self.files.iter().zip(&other.files).find(|(a, b)| a != b) {
            return Some(format!("{name} has other bytes"));
        }
        if self.log.len() != other.log.len() {
            return Some(format!("{} and {} lines of metrics", self.log.len(), other.log.len()));
        }
        self.log.iter().zip(&other.log).find(|(a, b)| a != b).map(|(a, b)| format!("metrics {a} and {b}"))
    }
}

fn without_times(line: &str) -> Result<String, String> {
    let mut value: serde_json::Value = serde_json::from_str(line).map_err(|error| format!("metrics: {error}"))?;
    if let Some(map) = value.as_object_mut() {
        map.retain(|name, _| !name.contains("per_second") && !name.contains("time"));
    }
    Ok(value.to_string())
}
