//! The compiled training step: forward, backward, clipping and update in one submit; losses come back without waiting.

use lara_runtime::ops::{AdamW, CrossEntropy};
use lara_runtime::{Gpu, Header, Memory, Mode, Parameters, Plan, Ring, Role, Tape, Tensor, Tune};

use super::{Schedule, TrainConfig};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::predictor::Predictor;
use crate::settings::OptimConfig;

/// Steps that may be under way on the device before the host waits.
const IN_FLIGHT: usize = 4;

/// What one training step reported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Optimizer step, from 0.
    pub step: u64,
    /// Mean loss of the batch (over all micro-batches under accumulation).
    pub loss: f64,
    /// Accuracy of the batch.
    pub accuracy: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
}

/// Model, optimizer and plans on a device.
pub struct Session {
    gpu: Gpu,
    tune: Tune,
    config: TrainConfig,
    /// Weights, gradients and optimizer state.
    pub parameters: Parameters,
    training: Plan,
    optimizer: Plan,
    images: Tensor,
    targets: Tensor,
    report: Tensor,
    norm: Tensor,
    ring: Ring,
    schedule: Schedule,
}

impl Session {
    /// Records and compiles the training step, then draws the initial weights from `train.seed`.
    ///
    /// # Errors
    /// If the step does not fit the adapter's limits: before anything runs, with the numbers and what to lower.
    pub async fn new(gpu: &Gpu, tune: &Tune, config: &TrainConfig, schedule: Schedule) -> Result<Self> {
        let model = &config.model;
        let batch = config.train.batch_size;
        let micro_steps = config.train.grad_accum_steps.max(1);
        let mut parameters = Parameters::new(gpu);
        let mut tape = Tape::new(&mut parameters, tune, Mode::Train { accumulate: micro_steps > 1 });
        let images = model.declare(&mut tape, batch)[0];
        let targets = tape.input("targets", [batch, model.num_classes()]);
        let seed = tape.input("loss gradient", [1]);
        let logits = config.build()?.forward(&mut tape, &[images]).first();
        let loss = tape.apply_all(CrossEntropy { smoothing: config.train.smoothing as f32 }, &[logits, targets]);
        let report = loss[1];
        tape.rec.pin(report);
        tape.backward(&[(loss[0], seed)]);
        let recording = tape.finish()?;
        let ema = config.train.model_ema;
        parameters.allocate(gpu, &[Role::Weight, Role::Grad, Role::FirstMoment, Role::SecondMoment]).await?;
        if ema {
            parameters.allocate(gpu, &[Role::Ema]).await?;
        }
        let training = Plan::compile(gpu, recording, &parameters).await?;
        training.write(seed, &[1.0 / micro_steps as f32])?;
        let mut recording = lara_runtime::Recorder::new(tune.clone());
        let norm = adamw(&config.train).record(&mut recording, &parameters);
        let optimizer = Plan::compile(gpu, recording, &parameters).await?;
        parameters.initialize(gpu, config.train.seed);
        if ema {
            parameters.copy(gpu, Role::Weight, Role::Ema);
        }
        Ok(Session {
            gpu: gpu.clone(),
            tune: tune.clone(),
            config: config.clone(),
            parameters,
            training,
            optimizer,
            images,
            targets,
            report,
            norm,
            ring: Ring::new(gpu, IN_FLIGHT, 4),
            schedule,
        })
    }

    /// Whether a step may be started without waiting for an older one.
    pub fn has_room(&self) -> bool {
        self.ring.has_room()
    }

    /// Starts optimizer step `step` on `batches` (as many as `grad_accum_steps`). Returns at once; see [`Session::results`].
    ///
    /// # Errors
    /// A label beyond the model's classes, or a lost device.
    pub fn step(&mut self, step: u64, batches: &[Batch]) -> Result<()> {
        let accumulate = batches.len() > 1;
        for (micro, batch) in batches.iter().enumerate() {
            let header = self.header(step, micro);
            let targets = one_hot(&batch.labels, self.config.model.num_classes())?;
            let mut run = self.training.run();
            if accumulate && micro == 0 {
                run = run.clear_gradients(&self.parameters);
            }
            run = run.write(self.images, &batch.images).write(self.targets, &targets).header(header).steps();
            if micro + 1 == batches.len() {
                run = run.then(&self.optimizer, header).send(
                    &mut self.ring,
                    &[(&self.training, self.report), (&self.optimizer, self.norm)],
                    step,
                );
            }
            run.submit()?;
        }
        Ok(())
    }

    fn header(&self, step: u64, micro_step: usize) -> Header {
        let OptimConfig { betas, seed, .. } = self.config.train;
        let correction = |beta: f64| (1.0 - beta.powf(step as f64 + 1.0)) as f32;
        Header {
            step: step as u32,
            seed: [seed as u32, (seed >> 32) as u32],
            micro_step: micro_step as u32,
            lr: self.schedule.at(step) as f32,
            bias_correction1: correction(betas[0]),
            bias_correction2: correction(betas[1]),
            ema_decay: self.config.train.ema_decay(step) as f32,
        }
    }

    /// Takes the results that have arrived, oldest first.
    ///
    /// # Errors
    /// If the device was lost.
    pub fn results(&mut self) -> Result<Vec<StepResult>> {
        Ok(self.ring.receive(&self.gpu)?.iter().map(step_result).collect())
    }

    /// Sleeps until the oldest step under way is done.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait_oldest(&self) {
        self.ring.wait_oldest_blocking(&self.gpu);
    }

    /// Waits for every step under way and takes its result.
    ///
    /// # Errors
    /// If the device was lost.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn finish(&mut self) -> Result<Vec<StepResult>> {
        Ok(self.ring.drain_blocking(&self.gpu)?.iter().map(step_result).collect())
    }

    /// A forward plan over the same weights.
    ///
    /// # Errors
    /// See [`Predictor::new`].
    pub async fn predictor(&mut self, batch: usize, with_maps: bool) -> Result<Predictor> {
        Predictor::new(&self.gpu, &self.tune, &self.config, &mut self.parameters, batch, with_maps).await
    }

    /// A forward plan over the weights that an evaluation is about: their moving average where one is kept.
    ///
    /// # Errors
    /// See [`Predictor::new`].
    pub async fn evaluator(&self, batch: usize) -> Result<Predictor> {
        Predictor::new(&self.gpu, &self.tune, &self.config, &mut self.parameters.averaged(), batch, false).await
    }

    /// Whether an average of the weights is kept.
    pub fn has_ema(&self) -> bool {
        self.config.train.model_ema
    }

    /// Bytes on the device by purpose while training.
    pub fn memory(&self) -> Memory {
        self.training.memory()
    }

    /// Plans of the training step: gradients and update.
    pub fn plans(&self) -> [&Plan; 2] {
        [&self.training, &self.optimizer]
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The variants that were chosen.
    pub fn tune(&self) -> &Tune {
        &self.tune
    }

    /// The learning rate of a step.
    pub fn lr(&self, step: u64) -> f64 {
        self.schedule.at(step)
    }
}

/// Loss, accuracy, gradient norm and clipping factor, as [`Session::step`] sends them.
fn step_result((step, values): &(u64, Vec<f32>)) -> StepResult {
    let [loss, accuracy, grad_norm] = [0, 1, 2].map(|i| f64::from(values[i]));
    StepResult { step: *step, loss, accuracy, grad_norm }
}

fn adamw(train: &OptimConfig) -> AdamW {
    AdamW {
        betas: train.betas.map(|b| b as f32),
        eps: train.eps as f32,
        weight_decay: train.weight_decay as f32,
        clip_grad: if train.clip_grad > 0.0 { train.clip_grad as f32 } else { f32::INFINITY },
        ema: train.model_ema,
    }
}

fn one_hot(labels: &[u32], classes: usize) -> Result<Vec<f32>> {
    let mut targets = vec![0.0; labels.len() * classes];
    for (row, &label) in labels.iter().enumerate() {
        if label as usize >= classes {
            return Err(Error::BadInput(format!("label {label} is out of range; the model has {classes} classes")));
        }
        targets[row * classes + label as usize] = 1.0;
    }
    Ok(targets)
}
