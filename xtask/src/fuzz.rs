//! `cargo xtask fuzz`: the campaigns of tests/fuzz.

use clap::Args;

use crate::Result;
use crate::shell::Task;

/// Options of `fuzz`.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// What to try: --cases N, --kill N, --device N, --long, --case N to repeat one; --help lists all.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

pub(crate) fn run(options: Options) -> Result<()> {
    Task::cargo("run --quiet -p lara-fuzz --bin fuzz --").args(options.options).run()
}
