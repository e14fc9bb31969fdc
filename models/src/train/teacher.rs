//! A trained model whose answers another one learns: a forward plan in front of each of its training passes.

use lara_runtime::{Gpu, Header, Memory, Mode, Parameters, Plan, Role, Run, Tensor, Tune};

use super::checkpoint::TrainedModel;
use crate::check::ensure;
use crate::compile::compile;
use crate::config::TrainConfig;
use crate::data::Preprocess;
use crate::error::{Error, Result};
use crate::weights::names_and_shapes;

/// A teacher on the device.
pub(super) struct Teacher {
    plan: Plan,
    images: Tensor,
    logits: Tensor,
    header: Header,
}

impl Teacher {
    /// The teacher that a student's configuration names, for batches of its size.
    ///
    /// # Errors
    /// A model that cannot be opened, that does not take the student's images or has other classes, or that does not fit the
    /// adapter.
    pub(super) async fn open(student: &TrainConfig, gpu: &Gpu, tune: &Tune) -> Result<Self> {
        let path = &student.distill.teacher;
        let mut trained = TrainedModel::open(path)?;
        let Some(config) = trained.config.clone() else {
            return Err(Error::input(path, "carries no configuration; open a checkpoint that lara has written"));
        };
        config.validate()?;
        fits(&config, student)?;
        trained.fit(&config)?;
        let mut parameters = Parameters::new(gpu);
        let compiled = compile(gpu, tune, &mut parameters, Mode::Eval, &[Role::Weight], |tape| {
            let inputs = config.model.declare(tape, student.train.batch_size);
            let outputs = config.build()?.forward(tape, &inputs);
            tape.rec.pin(outputs.first());
            Ok::<_, Error>((inputs[0], outputs.first()))
        });
        let (plan, (images, logits)) = compiled.await?;
        for (index, values) in trained.weights.get_all(&names_and_shapes(&parameters))?.iter().enumerate() {
            parameters.write(gpu, Role::Weight, index, values)?;
        }
        // What attention draws at evaluation depends on the teacher's seed alone, as in all its evaluations.
        let seed = config.train.seed;
        let header = Header { seed: [seed as u32, (seed >> 32) as u32], ..Header::default() };
        Ok(Self { plan, images, logits, header })
    }

    /// Shows it the images that a run of `student` was given, and copies its logits over `to`, before the run's own steps.
    /// Nothing of it leaves the device.
    pub(super) fn teach<'p>(&'p self, run: Run<'p>, student: &Plan, images: Tensor, to: Tensor) -> Run<'p> {
        run.copy_between((student, images), (&self.plan, self.images))
            .then(&self.plan, self.header)
            .copy((&self.plan, self.logits), to)
    }

    /// Bytes on the device.
    pub(super) fn memory(&self) -> Memory {
        self.plan.memory()
    }
}

/// Whether a teacher takes a student's images as they are, and has its classes.
fn fits(teacher: &TrainConfig, student: &TrainConfig) -> Result<()> {
    let name = student.distill.teacher.display();
    let [takes, gives] = [teacher, student].map(|config| config.model.image_shape());
    ensure(takes == gives, || {
        format!(
            "distill.teacher = {name} takes images of {takes} and the student of {gives}; both see the same ones, so choose \
             another teacher or set model.image_size and model.in_chans"
        )
    })?;
    let [has, wanted] = [teacher, student].map(|config| config.model.num_classes());
    ensure(has == wanted, || {
        format!(
            "distill.teacher = {name} has {has} classes and the student {wanted}; choose a teacher for the same data"
        )
    })?;
    let Preprocess { mean, std, .. } = &teacher.preprocess()?;
    ensure(numbers(&teacher.preprocess()?) == numbers(&student.preprocess()?), || {
        format!(
            "distill.teacher = {name} was trained on images with other numbers than the student's; both see the same ones, so \
             set data.mean={mean:?} and data.std={std:?}"
        )
    })
}

/// What pixels are shifted and divided by, channel for channel, as the f32 that they are there.
fn numbers(preprocess: &Preprocess) -> Vec<[f32; 2]> {
    let of = |values: &[f64], channel: usize| values.get(channel).or(values.first()).map_or(0.0, |&value| value as f32);
    let channels = 0..preprocess.shape.channels;
    channels.map(|channel| [of(&preprocess.mean, channel), of(&preprocess.std, channel)]).collect()
}
