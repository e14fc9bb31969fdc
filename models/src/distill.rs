//! `[distill]` of a configuration: what is learnt from a teacher. Names and values are DeiT's.

use std::path::PathBuf;

use lara_runtime::ops::Distillation;
use serde::{Deserialize, Serialize};

use crate::check::{count, ensure};
use crate::error::Result;

/// What a student learns from its teacher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DistillType {
    /// Nothing.
    #[default]
    None,
    /// Its most probable class (Touvron et al. 2021).
    Hard,
    /// Its probabilities (Hinton et al. 2015).
    Soft,
}

/// What is learnt from a teacher.
///
/// The teacher sees the same images as the student, augmented and mixed. A student with a classifier for the distillation
/// token (`model.head_dist`) learns the teacher's answers there and the labels with the other, as in DeiT; one without learns
/// both with the one that it has, which DeiT refuses. It is evaluated by the mean of its classifiers, as always.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistillConfig {
    /// The teacher: a run's folder, a checkpoint, a model of another library or `hf:ORG/NAME[@REVISION]`.
    pub teacher: PathBuf,
    /// What is learnt from it.
    #[serde(rename = "type")]
    pub kind: DistillType,
    /// Share of the loss that it has; the labels have the rest.
    pub alpha: f64,
    /// What both logits are divided by under `soft`.
    pub tau: f64,
}

impl Default for DistillConfig {
    fn default() -> Self {
        Self { teacher: PathBuf::new(), kind: DistillType::None, alpha: 0.5, tau: 1.0 }
    }
}

impl DistillConfig {
    /// The loss, if there is a teacher.
    pub(crate) fn loss(&self) -> Option<Distillation> {
        let loss = |hard| Distillation { hard, alpha: self.alpha as f32, tau: self.tau as f32 };
        match self.kind {
            DistillType::None => None,
            DistillType::Hard => Some(loss(true)),
            DistillType::Soft => Some(loss(false)),
        }
    }

    /// Checks the values.
    pub(crate) fn check(&self) -> Result<()> {
        let has_teacher = !self.teacher.as_os_str().is_empty();
        ensure(has_teacher || self.kind == DistillType::None, || {
            "distill.teacher is empty; name a run's folder, a checkpoint or hf:ORG/NAME, or set distill.type = \"none\""
                .into()
        })?;
        ensure(!has_teacher || self.kind != DistillType::None, || {
            let teacher = self.teacher.display();
            format!("distill.teacher = {teacher} teaches nothing under distill.type = \"none\"; set it to hard or soft")
        })?;
        ensure((0.0..=1.0).contains(&self.alpha), || {
            format!("distill.alpha is {}; it is a share of the loss, 0 to 1", self.alpha)
        })?;
        // Its square is a factor of the loss.
        count("distill.tau", self.tau, 0.01..=1000.0)
    }
}
