//! A training run as the window sees it: what it said so far, and the handle that pauses, steps, saves and stops it.
//!
//! A run is either attached (`lara train --view`: a thread that does not wait for the screen) or begun here, where the
//! frames drive it, on the desktop as in a browser.

mod history;
mod live;
#[cfg(not(target_arch = "wasm32"))]
mod native;

use std::path::PathBuf;

use lara_models::train::{Control, Evaluation, Progress, TrainConfig};
use lara_models::{Model, Weights};
use lara_runtime::attention::MechanismKind;
use lara_runtime::{Gpu, Parameters, Tune};

pub use history::{Curve, History, Smoothed};
pub use live::Pace;
#[cfg(not(target_arch = "wasm32"))]
pub use native::Listener;

use crate::error::Result;
use crate::job::Repaint;

/// What became of a thread that panicked.
#[cfg(not(target_arch = "wasm32"))]
const LOST: &str = "the training thread ended without a result; that is a bug in lara";

/// Where a run stands.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// There is none.
    Idle,
    /// Its step is being recorded, tuned and compiled.
    Preparing,
    /// Steps are taken.
    Running,
    /// It is held between two steps.
    Paused,
    /// The held-out images are looked at.
    Evaluating {
        /// Images done.
        done: usize,
        /// Of how many.
        total: usize,
    },
    /// It ends after the steps under way.
    Stopping,
    /// It was stopped before its end.
    Stopped,
    /// It came to its end.
    Finished,
    /// It ended with this sentence.
    Failed(String),
}

impl State {
    /// Whether there is a run that has not ended.
    pub fn is_active(&self) -> bool {
        !matches!(self, State::Idle | State::Stopped | State::Finished | State::Failed(_))
    }
}

/// What a run says.
enum Message {
    Ready(Box<Model>, u64),
    Step(Progress),
    Evaluating {
        done: usize,
        total: usize,
    },
    Evaluated {
        step: u64,
        evaluation: Evaluation,
    },
    #[cfg(not(target_arch = "wasm32"))]
    Saved(PathBuf),
    #[cfg(not(target_arch = "wasm32"))]
    Ended(lara_models::Result<lara_models::train::Summary>),
    #[cfg(not(target_arch = "wasm32"))]
    Lost,
    /// The end of a run without files.
    Over {
        early: bool,
    },
    Failed(String),
}

enum Source {
    None,
    #[cfg(not(target_arch = "wasm32"))]
    Native(native::NativeRun),
    Live(live::LiveRun),
}

/// A run, or the place for one.
pub struct Training {
    gpu: Gpu,
    tune: Tune,
    repaint: Repaint,
    source: Source,
    said: Said,
}

/// What the run said, and the handle on it.
struct Said {
    state: State,
    control: Control,
    history: History,
    total_steps: u64,
    model: Option<Model>,
    is_new: bool,
    saved: Option<PathBuf>,
    #[cfg(not(target_arch = "wasm32"))]
    result: Option<lara_models::Result<lara_models::train::Summary>>,
}

impl Said {
    fn new(state: State, control: Control) -> Self {
        Said {
            state,
            control,
            history: History::default(),
            total_steps: 0,
            model: None,
            is_new: false,
            saved: None,
            #[cfg(not(target_arch = "wasm32"))]
            result: None,
        }
    }

    fn ready(&mut self, model: Model, total_steps: u64) {
        self.state = State::Running;
        self.total_steps = total_steps;
        (self.model, self.is_new) = (Some(model), true);
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Ready(model, total_steps) => self.ready(*model, total_steps),
            Message::Step(progress) => {
                self.history.record(&progress);
                self.state = State::Running;
            }
            Message::Evaluating { done, total } => self.state = State::Evaluating { done, total },
            Message::Evaluated { step, evaluation } => {
                self.history.record_evaluation(step, &evaluation);
                self.state = State::Running;
            }
            #[cfg(not(target_arch = "wasm32"))]
            Message::Saved(path) => self.saved = Some(path),
            #[cfg(not(target_arch = "wasm32"))]
            Message::Ended(result) => {
                self.state = match &result {
                    Ok(summary) if summary.interrupted => State::Stopped,
                    Ok(_) => State::Finished,
                    Err(error) => State::Failed(error.to_string()),
                };
                self.result = Some(result);
            }
            #[cfg(not(target_arch = "wasm32"))]
            Message::Lost => {
                if self.state.is_active() {
                    self.state = State::Failed(LOST.into());
                }
            }
            Message::Over { early } => self.state = if early { State::Stopped } else { State::Finished },
            Message::Failed(sentence) => self.state = State::Failed(sentence),
        }
    }
}

impl Training {
    /// No run yet. `repaint` is called from any thread when there is something new to show.
    pub fn new(gpu: &Gpu, tune: &Tune, repaint: Repaint) -> Self {
        Training {
            gpu: gpu.clone(),
            tune: tune.clone(),
            repaint,
            source: Source::None,
            said: Said::new(State::Idle, Control::new()),
        }
    }

    /// Starts a prepared run in a thread of its own and attaches to it. It goes on when this is dropped. `listener`
    /// hears its events in that thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn attach(
        &mut self,
        trainer: lara_models::train::Trainer,
        control: &Control,
        listener: Listener,
    ) -> Result<()> {
        let model = live_model(&trainer);
        let mut said = Said::new(State::Running, control.clone());
        said.ready(model, trainer.total());
        self.source = Source::Native(native::NativeRun::start(trainer, control, listener, self.repaint.clone())?);
        self.said = said;
        Ok(())
    }

    /// Begins a run that writes no files and takes its steps between the frames. One that goes on is stopped.
    pub fn start(&mut self, config: TrainConfig) {
        self.said.control.stop();
        let control = Control::new();
        self.source = Source::Live(live::LiveRun::start(&self.gpu, &self.tune, config, &control, self.repaint.clone()));
        self.said = Said::new(State::Preparing, control);
    }

    /// Begins a run on the embedded digits, with the settings of their preset and this mechanism.
    ///
    /// # Errors
    /// If the mechanism does not fit the preset.
    pub fn start_digits(&mut self, mechanism: MechanismKind) -> Result<()> {
        let mut config = TrainConfig::load("digits", &[format!("attention={}", mechanism.name())])?;
        // Someone looks on: a curve of the held-out images wants more points than a log file.
        config.output.eval_interval = 1;
        self.start(config);
        Ok(())
    }

    /// Notes that a run could not be begun.
    pub(crate) fn fail(&mut self, sentence: String) {
        self.said.state = State::Failed(sentence);
    }

    /// Takes what the run said since the last frame, and lets one that the frames drive take steps. Never waits.
    pub fn poll(&mut self) {
        let said = &mut self.said;
        match &mut self.source {
            Source::None => {}
            #[cfg(not(target_arch = "wasm32"))]
            Source::Native(run) => run.poll(&mut |message| said.hear(message)),
            Source::Live(run) => run.poll(&mut |message| said.hear(message)),
        }
        if !self.said.state.is_active() {
            self.source = Source::None;
        }
    }

    /// Where the run stands.
    pub fn state(&self) -> State {
        match (&self.said.state, &self.said.control) {
            (State::Running | State::Evaluating { .. } | State::Preparing, control) if control.is_stopped() => {
                State::Stopping
            }
            (State::Running, control) if control.is_paused() => State::Paused,
            (state, _) => state.clone(),
        }
    }

    /// The handle on the run.
    pub fn control(&self) -> &Control {
        &self.said.control
    }

    /// What the run said.
    pub fn history(&self) -> &History {
        &self.said.history
    }

    /// Optimizer steps of the whole run; 0 until it is prepared.
    pub fn total_steps(&self) -> u64 {
        self.said.total_steps
    }

    /// The model, once it is prepared. It stays after the run's end, with the last weights.
    pub fn model(&self) -> Option<&Model> {
        self.said.model.as_ref()
    }

    /// The model, once for every run: for whoever opens what is new.
    pub fn take_model(&mut self) -> Option<Model> {
        std::mem::take(&mut self.said.is_new).then(|| self.said.model.clone()).flatten()
    }

    /// The weights of the run, once it is prepared. A clone shares them; see [`Parameters`].
    pub fn parameters(&self) -> Option<&Parameters> {
        match &self.model()?.weights {
            Weights::Live(parameters) => Some(parameters),
            Weights::Stored(_) => None,
        }
    }

    /// The configuration of the run, once it is prepared.
    pub fn config(&self) -> Option<&TrainConfig> {
        self.model().map(|model| &model.config)
    }

    /// The newest checkpoint since the run was attached.
    pub fn saved(&self) -> Option<&std::path::Path> {
        self.said.saved.as_deref()
    }

    /// Whether the run has a folder for checkpoints: one that was begun here has none.
    pub fn can_save(&self) -> bool {
        match self.source {
            Source::None | Source::Live(_) => false,
            #[cfg(not(target_arch = "wasm32"))]
            Source::Native(_) => true,
        }
    }

    /// Waits for the end of an attached run; one that is held goes on.
    ///
    /// # Errors
    /// What the run failed with, and if no run was attached.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn into_summary(mut self) -> lara_models::Result<lara_models::train::Summary> {
        self.poll();
        if let Some(result) = self.said.result {
            return result;
        }
        self.said.control.resume();
        match (self.source, self.said.state) {
            (Source::Native(run), _) => run.wait(),
            (_, State::Failed(sentence)) => Err(lara_models::Error::Failed(sentence)),
            _ => Err(lara_models::Error::BadInput("no run was attached, so there is no summary of one".into())),
        }
    }
}

/// The model of a run in progress: its buffers, so that every step shows.
fn live_model(trainer: &lara_models::train::Trainer) -> Model {
    let (config, classes) = (trainer.config().clone(), trainer.classes().to_vec());
    Model::live(config, classes, trainer.session().parameters.clone())
}
