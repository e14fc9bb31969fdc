//! Softmax attention by slabs of queries: logits of a bounded number of rows, row softmax, product with the values.
//!
//! Three plain steps a slab (two matmuls and a row softmax) instead of one streaming kernel: the faster shape where
//! matmul is good and synchronisation is not. Memory stays O(N + M): a slab has a fixed size.

use lara_shaders::SOFTMAX;

use super::draw_keys::DrawKeys;
use crate::ops::{Layout, Operand, Prepared, Product, column_sum_at, fill};
use crate::{Error, Recorder, Slot, StepBuilder, Tensor, Variant};

/// Elements of a slab's logits: as a rule (16 MiB), and at most (64 MiB) where a matrix would take more slabs than sums of
/// gradients over them stay exact for.
const SLAB: usize = 4 << 20;
const LARGEST_SLAB: usize = 16 << 20;
const MOST_SLABS_OF_A_MATRIX: usize = 512;

/// Most slabs of one attention: every one is some dispatches, in the recording and on the device.
const MOST_SLABS: usize = 4096;

/// Shapes of one attention: Z = batch x heads, N queries, M keys, D channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shapes {
    pub(crate) batch: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) channels: usize,
    pub(crate) scale: f32,
    pub(crate) causal: bool,
}

/// What the softmax of every query leaves behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normaliser {
    /// Log-sum-exp [Z, N].
    pub(crate) lse: Tensor,
    /// Largest logit and sum of exp(logit - largest) [Z, N, 2]: what the rounding of a large log-sum-exp would lose.
    pub(crate) peak_and_sum: Tensor,
}

/// Rows `first_row ..` of `batch` matrices from `first` on; several matrices only when they are whole.
struct Slab {
    first: usize,
    batch: usize,
    first_row: usize,
    rows: usize,
}

impl Normaliser {
    fn bind<'r>(&self, step: StepBuilder<'r>) -> StepBuilder<'r> {
        step.bind("lse", self.lse).bind("peak_and_sum", self.peak_and_sum)
    }
}

impl Shapes {
    /// Rows of a slab that holds a part of one matrix.
    fn slab_rows(&self) -> usize {
        let rows = self.queries.div_ceil(MOST_SLABS_OF_A_MATRIX).min(LARGEST_SLAB / self.keys);
        rows.max(SLAB / self.keys).max(1)
    }

    /// Places for what the softmax leaves behind.
    pub(crate) fn normaliser(&self, rec: &mut Recorder) -> Normaliser {
        let rows = self.batch * self.queries;
        Normaliser { lse: rec.scratch("lse", [rows]), peak_and_sum: rec.scratch("peak and sum", [rows, 2]) }
    }

    /// Whether slabs are few enough, and their logits small enough, to be a way at all.
    pub(crate) fn fits_slabs(&self) -> bool {
        let of_a_matrix = self.queries.div_ceil(self.slab_rows());
        let bounded = self.keys <= LARGEST_SLAB && of_a_matrix <= MOST_SLABS_OF_A_MATRIX;
        // Matrices that are smaller than a slab share one.
        let alone = self.queries.saturating_mul(self.keys) > SLAB / 2;
        bounded && (!alone || of_a_matrix.saturating_mul(self.batch) <= MOST_SLABS)
    }

    fn slabs(&self) -> Vec<Slab> {
        let per_matrix = self.queries.saturating_mul(self.keys);
        if per_matrix <= SLAB {
            let group = (SLAB / per_matrix).max(1);
            let starts = (0..self.batch).step_by(group);
            let whole = |first| Slab { first, batch: group.min(self.batch - first), first_row: 0, rows: self.queries };
            return starts.map(whole).collect();
        }
        let rows = self.slab_rows();
        let part = |first: usize, first_row: usize| Slab {
            first,
            batch: 1,
            first_row,
            rows: rows.min(self.queries - first_row),
        };
        let queries = self.queries;
        (0..self.batch)
            .flat_map(|z| (0..queries).step_by(rows).map(move |row| (z, row)))
            .map(|(z, r)| part(z, r))
            .collect()
    }

    /// The first element of the slab in a tensor with one row of `width` a query.
    fn query_offset(&self, slab: &Slab, width: usize) -> usize {
        (slab.first * self.queries + slab.first_row) * width
    }

    fn product(&self, slab: &Slab, layout: Layout, [m, n, k]: [usize; 3], scale: f32, accumulate: bool) -> Product {
        Product { layout, batch: slab.batch, m, n, k, scale, accumulate }
    }

    /// How probabilities are made.
    fn variant(&self, rec: &Recorder) -> Variant {
        self.choose(rec, "", &[Variant::FORWARD, Variant::FORWARD_ROWS])
    }

    /// How probabilities are made that only the product with the values sees: its rows may be divided instead of theirs.
    fn variant_for_output(&self, rec: &Recorder) -> Variant {
        if self.keys.is_multiple_of(4) && self.channels.is_multiple_of(4) {
            return self.choose(rec, " quads", &[Variant::FORWARD, Variant::FORWARD_ROWS, Variant::FORWARD_ROWS4]);
        }
        self.variant(rec)
    }

    fn choose(&self, rec: &Recorder, kind: &str, candidates: &[Variant]) -> Variant {
        let rows = (self.batch * self.queries).min((SLAB / self.keys).max(1));
        let key = format!("softmax {} {}{kind}", rows.next_power_of_two(), self.keys.next_power_of_two());
        rec.choose(&key, candidates, &|rec, variant| {
            let shapes = Shapes { batch: 1, queries: rows, ..*self };
            let slab = Slab { first: 0, batch: 1, first_row: 0, rows };
            let (logits, normaliser) = (rec.scratch("logits", [rows, self.keys]), shapes.normaliser(rec));
            if let Some(scales) = shapes.row_softmax(rec, &slab, variant, None, logits, normaliser) {
                let out = rec.scratch("out", [rows, self.channels]);
                shapes.divide_rows(rec, &slab, scales, out);
            }
        })
    }

    fn step<'r>(
        &self,
        rec: &'r mut Recorder,
        slab: &Slab,
        entry: &'static str,
        bias: Option<Tensor>,
    ) -> StepBuilder<'r> {
        let name = if entry == "forward_rows4" { "bias_quads" } else { "key_bias" };
        rec.step(&SOFTMAX, entry)
            .constant("HAS_BIAS", if bias.is_some() { 1.0 } else { 0.0 })
            .constant("CAUSAL", if self.causal { 1.0 } else { 0.0 })
            .bind_or_absent(name, bias)
            .uint("rows", slab.batch * slab.rows)
            .uint("queries", self.queries)
            .uint("keys", self.keys)
            .uint("first", slab.first * self.queries + slab.first_row)
    }

    /// Turns logits into probabilities; with `forward_rows4` into those times the inverse of the factors that it returns, one
    /// a row.
    fn row_softmax(
        &self,
        rec: &mut Recorder,
        slab: &Slab,
        variant: Variant,
        bias: Option<Tensor>,
        logits: Tensor,
        normaliser: Normaliser,
    ) -> Option<Tensor> {
        let rows = slab.batch * slab.rows;
        if variant == Variant::FORWARD_ROWS4 {
            let scales = rec.scratch("scales", [rows]);
            let step = self.step(rec, slab, variant.name(), bias).bind("logit_quads", logits);
            normaliser.bind(step).bind("scales", scales).dispatch_items(rows);
            return Some(scales);
        }
        let step = self.step(rec, slab, variant.name(), bias).bind("logits", logits);
        normaliser.bind(step).dispatch_rows(rows);
        None
    }

    /// Multiplies the rows of a slab's output by their factors.
    fn divide_rows(&self, rec: &mut Recorder, slab: &Slab, scales: Tensor, out: Tensor) {
        let rows = slab.batch * slab.rows;
        rec.step(&SOFTMAX, "divide_rows")
            .bind("scales", scales)
            .bind("out_quads", out)
            .uint("rows", rows)
            .uint("queries", self.queries)
            .uint("keys", self.channels)
            .uint("first", self.query_offset(slab, 1))
            .dispatch_items(rows * self.channels / 4);
    }

    /// Keys or values as products of queries with them want them, once for all slabs.
    fn prepare(&self, rec: &mut Recorder, slab: &Slab, x: Tensor) -> Prepared {
        let sizes = [slab.rows, self.keys, self.channels];
        self.product(slab, Layout::Nt, sizes, self.scale, false).prepare(rec, x, self.batch)
    }

    /// A slab's place for logits, which the slabs after it use again: the first slab is the largest.
    fn place(&self, rec: &mut Recorder, label: &str, slab: &Slab) -> Tensor {
        rec.scratch(label, [slab.batch, slab.rows, self.keys])
    }

    /// Logits of a slab, or what else there is of its queries and all keys: scale q k^T.
    fn with_keys(&self, rec: &mut Recorder, slab: &Slab, q: Tensor, k: &Prepared, scale: f32, logits: Tensor) {
        let q = Operand { tensor: q, offset: self.query_offset(slab, self.channels) };
        let sizes = [slab.rows, self.keys, self.channels];
        self.product(slab, Layout::Nt, sizes, scale, false).record_prepared(rec, q, k, slab.first, logits);
    }

    /// Logits of all rows at once.
    fn all_logits(&self, rec: &mut Recorder, whole: &Slab, q: Tensor, k: Tensor) -> Tensor {
        let logits = self.place(rec, "logits", whole);
        let keys = self.prepare(rec, whole, k);
        self.with_keys(rec, whole, q, &keys, self.scale, logits);
        logits
    }

    /// Records the probabilities [Z, N, M] themselves: for looking at, when N and M are small.
    pub(crate) fn probabilities(&self, rec: &mut Recorder, q: Tensor, k: Tensor, bias: Option<Tensor>) -> Tensor {
        let entry = self.variant(rec);
        let whole = Slab { first: 0, batch: self.batch, first_row: 0, rows: self.queries };
        let logits = self.all_logits(rec, &whole, q, k);
        let normaliser = self.normaliser(rec);
        self.row_softmax(rec, &whole, entry, bias, logits, normaliser);
        logits
    }

    /// Records the softmax [Z, N, M] of a key bias alone: equal shares of the keys that are not masked.
    pub(crate) fn shares(&self, rec: &mut Recorder, bias: Option<Tensor>) -> Tensor {
        let entry = self.variant(rec);
        let whole = Slab { first: 0, batch: self.batch, first_row: 0, rows: self.queries };
        let logits = rec.scratch("shares", [self.batch, self.queries, self.keys]);
        fill(rec, logits, 0.0);
        let normaliser = self.normaliser(rec);
        self.row_softmax(rec, &whole, entry, bias, logits, normaliser);
        logits
    }

    /// Records `index` [Z, N, S], keys drawn by their softmax weights, slab by slab: no N x M matrix here either.
    pub(crate) fn draw(
        &self,
        rec: &mut Recorder,
        [q, k]: [Tensor; 2],
        bias: Option<Tensor>,
        draw: DrawKeys,
        index: Tensor,
    ) {
        if !self.fits_slabs() {
            let (queries, keys) = (self.queries, self.keys);
            let what =
                format!("drawing from {keys} keys for each of {queries} queries takes more than {MOST_SLABS} slabs");
            return rec.fail(Error::Shape(format!("{what} of {SLAB} logits; lower the number of tokens")));
        }
        let entry = self.variant(rec);
        let normaliser = self.normaliser(rec);
        let slabs = self.slabs();
        let (logits, keys) = (self.place(rec, "logits", &slabs[0]), self.prepare(rec, &slabs[0], k));
        for slab in slabs {
            self.with_keys(rec, &slab, q, &keys, self.scale, logits);
            self.row_softmax(rec, &slab, entry, bias, logits, normaliser);
            draw.record(rec, logits, [self.query_offset(&slab, 1), slab.batch * slab.rows], index);
        }
    }

    /// Records out [Z, N, D] and its normaliser.
    pub(crate) fn forward(
        &self,
        rec: &mut Recorder,
        [q, k, v]: [Tensor; 3],
        bias: Option<Tensor>,
        out: Tensor,
        normaliser: Normaliser,
    ) {
        let entry = self.variant_for_output(rec);
        let slabs = self.slabs();
        let (logits, keys) = (self.place(rec, "logits", &slabs[0]), self.prepare(rec, &slabs[0], k));
        for slab in slabs {
            self.with_keys(rec, &slab, q, &keys, self.scale, logits);
            let scales = self.row_softmax(rec, &slab, entry, bias, logits, normaliser);
            let v = Operand { tensor: v, offset: self.key_offset(&slab) };
            let at_queries = Operand { tensor: out, offset: self.query_offset(&slab, self.channels) };
            let sizes = [slab.rows, self.channels, self.keys];
            self.product(&slab, Layout::Nn, sizes, 1.0, false).record(rec, logits, v, None, at_queries);
            if let Some(scales) = scales {
                self.divide_rows(rec, &slab, scales, out);
            }
        }
    }

    /// Records the gradients that have a slot: queries, keys, values, key bias.
    pub(crate) fn backward(&self, rec: &mut Recorder, given: &Given, slots: [Option<Slot>; 4]) {
        let [q, k, v] = given.inputs;
        let stats = self.normaliser_and_delta(rec, given);
        let slabs = self.slabs();
        let [logits, dp] = ["logits", "dp"].map(|label| self.place(rec, label, &slabs[0]));
        let [keys, values] = [k, v].map(|x| self.prepare(rec, &slabs[0], x));
        // Without a gradient of the output only the log-sum-exp's is left, and dp and dv are zero.
        let (dout, scale) = given.dout.map_or((q, 0.0), |dout| (dout, 1.0));
        for slab in slabs {
            // Later slabs of the same matrix add to what its first slab stored.
            let adds = |slot: Slot| slot.accumulate || slab.first_row > 0;
            let at_keys = |tensor| Operand { tensor, offset: self.key_offset(&slab) };
            let at_queries = |tensor| Operand { tensor, offset: self.query_offset(&slab, self.channels) };
            self.with_keys(rec, &slab, q, &keys, self.scale, logits);
            self.with_keys(rec, &slab, dout, &values, scale, dp);
            let rows = slab.batch * slab.rows;
            let step = self.step(rec, &slab, "backward", given.bias);
            let step = step.bind("logits", logits).bind("dp", dp).bind("stats", stats);
            step.dispatch([self.keys.div_ceil(256), rows.min(32_768), rows.div_ceil(32_768)]);
            let [dq, dk, dv, dbias] = slots;
            if let Some(slot) = dq {
                let product =
                    self.product(&slab, Layout::Nn, [slab.rows, self.channels, self.keys], self.scale, slot.accumulate);
                product.record(rec, dp, at_keys(k), None, at_queries(slot.grad));
            }
            let transposed = [self.keys, self.channels, slab.rows];
            if let Some(slot) = dk {
                let product = self.product(&slab, Layout::Tn, transposed, self.scale, adds(slot));
                product.record(rec, dp, at_queries(q), None, at_keys(slot.grad));
            }
            if let Some(slot) = dv {
                let product = self.product(&slab, Layout::Tn, transposed, scale, adds(slot));
                product.record(rec, logits, at_queries(dout), None, at_keys(slot.grad));
            }
            if let Some(slot) = dbias {
                let sizes = [slab.batch, slab.rows, self.keys];
                column_sum_at(rec, dp, sizes, (slot.grad, slab.first * self.keys), 1.0, adds(slot));
            }
        }
    }

    fn key_offset(&self, slab: &Slab) -> usize {
        slab.first * self.keys * self.channels
    }
}

/// What the backward pass is given.
pub(crate) struct Given {
    pub(crate) inputs: [Tensor; 3],
    pub(crate) bias: Option<Tensor>,
    pub(crate) out: Tensor,
    pub(crate) peak_and_sum: Tensor,
    pub(crate) dout: Option<Tensor>,
    pub(crate) dlse: Option<Tensor>,
}
