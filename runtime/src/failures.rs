//! What a driver complained about and nobody has been told yet.
//!
//! wgpu calls back on the thread whose call was at fault, so a complaint is kept for that thread: another one that asks
//! neither hears of it nor takes it away. A loss of the device concerns everybody and stays.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::error::{Error, Result};

thread_local! {
    /// A token that lives as long as its thread.
    static THREAD: Arc<()> = Arc::default();
}

#[derive(Debug, Default)]
pub(crate) struct Failures {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    lost: Option<String>,
    /// The first complaint about each thread since it asked.
    complaints: Vec<(Weak<()>, String)>,
}

impl Failures {
    /// Keeps why the device went; the first reason stays.
    pub(crate) fn lose(&self, why: String) {
        self.lock().lost.get_or_insert(why);
    }

    /// Keeps a complaint about this thread, unless an earlier one waits: what follows an error is mostly its consequence.
    pub(crate) fn complain(&self, reason: String) {
        let thread = THREAD.try_with(Arc::downgrade).unwrap_or_default();
        let complaints = &mut self.lock().complaints;
        if !complaints.iter().any(|(of, _)| of.ptr_eq(&thread)) {
            complaints.push((thread, reason));
        }
    }

    /// A loss of the device, then the complaint about this thread, which is forgotten. Of a thread that ended without asking
    /// whoever asks first hears.
    pub(crate) fn check(&self) -> Result<()> {
        self.refuse_if_lost()?;
        let mut told = self.lock();
        let mine = |of: &Weak<()>| of.strong_count() == 0 || THREAD.with(|thread| of.as_ptr() == Arc::as_ptr(thread));
        let Some(at) = told.complaints.iter().position(|(of, _)| mine(of)) else { return Ok(()) };
        let (_, reason) = told.complaints.remove(at);
        Err(Error::Rejected { what: "a command".into(), reason })
    }

    /// A loss of the device alone.
    pub(crate) fn refuse_if_lost(&self) -> Result<()> {
        self.lock().lost.clone().map_or(Ok(()), |why| Err(Error::DeviceLost(why)))
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
