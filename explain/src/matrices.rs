//! Rollout of matrices, on the device.
//!
//! It needs the matrices themselves, N x N numbers a head and layer, of exact attention or those that a linear mechanism
//! implies, so it is for images of up to [`MOST_TOKENS`]; what needs none is in `roll_out.rs` and `relevance.rs`.

use std::sync::Arc;

use lara_models::train::TrainConfig;
use lara_models::{Model, Site};
use lara_runtime::maps::{Fusion, map_range, rollout, weigh};
use lara_runtime::ops::{Layout, MatMul, Product};
use lara_runtime::{Aside, Gpu, Mode, Plan, Ring, Tape, Tensor, Tune};

use crate::error::{Error, Result};
use crate::inspector::NOT_SQUARE;
use crate::map::Query;
use crate::relevance::{header, one_hot};
use crate::sizes::Sizes;
use crate::source::{MapSource, ScaleEnd};

/// Most tokens of an image whose matrices are worked out.
pub const MOST_TOKENS: usize = 1024;

/// What a rollout multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Factor {
    /// Attention (Abnar and Zuidema 2020).
    #[default]
    Attention,
    /// Attention times its gradient for a class, negative entries dropped.
    Gradient,
}

/// A compiled model whose attention matrices are multiplied through its layers.
pub struct Matrices {
    gpu: Gpu,
    plan: Arc<Plan>,
    config: TrainConfig,
    recorded: Recorded,
    ring: Ring,
    row: Vec<f32>,
}

/// The tensors of a recorded model.
struct Recorded {
    sizes: Sizes,
    images: Tensor,
    seed: Tensor,
    select: Tensor,
    ratio: Tensor,
    finish: Aside,
    /// [slots, tokens].
    rows: Tensor,
    range: Tensor,
}

/// What a block leaves for later.
struct Seen {
    weights: Tensor,
    values: Tensor,
    output: Tensor,
}

impl Matrices {
    /// Compiles the model's own mechanism.
    ///
    /// # Errors
    /// More than [`MOST_TOKENS`] tokens, or a model that does not fit the adapter.
    pub async fn new(gpu: &Gpu, tune: &Tune, model: &Model, factor: Factor, fusion: Fusion) -> Result<Self> {
        let config = &model.config;
        let record = |tape: &mut Tape<'_>| Recorded::of(tape, config, factor, fusion);
        let (plan, recorded) = model.compile(gpu, tune, config, Mode::Inspect { noise: false }, record).await?;
        let ring = Ring::new(gpu, 2, recorded.rows.len());
        Ok(Matrices { gpu: gpu.clone(), plan: Arc::new(plan), config: config.clone(), recorded, ring, row: Vec::new() })
    }

    /// Runs the model on a normalised image; where the gradient counts, it is that for `class`.
    ///
    /// # Errors
    /// A class that there is not, or a lost device.
    pub fn run(&mut self, image: &[f32], class: usize) -> Result<()> {
        let seed = one_hot(&self.config, class)?;
        self.plan
            .run()
            .write(self.recorded.images, image)
            .write(self.recorded.seed, &seed)
            .header(header(&self.config))
            .steps()
            .submit()?;
        Ok(())
    }

    /// Works out the rollout rows of `queries` with the lowest `ratio` of every layer's entries discarded.
    ///
    /// # Errors
    /// A lost device.
    pub fn look(&mut self, queries: &[Query], ratio: f32) -> Result<()> {
        let mut select: Vec<f32> = queries
            .iter()
            .take(self.recorded.sizes.slots)
            .filter_map(|q| self.recorded.sizes.selection(*q))
            .flatten()
            .collect();
        select.resize(self.recorded.select.len(), 0.0);
        let plan = self.plan.clone();
        let run = plan.run().write(self.recorded.select, &select).write(self.recorded.ratio, &[ratio.clamp(0.0, 1.0)]);
        run.aside(self.recorded.finish).send(&mut self.ring, &[(&plan, self.recorded.rows)], 0).submit()?;
        Ok(())
    }

    /// Sizes of the model.
    pub fn sizes(&self) -> Sizes {
        self.recorded.sizes
    }

    /// Where a slot's rollout lies, and its scale.
    pub fn rollout(&self, slot: usize) -> Option<(MapSource, ScaleEnd)> {
        if slot >= self.recorded.sizes.slots {
            return None;
        }
        let at = slot * self.recorded.sizes.tokens() + self.recorded.sizes.prefix;
        let source = MapSource { buffer: self.plan.buffer(self.recorded.rows)?.clone(), at };
        Some((source, ScaleEnd { buffer: self.plan.buffer(self.recorded.range)?.clone(), index: slot }))
    }

    /// The first slot's row, for labels; it may be a frame old.
    ///
    /// # Errors
    /// A lost device.
    pub fn row(&mut self) -> Result<&[f32]> {
        if let Some((_, mut row)) = self.ring.receive(&self.gpu)?.pop() {
            // The first slot's.
            row.truncate(self.recorded.sizes.tokens());
            self.row = row;
        }
        Ok(&self.row)
    }

    /// Whether something is still on its way back.
    pub fn is_waiting(&self) -> bool {
        self.ring.is_waiting()
    }

    /// Reads the rollout rows [slots, tokens]: for tests and files.
    pub fn read(&self) -> impl Future<Output = Result<Vec<f32>>> + use<> {
        let (plan, rows) = (self.plan.clone(), self.recorded.rows);
        async move { Ok(plan.read(rows).await?) }
    }
}

impl Recorded {
    fn of(tape: &mut Tape<'_>, config: &TrainConfig, factor: Factor, fusion: Fusion) -> Result<Self> {
        let inputs = config.model.declare(tape, 1);
        tape.watch(inputs[0]);
        let (mut seen, mut all) = (Vec::new(), Vec::new());
        let mut hook = |tape: &mut Tape<'_>, site: &Site<'_>| {
            let sizes = Sizes::of_site(site);
            all.push(sizes);
            if sizes.tokens() > MOST_TOKENS {
                return;
            }
            let weights = site.mechanism.weights(tape, site.qkv, site.context);
            seen.push(Seen { weights, values: site.qkv.v, output: site.output });
        };
        let logits = config.build()?.forward_hooked(tape, &inputs, &mut hook).first();
        let sizes = check(&mut all)?;
        let seed = tape.input("class", logits.shape());
        if factor == Factor::Gradient {
            tape.backward(&[(logits, seed)]);
        }
        let factors: Vec<Tensor> = seen.iter().map(|seen| record_factor(tape, seen, factor)).collect();
        let (select, ratio) = (tape.input("select", [sizes.slots, sizes.tokens()]), tape.input("ratio", [1]));
        let rows = tape.rec.pinned("rollout rows", select.shape());
        let mut range = rows;
        let finish = tape.aside(|tape| {
            let whole = rollout(&mut tape.rec, &factors, fusion, ratio, sizes.prefix);
            record_product(tape, select, whole, rows);
            range = map_range(&mut tape.rec, rows, sizes.prefix);
            tape.rec.pin(range);
        });
        Ok(Recorded { sizes, images: inputs[0], seed, select, ratio, finish, rows, range })
    }
}

/// The sizes that all blocks have, if their matrices can be multiplied.
fn check(all: &mut [Sizes]) -> Result<Sizes> {
    Sizes::agree(all);
    let Some(&sizes) = all.first() else {
        return Err(Error::BadInput("this model has no attention to look at".into()));
    };
    if sizes.tokens() > MOST_TOKENS {
        return Err(Error::BadInput(format!(
            "this rollout multiplies N x N matrices; this model has N = {} tokens and at most {MOST_TOKENS} are worked out; the \
             rollout of averaged heads with nothing discarded needs no matrices",
            sizes.tokens()
        )));
    }
    if all.iter().any(|other| other.grid != sizes.grid || !other.is_square()) {
        return Err(Error::BadInput(NOT_SQUARE.into()));
    }
    Ok(sizes)
}

/// The rows [slots, tokens] that a selection [slots, tokens] picks from a matrix [tokens, tokens].
fn record_product(tape: &mut Tape<'_>, select: Tensor, matrix: Tensor, rows: Tensor) {
    let (slots, tokens) = (select.rows(), select.last());
    let product =
        Product { layout: Layout::Nn, batch: 1, m: slots, n: tokens, k: tokens, scale: 1.0, accumulate: false };
    product.record(&mut tape.rec, select, matrix, None, rows);
}

/// What a layer puts into the rollout: its attention, or its attention times the gradient dA = dout v^T.
fn record_factor(tape: &mut Tape<'_>, seen: &Seen, factor: Factor) -> Tensor {
    match (factor, tape.gradient(seen.output)) {
        (Factor::Gradient, Some(dout)) => {
            let gradient = tape.apply(MatMul { layout: Layout::Nt, scale: 1.0 }, &[dout, seen.values]);
            weigh(&mut tape.rec, seen.weights, gradient)
        }
        _ => seen.weights,
    }
}
