//! What a training run needs besides the model: its settings, learning rate, metrics and checkpoints.

mod atomic_dir;
pub mod checkpoint;
pub mod checkpoints;
mod clock;
mod control;
mod initialize;
mod layout;
mod lock;
pub mod metrics;
mod progress;
#[cfg(not(target_arch = "wasm32"))]
mod run;
mod run_files;
mod session;
mod teacher;
pub mod tensorboard;
mod trainer;

pub use crate::config::TrainConfig;
pub use crate::distill::{DistillConfig, DistillType};
pub use crate::schedule::Schedule;
pub use crate::settings::{Checkpointing, OptimConfig, OutputConfig};
pub use crate::task::classify::{Evaluation, evaluate, evaluate_while};
pub use crate::weights::names_and_shapes;
pub use checkpoint::{Checkpoint, Learnt, Snapshot, State};
pub use checkpoints::Checkpoints;
pub use control::{Control, Order};
pub use initialize::{Initialized, initialize};
pub use lock::RunLock;
pub use metrics::MetricsLog;
pub use progress::Progress;
#[cfg(not(target_arch = "wasm32"))]
pub use run::{Event, Summary};
pub use session::{Session, StepResult};
pub use trainer::Trainer;
