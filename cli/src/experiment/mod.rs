//! `lara experiment`: the paper's comparisons as commands.

mod approximation;
mod classification;
mod measure;
mod plot;
mod source;
mod statistics;

use std::path::Path;

use clap::{Args, Subcommand};

use crate::fail::{Failure, Outcome};

/// Repeat the paper's comparisons: how well softmax attention is approximated, and what that means for a classifier.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara experiment approximation
  lara experiment approximation --source checkpoint runs/digits
  lara experiment classification --preset digits --seeds 3")]
pub(crate) struct Options {
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Subcommand)]
enum Experiment {
    /// Error of RFA, RA and LARA against exact softmax attention over the number of samples.
    Approximation(approximation::Options),
    /// Train the same Vision Transformer with every mechanism at equal budget.
    Classification(classification::Options),
}

pub(crate) fn run(options: &Options) -> Outcome {
    match &options.experiment {
        Experiment::Approximation(options) => approximation::run(options),
        Experiment::Classification(options) => classification::run(options),
    }
}

fn create(folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder).map_err(|e| Failure::input(format!("cannot create {}: {e}", folder.display())))
}

fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text).map_err(|e| Failure::input(format!("cannot write {}: {e}", path.display())))
}
