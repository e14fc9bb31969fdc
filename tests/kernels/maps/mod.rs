mod collect_rows;
mod discard;
mod fuse_heads;
mod implied_rows;
mod map_distance;
mod map_range;
mod moments;
mod relevance;
mod roll_on;
mod rollout;
mod select_rows;
mod weigh;

use lara_runtime::{Mode, Parameters, Tape};
use lara_tests::{adapter, tune};

/// What a recording that cannot be finished says.
fn refusal(record: impl FnOnce(&mut Tape<'_>)) -> String {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    record(&mut tape);
    tape.finish().expect_err("this does not fit").to_string()
}
