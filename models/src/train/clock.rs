//! The time of day, and that of a run, without its pauses.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use web_time::Instant;

/// As `time` in metrics and events.
pub(super) fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// Runs from its start; a pause does not count.
pub(super) struct Clock {
    started: Instant,
    idle: Duration,
    held_since: Option<Instant>,
}

impl Clock {
    pub(super) fn start() -> Self {
        Clock { started: Instant::now(), idle: Duration::ZERO, held_since: None }
    }

    /// A pause begins, unless there is one already.
    pub(super) fn hold(&mut self) {
        self.held_since.get_or_insert_with(Instant::now);
    }

    /// It ends.
    pub(super) fn resume(&mut self) {
        self.idle += self.held_since.take().map_or(Duration::ZERO, |since| since.elapsed());
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self) -> f64 {
        let held = self.held_since.map_or(Duration::ZERO, |since| since.elapsed());
        self.started.elapsed().saturating_sub(self.idle + held).as_secs_f64()
    }
}
