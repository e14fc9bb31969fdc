//! Keys drawn at random, each as likely as its attention weight.

use lara_shaders::DRAW_KEYS;

use crate::{Recorder, Tensor, Variant};

/// Draws `samples` keys for every row of probabilities; no gradient. The draw depends on the header's seed and step,
/// the stream and the row alone.
#[derive(Clone, Copy, Debug)]
pub struct DrawKeys {
    /// Keys a row S.
    pub samples: usize,
    /// Number of the random stream, from [`Recorder::next_stream`].
    pub stream: u32,
}

impl DrawKeys {
    fn variant(&self, rec: &Recorder, rows: usize, keys: usize) -> Variant {
        let about = usize::next_power_of_two;
        let key = format!("draw_keys {} {} {}", about(rows), about(keys), about(self.samples));
        rec.choose(&key, &[Variant::FORWARD, Variant::FORWARD_ROWS], &|rec, variant| {
            let (p, index) = (rec.scratch("p", [rows, keys]), rec.scratch("index", [rows, self.samples]));
            self.step(rec, variant, p, [0, rows], index);
        })
    }

    fn step(&self, rec: &mut Recorder, entry: Variant, p: Tensor, [first, rows]: [usize; 2], index: Tensor) {
        // A workgroup draws all of a row's keys, an invocation one.
        let items = if entry == Variant::FORWARD_ROWS { rows * self.samples } else { rows };
        rec.step(&DRAW_KEYS, entry.name())
            .bind("p", p)
            .bind("index", index)
            .uint("rows", rows)
            .uint("keys", p.last())
            .uint("samples", self.samples)
            .uint("first", first)
            .uint("stream", self.stream as usize)
            .dispatch_rows(items);
    }

    /// Records the draws of `rows` rows of probabilities [rows, M], the first of which is row `first` of `index`
    /// [all rows, S] (numbers as f32). A row without a positive probability gets key 0.
    pub fn record(&self, rec: &mut Recorder, probabilities: Tensor, [first, rows]: [usize; 2], index: Tensor) {
        let entry = self.variant(rec, rows, probabilities.last());
        self.step(rec, entry, probabilities, [first, rows], index);
    }
}
