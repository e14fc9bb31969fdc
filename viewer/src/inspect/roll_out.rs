//! Rollout in linear memory, layer by layer from the last to the first.
//!
//! A query's row of the product of all layers is r = s (A_L + I) / 2 .. (A_1 + I) / 2 with s its selection, worked out from
//! the left: the inspector makes r A of any r (that is what it does for a selection), so every layer takes the time of
//! one look and no matrix. It has the mean of the heads; the largest and the smallest of them are not linear in A, and
//! what is lowest in a matrix can be told only with the matrix: for those there is [`super::Matrices`].

use lara_runtime::maps::{map_range, roll_on};
use lara_runtime::{Aside, Tape, Tensor};

use super::{Inspector, Layer, Sizes};
use crate::error::Result;
use crate::maps::Query;
use crate::paint::{MapSource, Scale};

/// What a rollout needs besides the layers' rows.
pub(super) struct Rolling {
    /// One layer of each block, first block first.
    asides: Vec<Aside>,
    /// Works out the range.
    finish: Aside,
    /// [slots, tokens].
    rolled: Tensor,
    /// [slots, 2]: smallest and largest number of a patch.
    range: Tensor,
}

impl Rolling {
    /// Records it behind the model.
    pub(super) fn record(tape: &mut Tape<'_>, select: Tensor, layers: &[Layer], sizes: Sizes) -> Self {
        let asides = layers.iter().map(|layer| tape.aside(|tape| roll_on(&mut tape.rec, layer.rows, select))).collect();
        let rolled = tape.rec.pinned("rolled", select.shape());
        let mut range = rolled;
        let finish = tape.aside(|tape| {
            range = map_range(&mut tape.rec, rolled, sizes.prefix);
            tape.rec.pin(range);
        });
        Rolling { asides, finish, rolled, range }
    }
}

impl Inspector {
    /// Works out the rollout rows of `queries` (the first [`super::SLOTS`] of them): heads averaged, nothing discarded,
    /// all layers in one submit. The first one comes back for labels. Returns the slots that are filled.
    ///
    /// The layers' own rows are overwritten; whoever shows them looks again.
    ///
    /// # Errors
    /// A lost device.
    pub fn roll_out(&mut self, queries: &[Query]) -> Result<usize> {
        let select = self.select_for(queries);
        let plan = self.plan.clone();
        let mut run = plan.run().write(self.select, &select);
        for (layer, &rolls_on) in self.layers.iter().zip(&self.rolling.asides).rev() {
            run = run.aside(layer.aside).aside(rolls_on);
        }
        let run = run.copy((&plan, self.select), self.rolling.rolled).aside(self.rolling.finish);
        run.send(&mut self.rolled_ring, &[(&plan, self.rolling.rolled)], 0).submit()?;
        Ok(self.queries.len())
    }

    /// Where a slot's rollout lies, and its scale.
    pub fn rolled(&self, slot: usize) -> Option<(MapSource, Scale)> {
        if slot >= self.sizes.slots {
            return None;
        }
        let Rolling { rolled, range, .. } = self.rolling;
        let at = slot * self.sizes.tokens() + self.sizes.prefix;
        let source = MapSource { buffer: self.plan.buffer(rolled)?.clone(), at };
        Some((source, Scale::Range { buffer: self.plan.buffer(range)?.clone(), index: slot }))
    }

    /// Reads the rollout rows [slots, tokens]: for tests and files.
    pub fn read_rolled(&self) -> impl Future<Output = Result<Vec<f32>>> + use<> {
        let (plan, rolled) = (self.plan.clone(), self.rolling.rolled);
        async move { Ok(plan.read(rolled).await?) }
    }
}
