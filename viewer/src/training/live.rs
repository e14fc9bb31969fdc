//! A run that the frames of a window drive: a few steps a frame, as many as keep the frames coming.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lara_models::train::{Control, Evaluation, TrainConfig, Trainer};
use lara_runtime::{Gpu, Tune};
use web_time::Instant;

use super::{Message, live_model};
use crate::error::Result;
use crate::job::{Job, Repaint};

pub(super) struct LiveRun {
    stage: Stage,
    control: Control,
    repaint: Repaint,
    pace: Pace,
    /// Held-out images evaluated.
    evaluated: Arc<AtomicUsize>,
    held_out: usize,
}

enum Stage {
    Preparing(Job<Trainer>),
    Ticking(Box<Trainer>),
    /// An evaluation has to be awaited; it takes the trainer along and brings it back.
    Evaluating(Job<(Box<Trainer>, Option<Evaluation>)>),
    Over,
}

impl LiveRun {
    /// Begins to prepare a run.
    pub(super) fn start(gpu: &Gpu, tune: &Tune, config: TrainConfig, control: &Control, repaint: Repaint) -> Self {
        let (gpu, tune) = (gpu.clone(), tune.clone());
        let prepare = move || async move { Trainer::without_files(&gpu, &tune, &config).await };
        LiveRun {
            stage: Stage::Preparing(Job::spawn(repaint.clone(), prepare)),
            control: control.clone(),
            repaint,
            pace: Pace::default(),
            evaluated: Arc::default(),
            held_out: 0,
        }
    }

    /// Takes results and starts steps; called once a frame. Asks for the next frame while there is something to do.
    pub(super) fn poll(&mut self, hear: &mut dyn FnMut(Message)) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        self.stage = match self.advance(stage, hear) {
            Ok(stage) => stage,
            Err(error) => {
                hear(Message::Failed(error.to_string()));
                Stage::Over
            }
        };
    }

    fn advance(&mut self, stage: Stage, hear: &mut dyn FnMut(Message)) -> Result<Stage> {
        match stage {
            Stage::Preparing(job) => match job.poll().transpose()? {
                None => Ok(Stage::Preparing(job)),
                Some(trainer) => {
                    self.held_out = trainer.held_out();
                    hear(Message::Ready(Box::new(live_model(&trainer)), trainer.total()));
                    self.tick(Box::new(trainer), hear)
                }
            },
            Stage::Ticking(trainer) => self.tick(trainer, hear),
            Stage::Evaluating(job) => match job.poll().transpose()? {
                None => {
                    let done = self.evaluated.load(Ordering::Relaxed);
                    hear(Message::Evaluating { done, total: self.held_out });
                    Ok(Stage::Evaluating(job))
                }
                Some((trainer, evaluation)) => {
                    if let Some(evaluation) = evaluation {
                        hear(Message::Evaluated { step: trainer.position(), evaluation });
                    }
                    self.tick(trainer, hear)
                }
            },
            Stage::Over => Ok(Stage::Over),
        }
    }

    fn tick(&mut self, mut trainer: Box<Trainer>, hear: &mut dyn FnMut(Message)) -> Result<Stage> {
        let most = self.pace.frame().saturating_sub(trainer.under_way() as usize);
        trainer.tick(&self.control, most)?.into_iter().for_each(|progress| hear(Message::Step(progress)));
        if trainer.is_evaluation_due() {
            hear(Message::Evaluating { done: 0, total: self.held_out });
            let (evaluated, control) = (self.evaluated.clone(), self.control.clone());
            evaluated.store(0, Ordering::Relaxed);
            let evaluate = move || async move {
                let evaluation = trainer.evaluate(&control, |done| evaluated.store(done, Ordering::Relaxed)).await?;
                Ok::<_, lara_models::Error>((trainer, evaluation))
            };
            return Ok(Stage::Evaluating(Job::spawn(self.repaint.clone(), evaluate)));
        }
        if trainer.has_ended() && trainer.under_way() == 0 {
            hear(Message::Over { early: trainer.position() < trainer.total() });
            return Ok(Stage::Over);
        }
        if trainer.under_way() > 0 || !self.control.is_paused() {
            (self.repaint)();
        } else {
            self.pace.rest();
        }
        Ok(Stage::Ticking(trainer))
    }
}

/// How many steps may be under way on the device. A frame is drawn behind them, so slow frames ask for fewer.
#[derive(Debug)]
pub struct Pace {
    most: usize,
    last: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { most: 1, last: None }
    }
}

impl Pace {
    const SLOW: Duration = Duration::from_millis(45);
    const FAST: Duration = Duration::from_millis(25);

    fn frame(&mut self) -> usize {
        let now = Instant::now();
        let since = self.last.replace(now).map(|last| now - last);
        since.map_or(self.most, |since| self.after(since))
    }

    /// The time until the next frame is nobody's fault.
    fn rest(&mut self) {
        self.last = None;
    }

    /// Steps that may be under way after a frame that came `since` the one before: 1 to 4.
    pub fn after(&mut self, since: Duration) -> usize {
        if since > Self::SLOW {
            self.most = (self.most - 1).max(1);
        } else if since < Self::FAST {
            self.most = (self.most + 1).min(4);
        }
        self.most
    }
}
