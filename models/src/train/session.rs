//! The compiled training step: forward, backward, clipping and update in one submit; losses come back without waiting.

use lara_runtime::ops::AdamW;
use lara_runtime::{Gpu, Header, Memory, Mode, Parameters, Plan, Ring, Role, Tensor, Tune, human_bytes};

use super::teacher::Teacher;
use super::{Schedule, TrainConfig};
use crate::compile::compile;
use crate::error::{Error, Result};
use crate::estimate::of_step;
use crate::settings::{Checkpointing, OptimConfig};
use crate::task::{BatchOf, Classify, Objective, Task};

/// Steps that may be under way on the device before the host waits.
const IN_FLIGHT: usize = 4;

/// What to lower where the device does not suffice.
const LOWER: &str =
    "train.batch_size (train.grad_accum_steps, raised by as much, keeps the gradient the same) or the image size";

/// What one training step reported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Optimizer step, from 0.
    pub step: u64,
    /// Mean loss of the batch (over all micro-batches under accumulation).
    pub loss: f64,
    /// Share of the batch's targets that was hit.
    pub accuracy: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
}

/// Model, optimizer and plans on a device, for a task: classification unless said otherwise.
pub struct Session<T: Task = Classify> {
    task: T,
    gpu: Gpu,
    tune: Tune,
    config: TrainConfig,
    /// Weights, gradients and optimizer state.
    pub parameters: Parameters,
    training: Plan,
    optimizer: Plan,
    objective: Objective,
    teacher: Option<Teacher>,
    /// The gradient of the loss, `[1]`: the micro-batch's share of a step's targets.
    share: Tensor,
    norm: Tensor,
    ring: Ring,
    schedule: Schedule,
}

impl Session {
    /// A session for classification; see [`Session::of`].
    ///
    /// # Errors
    /// As [`Session::of`].
    pub async fn new(gpu: &Gpu, tune: &Tune, config: &TrainConfig, schedule: Schedule) -> Result<Self> {
        Self::of(Classify::new(config)?, gpu, tune, config, schedule).await
    }
}

impl<T: Task> Session<T> {
    /// Records and compiles the training step, then draws the initial weights from `train.seed`.
    ///
    /// # Errors
    /// If the step does not fit the adapter's limits: before anything runs, with the numbers and what to lower.
    pub async fn of(task: T, gpu: &Gpu, tune: &Tune, config: &TrainConfig, schedule: Schedule) -> Result<Self> {
        Self::record(task, gpu, tune, config, schedule).await.map_err(Error::lowering(LOWER))
    }

    async fn record(task: T, gpu: &Gpu, tune: &Tune, config: &TrainConfig, schedule: Schedule) -> Result<Self> {
        let OptimConfig { batch_size, grad_accum_steps, model_ema, seed, .. } = config.train;
        let mut roles = vec![Role::Weight, Role::Grad, Role::FirstMoment, Role::SecondMoment];
        roles.extend(model_ema.then_some(Role::Ema));
        let mut parameters = Parameters::new(gpu);
        parameters.scale_learning_rates(config.lr_scales());
        let mode = Mode::Train { accumulate: grad_accum_steps > 1 };
        let recomputes = recomputes(&task, gpu, tune, config)?;
        let compiled = compile(gpu, tune, &mut parameters, mode, &roles, |tape| {
            tape.recompute(recomputes);
            let objective = task.record(tape, batch_size)?;
            let share = tape.input("loss gradient", [1]);
            tape.rec.pin(objective.report);
            tape.backward(&[(objective.loss, share)]);
            Ok::<_, Error>((objective, share))
        });
        let (training, (objective, share)) = compiled.await?;
        let teacher = match objective.taught {
            Some(_) => Some(Teacher::open(config, gpu, tune).await?),
            None => None,
        };
        let mut recording = lara_runtime::Recorder::new(tune.clone());
        let norm = adamw(&config.train).record(&mut recording, &parameters);
        let optimizer = Plan::compile(gpu, recording, &parameters).await?;
        parameters.initialize(gpu, seed)?;
        if model_ema {
            parameters.copy(gpu, Role::Weight, Role::Ema)?;
        }
        let ring = Ring::new(gpu, IN_FLIGHT, objective.report.len() + norm.len());
        let (gpu, tune, config) = (gpu.clone(), tune.clone(), config.clone());
        Ok(Session {
            task,
            gpu,
            tune,
            config,
            parameters,
            training,
            optimizer,
            objective,
            teacher,
            share,
            norm,
            ring,
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
    /// A batch that does not fit the model, or a lost device.
    pub fn step(&mut self, step: u64, batches: &[BatchOf<T>]) -> Result<()> {
        let accumulate = batches.len() > 1;
        let targets = |batch| self.task.targets(batch);
        let of_step = batches.iter().map(targets).sum::<usize>().max(1) as f32;
        for (micro, batch) in batches.iter().enumerate() {
            let header = self.header(step, micro);
            let values = self.task.feed(batch)?;
            let mut run = self.training.run();
            if accumulate && micro == 0 {
                run = run.clear_gradients(&self.parameters);
            }
            for (&input, values) in self.objective.inputs.iter().zip(&values) {
                run = run.write(input, values);
            }
            if let (Some(teacher), Some(to)) = (&self.teacher, self.objective.taught) {
                run = teacher.teach(run, &self.training, self.objective.inputs[0], to);
            }
            run = run.write(self.share, &[self.task.targets(batch) as f32 / of_step]).header(header).steps();
            if micro + 1 == batches.len() {
                run = run.then(&self.optimizer, header).send(
                    &mut self.ring,
                    &[(&self.training, self.objective.report), (&self.optimizer, self.norm)],
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
        Ok(self.ring.receive(&self.gpu)?.iter().map(|sent| self.step_result(sent)).collect())
    }

    /// The objective's report, then gradient norm and clipping factor, as [`Session::step`] sends them.
    fn step_result(&self, (step, values): &(u64, Vec<f32>)) -> StepResult {
        let [loss, accuracy, grad_norm] = [0, 1, self.objective.report.len()].map(|at| f64::from(values[at]));
        StepResult { step: *step, loss, accuracy, grad_norm }
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
        Ok(self.ring.drain_blocking(&self.gpu)?.iter().map(|sent| self.step_result(sent)).collect())
    }

    /// The model compiled for evaluations, over the weights that they are about: their moving average where one is kept.
    ///
    /// # Errors
    /// If it does not fit the adapter.
    pub async fn evaluator(&self, batch: usize) -> Result<T::Evaluator> {
        let evaluator = self.task.evaluator(&self.gpu, &self.tune, &mut self.parameters.averaged(), batch).await;
        evaluator.map_err(Error::lowering(LOWER))
    }

    /// The task.
    pub fn task(&self) -> &T {
        &self.task
    }

    /// Whether an average of the weights is kept.
    pub fn has_ema(&self) -> bool {
        self.config.train.model_ema
    }

    /// Bytes on the device by purpose while training, a teacher's among them.
    pub fn memory(&self) -> Memory {
        let mut memory = self.training.memory();
        if let Some(teacher) = self.teacher.as_ref().map(Teacher::memory) {
            memory.weights += teacher.weights;
            memory.activations += teacher.activations;
            memory.pinned += teacher.pinned;
            memory.activations_unshared += teacher.activations_unshared;
        }
        memory
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

/// Whether the insides of blocks are computed twice: as asked, or because they would not fit the device's limit otherwise.
fn recomputes<T: Task>(task: &T, gpu: &Gpu, tune: &Tune, config: &TrainConfig) -> Result<bool> {
    let limit = match config.train.checkpoint {
        Checkpointing::None => return Ok(false),
        Checkpointing::Block => return Ok(true),
        Checkpointing::Auto => gpu.memory_limit(),
    };
    let Some(limit) = limit else { return Ok(false) };
    let kept = of_step(task, gpu, tune, config, config.train.batch_size, false)?.peak();
    if kept > limit {
        tracing::info!(
            "a step that keeps its activations takes {}, and the device may give {}: blocks are computed twice",
            human_bytes(kept),
            human_bytes(limit)
        );
    }
    Ok(kept > limit)
}

fn adamw(train: &OptimConfig) -> AdamW {
    AdamW {
        betas: train.betas.map(|b| b as f32),
        eps: train.eps as f32,
        weight_decay: train.weight_decay as f32,
        clip: train.clip(),
        ema: train.model_ema,
    }
}
