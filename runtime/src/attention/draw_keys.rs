//! Keys drawn at random, each as likely as its attention weight.

use lara_shaders::DRAW_KEYS;

use crate::{Error, Recorder, Tensor, Variant};

/// Most keys: their numbers are kept as f32.
const MOST_KEYS: usize = 1 << 24;

/// Draws `samples` keys for every row of probabilities; no gradient. A draw depends on the header's seed and step, the
/// stream and its place alone.
#[derive(Clone, Copy, Debug)]
pub struct DrawKeys {
    /// Keys a row S.
    pub samples: usize,
    /// Number of the random stream, from [`Recorder::next_stream`].
    pub stream: u32,
    /// Whether the place of a sample in its batch counts: while training. Otherwise a sample draws the same in any batch.
    pub by_batch: bool,
    /// Real queries before each query [batch, N + 1], the last being their number: a padded sample then draws
    /// what it would without its padding.
    pub ranks: Option<Tensor>,
}

impl DrawKeys {
    fn variant(&self, rec: &Recorder, rows: usize, keys: usize) -> Variant {
        let about = usize::next_power_of_two;
        let key = format!("draw_keys {} {} {}", about(rows), about(keys), about(self.samples));
        rec.choose(&key, &[Variant::FORWARD, Variant::FORWARD_ROWS], &|rec, variant| {
            let (p, index) = (rec.scratch("p", [rows, keys]), rec.scratch("index", [1, 1, rows * self.samples]));
            DrawKeys { ranks: None, ..*self }.step(rec, variant, p, [0, rows], index);
        })
    }

    fn step(&self, rec: &mut Recorder, entry: Variant, p: Tensor, [first, rows]: [usize; 2], index: Tensor) {
        // A workgroup draws all of a row's keys, an invocation one.
        let items = if entry == Variant::FORWARD_ROWS { rows * self.samples } else { rows };
        rec.step(&DRAW_KEYS, entry.name())
            .constant("HAS_PADDING", if self.ranks.is_some() { 1.0 } else { 0.0 })
            .bind("p", p)
            .bind("index", index)
            .bind_or_absent("ranks", self.ranks)
            .uint("rows", rows)
            .uint("keys", p.last())
            .uint("samples", self.samples)
            .uint("first", first)
            .uint("stream", self.stream as usize)
            .uint("heads", index.dims()[1])
            .uint("queries", index.last() / self.samples)
            .flag("by_batch", self.by_batch)
            .dispatch_rows(items);
    }

    /// Records the draws of `rows` rows of probabilities [rows, M], the first of which is row `first` of all rows of
    /// `index` [batch, heads, N S] (numbers as f32). Rows need not sum to 1; one without a positive probability gets key 0.
    pub fn record(&self, rec: &mut Recorder, probabilities: Tensor, [first, rows]: [usize; 2], index: Tensor) {
        let keys = probabilities.last();
        if keys > MOST_KEYS {
            rec.fail(Error::TooLarge {
                what: "the keys that one is drawn from".into(),
                needed: keys.to_string(),
                allowed: MOST_KEYS.to_string(),
                lower: "the sequence length".into(),
            });
            return;
        }
        let entry = self.variant(rec, rows, keys);
        self.step(rec, entry, probabilities, [first, rows], index);
    }
}
