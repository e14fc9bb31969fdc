//! `lara experiment`: the paper's comparisons as commands.

mod ablation;
mod approximation;
mod classification;
mod files;
mod measure;
mod plot;
mod runs;
mod source;
mod statistics;

use clap::{Args, Subcommand};

use crate::fail::Outcome;

/// Repeat the paper's comparisons: how well softmax attention is approximated, and what that means for a classifier.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara experiment approximation
  lara experiment approximation --source checkpoint runs/digits
  lara experiment classification --preset digits --seeds 3
  lara experiment ablation --preset digits --seeds 3")]
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
    /// Train with other settings of LARA, one varied at a time.
    Ablation(ablation::Options),
}

pub(crate) fn run(options: &Options) -> Outcome {
    match &options.experiment {
        Experiment::Approximation(options) => approximation::run(options),
        Experiment::Classification(options) => classification::run(options),
        Experiment::Ablation(options) => ablation::run(options),
    }
}
