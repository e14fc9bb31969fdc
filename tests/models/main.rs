//! Models, data sets, checkpoints and the trainer.

mod attend;
mod bench;
mod checkpoint;
mod cli;
mod config;
mod control;
mod data;
mod experiment;
mod export_maps;
mod live;
mod loader;
mod metrics;
mod picture;
mod random;
mod trainer;
mod vit;
