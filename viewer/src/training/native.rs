//! A run in a thread of its own: it tells what happens through a channel and never waits for whoever listens.

use std::sync::mpsc::{Receiver, TryRecvError, channel};

use lara_models::train::{Control, Event, Summary, Trainer};

use super::Message;
use crate::error::Result;
use crate::job::Repaint;

/// Hears every event of a run, in the run's thread.
pub type Listener = Box<dyn FnMut(&Event<'_>) + Send>;

/// The thread's other end.
pub(super) struct NativeRun {
    messages: Receiver<Message>,
}

impl NativeRun {
    /// Starts the run. `listener` hears its events first.
    pub(super) fn start(trainer: Trainer, control: &Control, mut listener: Listener, repaint: Repaint) -> Result<Self> {
        let (sender, messages) = channel();
        let control = control.clone();
        let work = move || {
            // Whoever listened may be gone: the run goes on without a window.
            let tell = |message| {
                let _ = sender.send(message);
                repaint();
            };
            let result = pollster::block_on(trainer.run(&control, &mut |event| {
                listener(&event);
                tell(message(&event));
            }));
            tell(Message::Ended(result));
        };
        let failed = |error| lara_models::Error::Failed(format!("cannot start the training thread: {error}"));
        std::thread::Builder::new().name("training".into()).spawn(work).map_err(failed)?;
        Ok(NativeRun { messages })
    }

    /// What happened since the last call, without waiting for more.
    pub(super) fn poll(&self, hear: &mut dyn FnMut(Message)) {
        loop {
            match self.messages.try_recv() {
                Ok(message) => hear(message),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return hear(Message::Lost),
            }
        }
    }

    /// Sleeps until the run has ended.
    pub(super) fn wait(&self) -> lara_models::Result<Summary> {
        let ended = self.messages.iter().find_map(|message| match message {
            Message::Ended(result) => Some(result),
            _ => None,
        });
        ended.unwrap_or_else(|| Err(lara_models::Error::Failed(super::LOST.into())))
    }
}

fn message(event: &Event<'_>) -> Message {
    match event {
        Event::Step(progress) => Message::Step(*progress),
        Event::Evaluating { done, total } => Message::Evaluating { done: *done, total: *total },
        Event::Evaluated { step, evaluation, .. } => {
            Message::Evaluated { step: *step, evaluation: (*evaluation).clone() }
        }
        Event::Saved(path) => Message::Saved(path.to_path_buf()),
    }
}
