//! A run that begins with the weights of a trained model.

use lara_runtime::{Gpu, Role};

use super::checkpoint::TrainedModel;
use super::session::Session;
use crate::error::Result;
use crate::task::Task;
use crate::weights::{TensorFile, is_of_a_mechanism, names_and_shapes};

/// What became of a new run's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initialized {
    /// How many tensors were taken from the model.
    pub taken: usize,
    /// Those that begin as in any new run: of an attention mechanism that the model does not have, of a classifier for other
    /// classes.
    pub fresh: Vec<String>,
}

/// Gives a new session the weights of `trained`, which was brought to its settings ([`TrainedModel::fit`]). Weights of the
/// attention mechanism that the model does not have, and a classifier for another number of classes, stay as they began.
///
/// # Errors
/// A tensor that is missing, too many or of another shape.
pub fn initialize<T: Task>(gpu: &Gpu, session: &Session<T>, trained: &TrainedModel) -> Result<Initialized> {
    let file = &trained.weights;
    let wanted = names_and_shapes(&session.parameters);
    let (mut taken, mut fresh) = (Vec::new(), Vec::new());
    for (index, (name, shape)) in wanted.iter().enumerate() {
        if begins_anew(file, name, shape) {
            fresh.push(name.clone());
        } else {
            taken.push((index, file.get(name, shape)?));
        }
    }
    file.refuse_others(wanted.iter().map(|(name, _)| name.as_str()).chain(CLASSIFIER))?;
    for (index, values) in &taken {
        session.parameters.write(gpu, Role::Weight, *index, values)?;
    }
    if session.has_ema() {
        session.parameters.copy(gpu, Role::Weight, Role::Ema)?;
    }
    Ok(Initialized { taken: taken.len(), fresh })
}

/// What makes classes of features.
const CLASSIFIER: [&str; 4] = ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"];

fn begins_anew(file: &TensorFile, name: &str, shape: &[usize]) -> bool {
    let stored = file.shape(name);
    // A classifier of other features is no classifier for other classes.
    let other_classes = |stored: &[usize]| stored.get(1..) == shape.get(1..) && stored != shape;
    (is_of_a_mechanism(name) && stored.is_none()) || (CLASSIFIER.contains(&name) && stored.is_none_or(other_classes))
}
