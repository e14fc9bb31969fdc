//! What whoever looks at a run may ask of it: pause, one more step, a checkpoint, the end.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A handle on a run. Clones are the same handle, so it may be used from any thread while the run goes on.
///
/// None of it reaches the numbers: it decides when a step is taken and never which one, so a run that was paused,
/// stepped and saved ends with the same bits as one that was left alone.
#[derive(Clone, Debug, Default)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wishes: Mutex<Wishes>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Wishes {
    paused: bool,
    /// Steps to take although it is paused.
    steps: u64,
    save: bool,
    stop: bool,
}

/// What a run does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// An optimizer step.
    Step,
    /// A checkpoint of where it stands.
    Save,
    /// It ends here, saved where it writes files.
    Stop,
}

impl Control {
    /// A handle for a run that starts at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds the run before its next step. Steps asked for and not yet taken are forgotten.
    pub fn pause(&self) {
        self.change(|wishes| {
            wishes.paused = true;
            wishes.steps = 0;
        });
    }

    /// Lets a paused run go on.
    pub fn resume(&self) {
        self.change(|wishes| {
            wishes.paused = false;
            wishes.steps = 0;
        });
    }

    /// Takes exactly one optimizer step more and holds; a run that is not paused is paused by it.
    pub fn step(&self) {
        self.change(|wishes| {
            wishes.paused = true;
            wishes.steps += 1;
        });
    }

    /// Asks for a checkpoint before the next step, also while the run is paused.
    pub fn save(&self) {
        self.change(|wishes| wishes.save = true);
    }

    /// Ends the run before its next step, for good. Runs that begin under this handle later end at once.
    pub fn stop(&self) {
        self.change(|wishes| wishes.stop = true);
    }

    /// Whether the run is held before its next step.
    pub fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// Whether a checkpoint was asked for that the run has not begun to write.
    pub fn is_saving(&self) -> bool {
        self.lock().save
    }

    /// Whether the end was asked for.
    pub fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// Takes the next order, or `None` while the run is held. An order is given once.
    pub fn next_order(&self) -> Option<Order> {
        self.lock().next_order()
    }

    /// Sleeps until there is an order to take. In a browser nothing may sleep.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self) {
        let is_held = |wishes: &mut Wishes| wishes.is_held();
        drop(self.shared.changed.wait_while(self.lock(), is_held).unwrap_or_else(PoisonError::into_inner));
    }

    fn change(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut self.lock());
        self.shared.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Wishes> {
        // Nothing panics while it holds the lock, and the wishes are consistent between any two statements.
        self.shared.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wishes {
    #[cfg(not(target_arch = "wasm32"))]
    fn is_held(&self) -> bool {
        self.paused && self.steps == 0 && !self.save && !self.stop
    }

    fn next_order(&mut self) -> Option<Order> {
        if self.stop {
            return Some(Order::Stop);
        }
        if std::mem::take(&mut self.save) {
            return Some(Order::Save);
        }
        if !self.paused {
            return Some(Order::Step);
        }
        self.steps = self.steps.checked_sub(1)?;
        Some(Order::Step)
    }
}
