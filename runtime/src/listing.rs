//! A recording or a plan as text: what runs on what, and what it moves.

use std::fmt;

use crate::cost;
use crate::header::Redraw;
use crate::plan::Plan;
use crate::recorder::{Once, Recorder, Step, TensorInfo};

impl fmt::Display for Plan {
    /// Every dispatch with its label, workgroups and tensors, then bytes by purpose.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.listing, &self.tensors, self.once())?;
        writeln!(f, "{:?}", self.memory)?;
        let is_once = |at: &&usize| self.once().iter().any(|once| once.steps.contains(at));
        let main: Vec<&Step> =
            self.main_steps().iter().filter(|at| !is_once(at)).map(|&at| &self.listing[at]).collect();
        let flops: f64 = main.iter().map(|step| step.flops).sum();
        let bytes: u64 = main.iter().map(|step| step.bytes()).sum();
        let speed = self.gpu().speed();
        let submits = cost::submits(main.iter().map(|step| step.seconds(speed)), &mut 0.0).len();
        let (dispatches, gigaflop, gigabytes) = (main.len(), flops / 1e9, bytes as f64 / 1e9);
        write!(f, "{dispatches} dispatches in {submits} submits, {gigaflop:.3} GFLOP, {gigabytes:.3} GB bound")?;
        match self.main_steps().iter().filter(is_once).count() {
            0 => writeln!(f),
            once => writeln!(f, "; {once} dispatches not in every run"),
        }
    }
}

impl fmt::Display for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.steps, &self.tensors, &self.once)
    }
}

fn list(f: &mut fmt::Formatter<'_>, steps: &[Step], tensors: &[TensorInfo], once: &[Once]) -> fmt::Result {
    for (at, step) in steps.iter().enumerate() {
        let [x, y, z] = step.groups;
        write!(f, "{at:4} {} <{x} {y} {z}>", step.label)?;
        for tensor in &step.binds {
            write!(f, " {}{}", tensors[tensor.id].label, tensor.shape)?;
        }
        match once.iter().find(|once| once.steps.contains(&at)).map(|once| once.redraw) {
            None => writeln!(f)?,
            Some(Redraw::Never) => writeln!(f, " once")?,
            Some(Redraw::Every(steps)) => writeln!(f, " once in {steps} steps of a seed")?,
        }
    }
    Ok(())
}
