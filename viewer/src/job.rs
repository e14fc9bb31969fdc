//! Work that takes longer than a frame: in a thread on the desktop, between frames in a browser.

use std::sync::mpsc::{Receiver, TryRecvError, channel};

use crate::error::{Error, Result};

/// Asks for a frame; called from anywhere.
pub type Repaint = std::sync::Arc<dyn Fn() + Send + Sync>;

/// A result that is on its way.
#[derive(Debug)]
pub struct Job<T> {
    receiver: Receiver<Result<T>>,
}

impl<T: Send + 'static> Job<T> {
    /// Starts the future that `work` makes (in the thread that will wait for it, so it may hold what must stay in one
    /// thread) and asks for a frame when it is done.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn spawn<F, E>(repaint: Repaint, work: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<T, E>>,
        E: Into<Error>,
    {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            // Nobody waits for the result of a job that was dropped.
            let _ = sender.send(pollster::block_on(work()).map_err(Into::into));
            repaint();
        });
        Job { receiver }
    }

    /// Starts the future that `work` makes and asks for a frame when it is done.
    #[cfg(target_arch = "wasm32")]
    pub fn spawn<F, E>(repaint: Repaint, work: impl FnOnce() -> F + 'static) -> Self
    where
        F: Future<Output = Result<T, E>> + 'static,
        E: Into<Error>,
    {
        let (sender, receiver) = channel();
        let work = work();
        wasm_bindgen_futures::spawn_local(async move {
            let _ = sender.send(work.await.map_err(Into::into));
            repaint();
        });
        Job { receiver }
    }

    /// The result, once.
    pub fn poll(&self) -> Option<Result<T>> {
        match self.receiver.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(Error::bad_input("a task ended without a result"))),
        }
    }
}

/// Something that takes its time.
#[derive(Default)]
pub(crate) enum Stage<T> {
    #[default]
    Empty,
    Coming(Job<T>),
    Ready(T),
}

impl<T: Send + 'static> Stage<T> {
    /// Takes what has arrived; an error empties the stage.
    pub(crate) fn settle(&mut self) -> Result<bool> {
        let Stage::Coming(job) = self else { return Ok(false) };
        match job.poll() {
            None => Ok(false),
            Some(Ok(value)) => {
                *self = Stage::Ready(value);
                Ok(true)
            }
            Some(Err(error)) => {
                *self = Stage::Empty;
                Err(error)
            }
        }
    }

    pub(crate) fn ready(&mut self) -> Option<&mut T> {
        if let Stage::Ready(value) = self { Some(value) } else { None }
    }

    /// Takes the value out, if it is there.
    pub(crate) fn take_ready(&mut self) -> Option<T> {
        match std::mem::replace(self, Stage::Empty) {
            Stage::Ready(value) => Some(value),
            other => {
                *self = other;
                None
            }
        }
    }

    pub(crate) fn is_coming(&self) -> bool {
        matches!(self, Stage::Coming(_))
    }
}
