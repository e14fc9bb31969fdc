//! `lara view` in a build without the feature `view`: one sentence that says how to get the window.

use clap::Args;
use lara_models::train::{Event, Summary, Trainer};
use lara_runtime::{Gpu, Tune};

use crate::fail::{Failure, Outcome};
use crate::interrupt::Interrupt;

/// Look at attention in a window (not part of this build).
#[derive(Args)]
pub(crate) struct Options {
    /// Whatever the window would have been opened on.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

pub(crate) fn run(_: &Options) -> Outcome {
    Err(absent())
}

/// There is no window in this build.
pub(crate) fn is_there() -> Outcome {
    Err(absent())
}

/// As the window's, which is not there.
pub(crate) fn watch(
    _: &Gpu,
    _: &Tune,
    _: Trainer,
    _: Interrupt,
    _: impl FnMut(&Event<'_>) + Send + 'static,
) -> Outcome<Summary> {
    Err(absent())
}

fn absent() -> Failure {
    Failure::input(
        "this lara was built without the window; `cargo install --path cli` builds it in (the feature `view`, on by \
         default), and `lara export-maps` writes the same maps as pictures or a page without one",
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Options, run};

    #[derive(Parser)]
    struct View {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn whatever_is_asked_for_the_answer_says_how_to_get_the_window() {
        for line in ["view", "view runs/digits photos/", "view model.safetensors --set attention=ra --adapter 0"] {
            let view = View::try_parse_from(line.split(' ')).expect("any arguments");
            let sentence = run(&view.options).expect_err("no window").to_string();
            assert!(sentence.contains("cargo install --path cli"), "{sentence}");
        }
    }
}
