//! The learning rate as a function of the step.

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
    /// Steps of the whole run.
    pub total_steps: u64,
}

impl Schedule {
    /// The learning rate of step `step` (the first is 0). A function of the step only, so a resumed run goes on as it
    /// would have.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.warmup_lr + (self.lr - self.warmup_lr) * step as f64 / self.warmup_steps as f64;
        }
        let falling = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / falling as f64).min(1.0);
        self.min_lr + 0.5 * (self.lr - self.min_lr) * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}
