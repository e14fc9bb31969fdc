//! Attention weighted with its gradient for a class, summed over the queries, in linear time and for images of any size.
//!
//! It needs no matrix: sum_n A_nm dA_nm = v_m . dv_m, where dv is the gradient of the class's logit with respect to the
//! values.

use std::sync::Arc;

use lara_models::train::TrainConfig;
use lara_models::{Model, Site};
use lara_runtime::maps::{map_range, relevance};
use lara_runtime::{Gpu, Header, Mode, Plan, Tape, Tensor, Tune};

use crate::error::{Error, Result};
use crate::sizes::Sizes;
use crate::source::{MapSource, ScaleEnd};

/// A compiled model with the gradient of a class.
pub struct Relevance {
    plan: Arc<Plan>,
    config: TrainConfig,
    images: Tensor,
    seed: Tensor,
    /// Each layer's gradient-weighted attention [heads + 1, tokens], the mean behind the heads, its range, and its sizes.
    layers: Vec<(Tensor, Tensor, Sizes)>,
}

impl Relevance {
    /// Compiles the model's own mechanism, forward and backward.
    ///
    /// # Errors
    /// A model that does not fit the adapter.
    pub async fn new(gpu: &Gpu, tune: &Tune, model: &Model) -> Result<Self> {
        let config = &model.config;
        let record = |tape: &mut Tape<'_>| record(tape, config);
        let (plan, recorded) = model.compile(gpu, tune, config, Mode::Inspect { noise: false }, record).await?;
        let Recorded { images, seed, layers } = recorded;
        Ok(Relevance { plan: Arc::new(plan), config: config.clone(), images, seed, layers })
    }

    /// Runs the model on a normalised image [channels, size, size] and its gradient for a class.
    ///
    /// # Errors
    /// A class that there is not, or a lost device.
    pub fn run(&mut self, image: &[f32], class: usize) -> Result<()> {
        let seed = one_hot(&self.config, class)?;
        self.plan
            .run()
            .write(self.images, image)
            .write(self.seed, &seed)
            .header(header(&self.config))
            .steps()
            .submit()?;
        Ok(())
    }

    /// Sizes of the first block.
    pub fn sizes(&self) -> Sizes {
        self.layers[0].2
    }

    /// Sizes of a block.
    pub fn block(&self, layer: usize) -> Option<Sizes> {
        self.layers.get(layer).map(|(_, _, sizes)| *sizes)
    }

    /// The compiled plan: listing and memory.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Where the gradient-weighted attention of a layer's head (the mean behind the last) lies, and its scale.
    pub fn source(&self, layer: usize, row: usize) -> Option<(MapSource, ScaleEnd)> {
        let &(values, range, sizes) = self.layers.get(layer)?;
        if row > sizes.heads {
            return None;
        }
        let at = row * sizes.tokens() + sizes.prefix;
        let source = MapSource { buffer: self.plan.buffer(values)?.clone(), at };
        Some((source, ScaleEnd { buffer: self.plan.buffer(range)?.clone(), index: row }))
    }

    /// Reads [heads + 1, tokens] of every layer, the mean behind the heads: for tests and files.
    pub fn read(&self) -> impl Future<Output = Result<Vec<Vec<f32>>>> + use<> {
        let (plan, layers) = (self.plan.clone(), self.layers.clone());
        async move {
            let mut read = Vec::with_capacity(layers.len());
            for (values, ..) in layers {
                read.push(plan.read(values).await?);
            }
            Ok(read)
        }
    }
}

/// The tensors of a recorded model.
struct Recorded {
    images: Tensor,
    seed: Tensor,
    layers: Vec<(Tensor, Tensor, Sizes)>,
}

fn record(tape: &mut Tape<'_>, config: &TrainConfig) -> Result<Recorded> {
    let inputs = config.model.declare(tape, 1);
    tape.watch(inputs[0]);
    let (mut values, mut all) = (Vec::new(), Vec::new());
    let mut hook = |_: &mut Tape<'_>, site: &Site<'_>| {
        values.push(site.qkv.v);
        all.push(Sizes::of_site(site));
    };
    let logits = config.build()?.forward_hooked(tape, &inputs, &mut hook).first();
    let seed = tape.input("class", logits.shape());
    tape.backward(&[(logits, seed)]);
    Sizes::agree(&mut all);
    let layers: Vec<_> = values.iter().zip(all).filter_map(|(&v, sizes)| record_block(tape, v, sizes)).collect();
    if layers.is_empty() {
        return Err(Error::BadInput("this model has no attention to look at".into()));
    }
    Ok(Recorded { images: inputs[0], seed, layers })
}

/// Gradient-weighted attention of a block, and its range.
fn record_block(tape: &mut Tape<'_>, v: Tensor, sizes: Sizes) -> Option<(Tensor, Tensor, Sizes)> {
    let dv = tape.gradient(v)?;
    let values = relevance(&mut tape.rec, v, dv);
    let range = map_range(&mut tape.rec, values, sizes.prefix);
    tape.rec.pin(values);
    tape.rec.pin(range);
    Some((values, range, sizes))
}

/// The gradient of the logits that asks for a class, [1, classes].
pub(crate) fn one_hot(config: &TrainConfig, class: usize) -> Result<Vec<f32>> {
    let classes = config.model.num_classes();
    if class >= classes {
        return Err(Error::BadInput(format!("there is no class {class}; the model has {classes}, counted from 0")));
    }
    let mut seed = vec![0.0; classes];
    seed[class] = 1.0;
    Ok(seed)
}

/// The header of a run as in evaluation.
pub(crate) fn header(config: &TrainConfig) -> Header {
    let seed = config.train.seed;
    Header { seed: [seed as u32, (seed >> 32) as u32], ..Header::default() }
}
