//! What changes from run to run, and how long what depends on it stays as it is.

/// What changes from run to run; `shaders/common/header.wgsl` is its twin.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Header {
    /// Optimizer step, from 0.
    pub step: u32,
    /// Low and high words of the run's seed.
    pub seed: [u32; 2],
    /// Position inside a gradient-accumulation cycle.
    pub micro_step: u32,
    /// Learning rate.
    pub lr: f32,
    /// 1 - beta1^(step + 1).
    pub bias_correction1: f32,
    /// 1 - beta2^(step + 1).
    pub bias_correction2: f32,
    /// Decay of the averaged weights in this step.
    pub ema_decay: f32,
}

/// When what is computed once ([`crate::Recorder::once`]) is computed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redraw {
    /// Never: it depends on nothing that changes.
    Never,
    /// Under every seed of a run, and there after so many optimizer steps (at least 1).
    Every(usize),
}

impl Redraw {
    /// Runs whose headers have one key compute the same.
    pub(crate) fn key(self, header: &Header) -> [u32; 3] {
        match self {
            Redraw::Never => [0; 3],
            Redraw::Every(steps) => [header.seed[0], header.seed[1], header.step / (steps as u32).max(1)],
        }
    }
}
