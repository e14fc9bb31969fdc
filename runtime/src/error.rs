//! What can go wrong between a recording and a result.

/// A runtime error: a sentence with names, numbers and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No adapter matches what was asked for.
    #[error("no GPU adapter {wanted}. {advice}")]
    NoAdapter {
        /// What was asked for, for instance `was found` or `is called "radeon"`.
        wanted: String,
        /// The adapters that are there, or how to get one.
        advice: String,
    },
    /// The adapter exists but gave no device.
    #[error("the adapter {adapter} gave no device: {reason}")]
    NoDevice {
        /// Adapter name.
        adapter: String,
        /// What the driver said.
        reason: String,
    },
    /// The driver dropped the device (driver update, time-out, unplugged).
    #[error("the GPU device was lost: {0}. Start again, if it happens twice with a smaller batch or another --adapter")]
    DeviceLost(String),
    /// A recorded step does not match its kernel: a bug in an operation.
    #[error("{step}: {what}")]
    Recording {
        /// Label of the step.
        step: String,
        /// What does not match.
        what: String,
    },
    /// A plan needs more than the adapter allows.
    #[error("{what} needs {needed} but the adapter allows {allowed}; lower {lower}")]
    TooLarge {
        /// The tensor or dispatch.
        what: String,
        /// Needed amount with its unit.
        needed: String,
        /// Allowed amount with its unit.
        allowed: String,
        /// What to lower.
        lower: String,
    },
    /// The device has not enough memory.
    #[error("the GPU has not enough memory for {what}, {}: {}; lower {lower}", human_bytes(*.needed), beside(*.in_use, *.limit))]
    OutOfMemory {
        /// What it was for.
        what: String,
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes that the runtime held already.
        in_use: u64,
        /// Bytes that it may hold, where a limit was set.
        limit: Option<u64>,
        /// What to lower.
        lower: String,
    },
    /// The driver rejected something the runtime built: a bug in the runtime or the driver.
    #[error("the GPU rejected {what}: {reason}")]
    Rejected {
        /// What was being built.
        what: String,
        /// The driver's words.
        reason: String,
    },
    /// A setting that no value of this kind may have.
    #[error("{0}")]
    Setting(String),
    /// A caller's shapes or options do not fit an operation.
    #[error("{0}")]
    Shape(String),
    /// A file could not be written.
    #[error("cannot write {path}: {reason}")]
    Write {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
}

impl Error {
    /// True where whoever gave the input can mend it: an adapter that is not there, sizes that it does not allow, settings
    /// and shapes that do not go together. False where something failed underneath.
    pub fn is_bad_input(&self) -> bool {
        matches!(self, Error::NoAdapter { .. } | Error::TooLarge { .. } | Error::Setting(_) | Error::Shape(_))
    }

    /// The same error in the words of a caller who knows what the user can lower: `lower` goes behind that word where
    /// memory or the limits of the adapter do not suffice.
    #[must_use]
    pub fn lowering(mut self, lower: &str) -> Self {
        if let Error::TooLarge { lower: advice, .. } | Error::OutOfMemory { lower: advice, .. } = &mut self {
            lower.clone_into(advice);
        }
        self
    }
}

fn beside(in_use: u64, limit: Option<u64>) -> String {
    let limit = limit.map_or_else(String::new, |limit| format!(", and the limit is {}", human_bytes(limit)));
    format!("{} are in use{limit}", human_bytes(in_use))
}

/// `1.5 MiB`
pub fn human_bytes(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    if power == 0 {
        return format!("{bytes} bytes");
    }
    format!("{:.1} {}", bytes as f64 / (1u64 << (10 * power)) as f64, units[power as usize])
}

/// Result of the runtime.
pub type Result<T, E = Error> = std::result::Result<T, E>;
