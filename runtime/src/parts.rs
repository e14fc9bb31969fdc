//! Parts of a recording that are not encoded with every run: asides, which run by themselves, and what is computed once.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::header::Redraw;
use crate::recorder::{Aside, Once, Recorder};
use crate::tensor::Tensor;

impl Recorder {
    /// Records steps that a plan runs once, with its first run, and again where `redraw` says so: a random projection. They
    /// depend on the header and on nothing else, so they bind only tensors that are made in `body`; what other steps read of
    /// these has a buffer of its own, and no other step may write it.
    pub fn once<T>(&mut self, redraw: Redraw, body: impl FnOnce(&mut Self) -> T) -> T {
        let (step, tensor) = (self.steps.len(), self.tensors.len());
        let result = body(self);
        let own = |bound: &&Tensor| bound.id < tensor && Some(**bound) != self.absent;
        let mut outside =
            self.steps[step..].iter().filter_map(|step| Some((step.label.clone(), *step.binds.iter().find(own)?)));
        if let Some((step, bound)) = outside.next() {
            let what = format!("is computed once, but binds {}, which is not", self.label(bound));
            self.fail(Error::Recording { step, what });
        }
        if self.once.last().is_some_and(|inner| inner.steps.end > step) {
            let label = self.steps[step].label.clone();
            self.fail(Error::Recording { step: label, what: "begins what is computed once within another".into() });
        }
        let steps = step..self.steps.len();
        if !steps.is_empty() {
            self.once.push(Once { steps, redraw });
        }
        result
    }

    /// Ends an aside that began at step `first`: what was appended since is not part of an ordinary run.
    pub(crate) fn end_aside(&mut self, first: usize) -> Aside {
        self.asides.push(first..self.steps.len());
        Aside(self.asides.len() - 1)
    }

    /// Gives a buffer of its own to every tensor that two parts share: they run apart, so what lies between must survive.
    ///
    /// # Errors
    /// [`Error::Recording`] for a step that writes what is computed once, from outside.
    pub(crate) fn pin_what_parts_share(&mut self) -> Result<()> {
        type Part = (Option<usize>, Option<usize>);
        let mut part_of: HashMap<usize, Part> = HashMap::new();
        let mut shared = Vec::new();
        for (at, step) in self.steps.iter().enumerate() {
            let aside = self.asides.iter().position(|aside| aside.contains(&at));
            let once = self.once.iter().position(|once| once.steps.contains(&at));
            for (binding, tensor) in step.binds.iter().enumerate() {
                let first = *part_of.entry(tensor.id).or_insert((aside, once));
                if first == (aside, once) {
                    continue;
                }
                shared.push(*tensor);
                let signature = step.kernel.signature();
                let writes = signature.is_ok_and(|signature| signature.storage[binding].writes);
                if writes && first.1.is_some() && Some(*tensor) != self.absent {
                    let what = format!("writes {}, which is computed once", self.label(*tensor));
                    return Err(Error::Recording { step: step.label.clone(), what });
                }
            }
        }
        shared.into_iter().for_each(|tensor| self.pin(tensor));
        Ok(())
    }
}
