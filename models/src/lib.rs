//! What is computed: vision transformers, data sets, checkpoints and the trainer of lara.
//!
//! ```
//! use lara_models::TrainConfig;
//! use lara_models::data::{Augment, Loader, LoaderOptions, Position, Split};
//!
//! let config = TrainConfig::load("digits", &["train.batch_size=32"])?;
//! let images = config.open_data(Split::Train)?;
//! let options = LoaderOptions::train(config.train.batch_size, config.train.seed, 1, Augment::train(&config.data));
//! let mut loader = Loader::new(images, options, Position::default())?;
//! let batch = loader.next().expect("training batches never end")?;
//! assert_eq!(batch.images.len(), 32 * 8 * 8);
//! # Ok::<(), lara_models::Error>(())
//! ```

pub mod attend;
mod attention;
mod check;
mod compile;
pub mod config;
pub mod data;
mod distill;
mod error;
pub mod estimate;
mod family;
mod finite;
pub mod fit;
pub mod hub;
mod image_size;
pub mod imagenet;
pub mod import;
pub mod layers;
mod model;
mod predictor;
pub mod pvt;
pub mod random;
mod registry;
mod schedule;
mod settings;
pub mod task;
pub mod torch;
pub mod train;
pub mod vit;
pub mod weights;
pub mod zoo;

pub use attention::LayerAttention;
pub use compile::compile;
pub use config::TrainConfig;
pub use error::{Error, Result};
pub use family::{Family, Hook, Input, LayerShape, Network, Outputs, Site};
pub use finite::where_not_finite;
pub use image_size::ImageSize;
pub use model::{Model, Weights};
pub use predictor::{Predictor, softmax, top};
pub use pvt::{Pvt, PvtConfig};
pub use registry::ModelConfig;
pub use vit::{Vit, VitConfig};
