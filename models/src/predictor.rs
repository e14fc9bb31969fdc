//! A model ready to look at images: forward only, a fixed batch size.

use lara_runtime::{Gpu, Header, Mode, Parameters, Plan, Role, Tensor, Tune};

use crate::compile::compile;
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::finite::where_not_finite;

/// A forward plan for batches of `batch` images. It borrows nothing: parameter buffers are shared with whoever made them.
pub struct Predictor {
    plan: Plan,
    images: Tensor,
    logits: Tensor,
    maps: Vec<Tensor>,
    header: Header,
    batch: usize,
    gpu: Gpu,
    tune: Tune,
    config: TrainConfig,
    parameters: Parameters,
}

impl Predictor {
    /// Compiles the forward pass of `config` for `batch` images at a time over `parameters`, which it declares and
    /// allocates if they are new. With `with_maps` every run also computes the attention weights of every block.
    ///
    /// # Errors
    /// If the model does not fit the adapter's limits.
    pub async fn new(
        gpu: &Gpu,
        tune: &Tune,
        config: &TrainConfig,
        parameters: &mut Parameters,
        batch: usize,
        with_maps: bool,
    ) -> Result<Self> {
        let mut maps = Vec::new();
        let compiled = compile(gpu, tune, parameters, Mode::Eval, &[Role::Weight], |tape| {
            let inputs = config.model.declare(tape, batch);
            let outputs = config.build()?.forward_hooked(tape, &inputs, &mut |tape, site| {
                if with_maps {
                    maps.push(site.mechanism.weights(tape, site.qkv, site.context));
                }
            });
            tape.rec.pin(outputs.first());
            maps.iter().for_each(|&map| tape.rec.pin(map));
            Ok::<_, Error>((inputs[0], outputs.first()))
        });
        let (plan, (images, logits)) = compiled.await?;
        // What attention draws at evaluation (RA's keys) depends on the run's seed alone.
        let seed = config.train.seed;
        let header = Header { seed: [seed as u32, (seed >> 32) as u32], ..Header::default() };
        Ok(Predictor {
            plan,
            images,
            logits,
            maps,
            header,
            batch,
            gpu: gpu.clone(),
            tune: tune.clone(),
            config: config.clone(),
            parameters: parameters.clone(),
        })
    }

    /// Images of one run.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The compiled plan: listing and memory.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Logits of normalised images [n, channels, size, size] for n up to the batch size: n rows.
    ///
    /// # Errors
    /// If the device was lost.
    pub async fn logits(&self, images: &[f32]) -> Result<Vec<Vec<f32>>> {
        let sample = self.images.len() / self.batch;
        let count = images.len() / sample;
        self.plan.run().header(self.header).write(self.images, images).steps().submit()?;
        let logits = self.plan.read(self.logits).await?;
        // Without a classifier what comes out are features.
        let width = (logits.len() / self.batch).max(1);
        Ok(logits.chunks(width).take(count).map(<[f32]>::to_vec).collect())
    }

    /// [`Predictor::logits`], all of them finite.
    ///
    /// # Errors
    /// [`Error::NotFinite`], which says where it began; a lost device.
    pub async fn finite_logits(&self, images: &[f32]) -> Result<Vec<Vec<f32>>> {
        let logits = self.logits(images).await?;
        if logits.iter().flatten().all(|value| value.is_finite()) {
            return Ok(logits);
        }
        let began = where_not_finite(&self.gpu, &self.tune, &self.config, &self.parameters, images).await?;
        Err(Error::NotFinite(format!("the model's output is not finite: {began}")))
    }

    /// Attention weights of the last run: for every block [batch, heads, tokens, tokens], flat, with those four sizes.
    ///
    /// # Errors
    /// If the device was lost.
    pub async fn maps(&self) -> Result<Vec<(Vec<usize>, Vec<f32>)>> {
        let mut maps = Vec::with_capacity(self.maps.len());
        for map in &self.maps {
            maps.push((map.dims().to_vec(), self.plan.read(*map).await?));
        }
        Ok(maps)
    }
}

/// Probabilities of a row of logits.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = logits.iter().map(|&x| f64::from(x - largest).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

/// The `count` most probable classes, most probable first.
pub fn top(probabilities: &[f64], count: usize) -> Vec<(usize, f64)> {
    let mut ranked: Vec<(usize, f64)> = probabilities.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(count);
    ranked
}
