//! What a training run needs besides the model: its configuration, learning rate, metrics and checkpoints.

mod atomic_dir;
pub mod checkpoint;
pub mod checkpoints;
pub mod config;
pub mod config_source;
mod control;
mod evaluate;
pub mod layers;
mod live;
mod lock;
pub mod metrics;
pub mod schedule;
mod session;
mod stepper;
pub mod tensorboard;
#[cfg(not(target_arch = "wasm32"))]
mod trainer;

pub use checkpoint::{Checkpoint, Snapshot, State};
pub use checkpoints::Checkpoints;
pub use config::TrainConfig;
pub use control::{Control, Order};
pub use evaluate::{Evaluation, evaluate};
pub use live::LiveTrainer;
pub use lock::RunLock;
pub use metrics::MetricsLog;
pub use schedule::Schedule;
pub use session::{Session, StepResult, names_and_shapes};
pub use stepper::Progress;
#[cfg(not(target_arch = "wasm32"))]
pub use trainer::{Event, Summary, Trainer};
