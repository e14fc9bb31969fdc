//! What is computed: vision transformers, data sets, checkpoints and the trainer of lara.
//!
//! ```
//! use lara_models::data::{self, Augment, Loader, LoaderOptions, Position, Split};
//! use lara_models::train::TrainConfig;
//!
//! let config = TrainConfig::load("digits", &["train.batch_size=32"])?;
//! let images = data::open(&config.data, &config.model, Split::Train)?;
//! let options = LoaderOptions::train(config.train.batch_size, config.train.seed, 1, Augment::train(&config.data));
//! let mut loader = Loader::new(images, options, Position::default())?;
//! let batch = loader.next().expect("training batches never end")?;
//! assert_eq!(batch.images.len(), 32 * 8 * 8);
//! # Ok::<(), lara_models::Error>(())
//! ```

pub mod data;
mod error;
mod predictor;
pub mod random;
pub mod train;
mod vit;
pub mod weights;

pub use error::{Error, Result};
pub use predictor::{Predictor, softmax, top};
pub use vit::{Attended, Look, Vit, VitOutput};
