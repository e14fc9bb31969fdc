//! Attention as one streaming kernel over tiles of keys: the shape for GPUs. No N x M numbers anywhere.
//!
//! Where a pass has few tiles of rows and many columns (landmarks looking at keys), its columns are split over
//! workgroups and joined afterwards, as flash-decoding does.

use lara_shaders::{ATTEND_MERGE, ATTEND_SCALAR, ATTEND_VECTOR, Module};

use super::softmax::{Given, Normaliser, Shapes};
use crate::{Recorder, Slot, StepBuilder, Tensor};

/// Rows of a workgroup's tile; columns are split in multiples of `COLUMNS`.
const ROWS: usize = 64;
const COLUMNS: usize = 32;
/// Fewer workgroups than this leave a GPU idle; a split covers at least this many columns.
const ENOUGH_WORKGROUPS: usize = 128;
const LEAST_SPLIT: usize = 256;

/// How one pass is laid out: output channels of a workgroup, columns of a split, number of splits.
#[derive(Clone, Copy)]
struct Pass {
    channels: usize,
    groups: usize,
    split_columns: usize,
    splits: usize,
    /// Multiply-adds of one product of the rows with the columns.
    product: f64,
}

/// Which gradients add to what is there.
#[derive(Clone, Copy, Default)]
struct Adds {
    dq: bool,
    dk: bool,
    dv: bool,
    dkey_bias: bool,
}

impl Shapes {
    fn module(&self) -> &'static Module {
        if self.channels.is_multiple_of(4) { &ATTEND_VECTOR } else { &ATTEND_SCALAR }
    }

    fn pass(&self, rows: usize, columns: usize) -> Pass {
        let channels = if self.channels <= 32 { 32 } else { 64 };
        let groups = rows.div_ceil(ROWS) * self.channels.div_ceil(channels);
        let wanted = ENOUGH_WORKGROUPS.div_ceil(groups * self.batch).min(columns.div_ceil(LEAST_SPLIT)).max(1);
        let split_columns = columns.div_ceil(wanted).next_multiple_of(COLUMNS);
        let product = (self.batch * self.channels) as f64 * rows as f64 * columns as f64;
        Pass { channels, groups, split_columns, splits: columns.div_ceil(split_columns), product }
    }

    fn dispatch(&self, step: StepBuilder<'_>, pass: Pass, products: f64, has_bias: bool, has_dout: bool, adds: Adds) {
        step.constant("CHANNELS", pass.channels as f64)
            .uint("batch", self.batch)
            .uint("queries", self.queries)
            .uint("keys", self.keys)
            .uint("channels", self.channels)
            .float("scale", self.scale)
            .flag("causal", self.causal)
            .flag("has_bias", has_bias)
            .flag("has_dout", has_dout)
            .uint("split_columns", pass.split_columns)
            .flag("accumulate_dq", adds.dq)
            .flag("accumulate_dk", adds.dk)
            .flag("accumulate_dv", adds.dv)
            .flag("accumulate_dkey_bias", adds.dkey_bias)
            .flops(2.0 * products * pass.product)
            .dispatch([pass.groups, self.batch, pass.splits]);
    }

    /// Records out [Z, N, D] and its normaliser.
    pub(crate) fn stream_forward(
        &self,
        rec: &mut Recorder,
        [q, k, v]: [Tensor; 3],
        bias: Option<Tensor>,
        out: Tensor,
        normaliser: Normaliser,
    ) {
        let pass = self.pass(self.queries, self.keys);
        let rows = self.batch * self.queries;
        let Normaliser { lse, peak_and_sum } = normaliser;
        let (to_out, to_sums) = if pass.splits == 1 {
            (out, peak_and_sum)
        } else {
            let out_parts = rec.scratch("out parts", [pass.splits, rows, self.channels]);
            (out_parts, rec.scratch("peak and sum parts", [pass.splits, rows, 2]))
        };
        let step = rec.step(self.module(), "forward").bind("q", q).bind("k", k).bind("v", v);
        let step = step.bind_or_absent("key_bias", bias).bind("out", to_out).bind("lse", lse);
        let step = step.bind("peak_and_sum", to_sums);
        self.dispatch(step, pass, 2.0, bias.is_some(), false, Adds::default());
        if pass.splits > 1 {
            let step = rec.step(&ATTEND_MERGE, "forward_combine");
            let step = step.bind("out_parts", to_out).bind("peak_and_sum_parts", to_sums).bind("out_joined", out);
            let step = step.bind("lse_joined", lse).bind("peak_and_sum", peak_and_sum);
            let sizes = Merge { rows, channels: self.channels, splits: pass.splits, ..Merge::default() };
            sizes.params(step).dispatch_items(rows * self.channels);
        }
    }

    /// Records the gradients that have a slot: queries, keys, values, key bias.
    pub(crate) fn stream_backward(&self, rec: &mut Recorder, given: &Given, slots: [Option<Slot>; 4]) {
        let stats = self.normaliser_and_delta(rec, given);
        let dout = given.dout.unwrap_or(given.out);
        let [dq, dk, dv, dbias] = slots;
        if let Some(slot) = dq {
            let pass = self.pass(self.queries, self.keys);
            self.gradient(rec, "backward_queries", pass, given, dout, stats, &[("dq", slot)]);
        }
        let pass = self.pass(self.keys, self.queries);
        match (dk, dbias) {
            (Some(dk), None) => self.gradient(rec, "backward_keys", pass, given, dout, stats, &[("dk", dk)]),
            (dk, Some(dbias)) => {
                // The kernel has no form without dk; a discarded one costs less than a fifth entry point.
                let spare = || Slot { grad: rec.scratch("unwanted dk", given.inputs[1].shape()), accumulate: false };
                let dk = dk.unwrap_or_else(spare);
                let outputs = [("dk", dk), ("dkey_bias", dbias)];
                self.gradient(rec, "backward_keys_bias", pass, given, dout, stats, &outputs);
            }
            (None, None) => {}
        }
        if let Some(slot) = dv {
            self.gradient(rec, "backward_values", pass, given, dout, stats, &[("dv", slot)]);
        }
    }

    /// Records [Z, N, 3]: each query's peak, 1 / sum and delta = dout.out - dlse, all that a backward pass keeps of its row.
    pub(crate) fn normaliser_and_delta(&self, rec: &mut Recorder, given: &Given) -> Tensor {
        let rows = self.batch * self.queries;
        let stats = rec.scratch("normaliser and delta", [rows, 3]);
        let step = rec.step(&ATTEND_MERGE, "backward_prepare").bind("out", given.out);
        let step = step.bind("saved", given.peak_and_sum);
        let step = step.bind_or_absent("dout", given.dout).bind_or_absent("dlse", given.dlse);
        let sizes = Merge {
            rows,
            channels: self.channels,
            splits: 1,
            has_dout: given.dout.is_some(),
            has_dlse: given.dlse.is_some(),
            accumulate: false,
        };
        // Eight invocations a row.
        sizes.params(step.bind("stats", stats)).dispatch_items(8 * rows);
        stats
    }

    fn gradient(
        &self,
        rec: &mut Recorder,
        entry: &'static str,
        pass: Pass,
        given: &Given,
        dout: Tensor,
        stats: Tensor,
        outputs: &[(&'static str, Slot)],
    ) {
        let [q, k, v] = given.inputs;
        let split = pass.splits > 1;
        let targets: Vec<(&'static str, Tensor)> = outputs
            .iter()
            .map(|(name, slot)| {
                if split {
                    return (*name, rec.scratch("gradient parts", [pass.splits, slot.grad.len()]));
                }
                (*name, slot.grad)
            })
            .collect();
        let mut step = rec.step(self.module(), entry).bind("q", q).bind("k", k);
        step = step.bind_or_absent("key_bias", given.bias).bind("stats", stats).bind("dout", dout);
        if entry != "backward_values" {
            step = step.bind("v", v);
        }
        for (name, target) in &targets {
            step = step.bind(name, *target);
        }
        let adds = |name| !split && outputs.iter().any(|(n, slot)| *n == name && slot.accumulate);
        let adds = Adds { dq: adds("dq"), dk: adds("dk"), dv: adds("dv"), dkey_bias: adds("dkey_bias") };
        // q.k, but for values also dout.v, and the sums.
        let products = if entry == "backward_values" { 2.0 } else { 3.0 };
        self.dispatch(step, pass, products, given.bias.is_some(), given.dout.is_some(), adds);
        for ((_, slot), (_, parts)) in outputs.iter().zip(&targets).filter(|_| split) {
            let step = rec.step(&ATTEND_MERGE, "backward_reduce").bind("parts", *parts).bind("total", slot.grad);
            let rows = slot.grad.len();
            let sizes = Merge { rows, splits: pass.splits, accumulate: slot.accumulate, ..Merge::default() };
            sizes.params(step).dispatch_items(rows);
        }
    }
}

/// Parameters of the joining kernels.
#[derive(Default)]
struct Merge {
    rows: usize,
    channels: usize,
    splits: usize,
    has_dout: bool,
    has_dlse: bool,
    accumulate: bool,
}

impl Merge {
    fn params<'r>(&self, step: StepBuilder<'r>) -> StepBuilder<'r> {
        step.uint("rows", self.rows)
            .uint("channels", self.channels)
            .uint("splits", self.splits)
            .flag("has_dout", self.has_dout)
            .flag("has_dlse", self.has_dlse)
            .flag("accumulate", self.accumulate)
    }
}
