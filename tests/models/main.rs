//! Models, data sets, checkpoints and the trainer.

mod attend;
mod attend_layer;
mod bench;
mod checkpoint;
mod checkpoints;
mod cli;
mod config;
mod control;
mod data;
mod device;
mod ema;
mod experiment;
mod export_maps;
mod extremes;
mod finite;
mod live;
mod loader;
mod metrics;
mod picture;
mod random;
mod readers;
mod resume;
mod stopped;
mod trainer;
mod vit;
