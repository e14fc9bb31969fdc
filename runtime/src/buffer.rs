//! Memory on the device, counted while it lives and given back with its last handle.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// A buffer of the runtime. Clones share it; the last one gives its memory back at once.
///
/// Dropping a [`wgpu::Buffer`] frees nothing in a browser before its garbage collector runs, which knows nothing of GPU
/// memory, so this one is destroyed. Whoever binds it keeps a clone for as long as the bind group is used.
#[derive(Clone, Debug)]
pub struct Buffer {
    owned: Arc<Owned>,
}

#[derive(Debug)]
struct Owned {
    buffer: wgpu::Buffer,
    meter: Arc<Meter>,
}

impl Buffer {
    pub(crate) fn new(buffer: wgpu::Buffer, meter: Arc<Meter>) -> Self {
        meter.in_use.fetch_add(buffer.size(), Ordering::Relaxed);
        Buffer { owned: Arc::new(Owned { buffer, meter }) }
    }
}

impl Deref for Buffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.owned.buffer
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.buffer.destroy();
        self.meter.in_use.fetch_sub(self.buffer.size(), Ordering::Relaxed);
    }
}

/// How much of the device's memory the runtime holds, and how much it may.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    in_use: AtomicU64,
    limit: Option<u64>,
}

impl Meter {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Meter { in_use: AtomicU64::new(0), limit }
    }

    /// Bytes of all buffers that live.
    pub(crate) fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// The limit that was set.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Whether `needed` more bytes are within the limit; `what` they are for stands in the error.
    pub(crate) fn reserve(&self, what: &str, needed: u64) -> Result<()> {
        match self.limit {
            Some(limit) if self.in_use().saturating_add(needed) > limit => Err(self.shortage(what, needed)),
            _ => Ok(()),
        }
    }

    /// The error for an allocation of `needed` bytes that failed.
    pub(crate) fn shortage(&self, what: &str, needed: u64) -> Error {
        let lower = "the batch size, the image size or the number of tokens".into();
        Error::OutOfMemory { what: what.to_owned(), needed, in_use: self.in_use(), limit: self.limit, lower }
    }
}
