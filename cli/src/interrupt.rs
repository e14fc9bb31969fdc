//! What signals do: Ctrl-C to runs, a file that may not grow to the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lara_models::train::Control;

use crate::fail::{Failure, Outcome};

/// The first Ctrl-C stops a run after its step, the second ends the process.
pub(crate) struct Interrupt {
    /// Stopped by the first.
    pub(crate) control: Control,
    /// Whether it was pressed.
    pub(crate) pressed: Arc<AtomicBool>,
}

impl Interrupt {
    /// Called once a process.
    pub(crate) fn listen() -> Outcome<Interrupt> {
        let interrupt = Interrupt { control: Control::new(), pressed: Arc::default() };
        let (control, pressed) = (interrupt.control.clone(), interrupt.pressed.clone());
        let handler = move || {
            if pressed.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            control.stop();
            eprintln!("stopping after this step and saving; press Ctrl-C again to stop at once without saving");
        };
        ctrlc::set_handler(handler).map_err(|e| Failure::failed(format!("cannot listen for Ctrl-C: {e}")))?;
        Ok(interrupt)
    }
}

/// Lets a write beyond the limit for files (`ulimit -f`) fail, which gets a sentence and loses nothing, where the system
/// would end the process. Called before any thread is started, since threads inherit it.
pub(crate) fn outlive_file_limit() {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal};
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGXFSZ);
        // It fails for a set that is no set; then all is as it was.
        let _ = blocked.thread_block();
    }
}
