//! Rollout in linear memory, layer by layer from the last to the first.
//!
//! A query's row of the product of all layers is r = s (A_L + I) / 2 .. (A_1 + I) / 2 with s its selection, worked out from
//! the left: the inspector makes r A of any r (that is what it does for a selection), so every layer takes the time of
//! one look and no matrix. It has the mean of the heads; the largest and the smallest of them are not linear in A, and
//! what is lowest in a matrix can be told only with the matrix: for those there is [`crate::Matrices`].

use lara_runtime::maps::{map_range, roll_on};
use lara_runtime::{Aside, Tape, Tensor};

/// What a rollout needs besides the layers' rows.
pub(crate) struct Rolling {
    /// One layer of each block, first block first.
    pub(crate) asides: Vec<Aside>,
    /// Works out the range.
    pub(crate) finish: Aside,
    /// [slots, tokens].
    pub(crate) rolled: Tensor,
    /// [slots, 2]: smallest and largest number of a patch.
    pub(crate) range: Tensor,
}

impl Rolling {
    /// Records it behind the model; `layers` are the blocks' rows [slots, heads + 1, tokens].
    pub(crate) fn record(tape: &mut Tape<'_>, select: Tensor, layers: &[Tensor], prefix: usize) -> Self {
        let asides = layers.iter().map(|&rows| tape.aside(|tape| roll_on(&mut tape.rec, rows, select))).collect();
        let rolled = tape.rec.pinned("rolled", select.shape());
        let mut range = rolled;
        let finish = tape.aside(|tape| {
            range = map_range(&mut tape.rec, rolled, prefix);
            tape.rec.pin(range);
        });
        Rolling { asides, finish, rolled, range }
    }
}
