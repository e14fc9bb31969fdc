//! The learning rate as a function of the step.

use serde::{Deserialize, Serialize};

/// Which cosine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sched {
    /// It begins where the warm-up ends; every step has a rate of its own.
    #[default]
    Cosine,
    /// timm's: it begins with the run, so that the warm-up leads to a place on it; an epoch has one rate, or a step with
    /// `sched_on_updates`.
    Timm,
    /// timm's as the scripts of DeiT, PVT and the paper call it: every epoch has the rate of the one before, so that the
    /// first two have `warmup_lr`.
    Deit,
}

/// How time passes for timm's cosine (`timm.scheduler.CosineLRScheduler`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimmTime {
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Every step has a rate of its own; else every epoch.
    pub on_updates: bool,
    /// An epoch has the rate of the one before.
    pub is_late: bool,
    /// The cosine begins after the warm-up, and takes as long as without one.
    pub prefix: bool,
}

impl TimmTime {
    /// Where step `step` stands, in steps.
    fn at(&self, step: u64) -> f64 {
        if self.on_updates {
            return step as f64;
        }
        let epoch = (step / self.steps_per_epoch.max(1)).saturating_sub(u64::from(self.is_late));
        epoch.saturating_mul(self.steps_per_epoch.max(1)) as f64
    }
}

/// Linear warm-up, then half a cosine down to a floor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The peak, reached at the end of the warm-up.
    pub lr: f64,
    /// The floor, reached at `total_steps` and kept.
    pub min_lr: f64,
    /// The value at step 0.
    pub warmup_lr: f64,
    /// Steps of linear growth from `warmup_lr` to `lr`; 0 for none.
    pub warmup_steps: u64,
    /// Steps after which the floor is reached.
    pub total_steps: u64,
    /// timm's cosine; none for the one that begins where the warm-up ends.
    pub timm: Option<TimmTime>,
}

impl Schedule {
    /// The learning rate of step `step` (the first is 0). A function of the step only, so a resumed run goes on as it
    /// would have.
    pub fn at(&self, step: u64) -> f64 {
        if let Some(time) = &self.timm {
            return self.of_timm(time.at(step), time.prefix);
        }
        if step < self.warmup_steps {
            return self.warmup_lr + (self.lr - self.warmup_lr) * step as f64 / self.warmup_steps as f64;
        }
        let falling = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / falling as f64).min(1.0);
        self.min_lr + 0.5 * (self.lr - self.min_lr) * (1.0 + (std::f64::consts::PI * progress).cos())
    }

    fn of_timm(&self, time: f64, prefix: bool) -> f64 {
        let warmup = self.warmup_steps as f64;
        if time < warmup {
            return self.warmup_lr + time * (self.lr - self.warmup_lr) / warmup;
        }
        let time = if prefix { time - warmup } else { time };
        if time >= self.total_steps as f64 {
            return self.min_lr;
        }
        let angle = std::f64::consts::PI * time / self.total_steps as f64;
        self.min_lr + 0.5 * (self.lr - self.min_lr) * (1.0 + angle.cos())
    }
}
