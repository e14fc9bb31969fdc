//! What a training run needs besides the model: its settings, learning rate, metrics and checkpoints.

mod atomic_dir;
pub mod checkpoint;
pub mod checkpoints;
mod control;
mod evaluate;
mod live;
mod lock;
pub mod metrics;
pub mod schedule;
mod session;
pub mod settings;
mod stepper;
pub mod tensorboard;
#[cfg(not(target_arch = "wasm32"))]
mod trainer;

pub use crate::config::TrainConfig;
pub use checkpoint::{Checkpoint, Snapshot, State};
pub use checkpoints::Checkpoints;
pub use control::{Control, Order};
pub use evaluate::{Evaluation, evaluate};
pub use live::LiveTrainer;
pub use lock::RunLock;
pub use metrics::MetricsLog;
pub use schedule::Schedule;
pub use session::{Session, StepResult, names_and_shapes};
pub use settings::{OptimConfig, OutputConfig};
pub use stepper::Progress;
#[cfg(not(target_arch = "wasm32"))]
pub use trainer::{Event, Summary, Trainer};
