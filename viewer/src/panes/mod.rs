//! What is on the screen: one pane a file. A pane that remembers something is a type that shows itself; the others are
//! functions of what all share. None knows the program that puts them in their places.

pub(crate) mod compare;
pub(crate) mod export;
pub(crate) mod gallery;
pub(crate) mod heads;
pub(crate) mod image;
pub(crate) mod legend;
pub(crate) mod look;
pub(crate) mod mechanism;
pub(crate) mod options;
pub(crate) mod performance;
pub(crate) mod prediction;
pub(crate) mod rollout;
pub mod training;
