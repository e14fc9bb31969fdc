//! Keys drawn at random, each as likely as its attention weight.

use lara_shaders::DRAW_KEYS;

use crate::{Recorder, Tensor};

/// Draws `samples` keys for every row of probabilities; no gradient. The draw depends on the header's seed and step, the
/// stream and the row alone.
#[derive(Clone, Copy, Debug)]
pub struct DrawKeys {
    /// Keys a row S.
    pub samples: usize,
    /// Number of the random stream, from [`Recorder::next_stream`].
    pub stream: u32,
}

impl DrawKeys {
    /// Records the draws of `rows` rows of probabilities [rows, M], the first of which is row `first` of `index`
    /// [all rows, S] (numbers as f32). A row without a positive probability gets key 0.
    pub fn record(&self, rec: &mut Recorder, probabilities: Tensor, [first, rows]: [usize; 2], index: Tensor) {
        rec.step(&DRAW_KEYS, "forward")
            .bind("p", probabilities)
            .bind("index", index)
            .uint("rows", rows)
            .uint("keys", probabilities.last())
            .uint("samples", self.samples)
            .uint("first", first)
            .uint("stream", self.stream as usize)
            .dispatch_items(rows * self.samples, 64);
    }
}
