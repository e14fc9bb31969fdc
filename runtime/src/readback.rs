//! Bringing numbers back: one awaited read for results, and a ring of small buffers for losses that never stalls a run.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::tensor::Dtype;

/// Copies `bytes` of `buffer` from `offset` (a multiple of 4) to the CPU.
///
/// # Errors
/// [`Error::DeviceLost`] if the device went away meanwhile, [`Error::OutOfMemory`] if there is no room for the copy.
pub(crate) async fn read(gpu: &Gpu, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<f32>> {
    gpu.refuse_if_lost()?;
    gpu.reserve("a copy to read back", bytes)?;
    let staging = gpu.buffer("readback", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes);
    gpu.submit(encoder);
    let arrival = map(&staging);
    wait(gpu);
    arrived(gpu, arrival).await?;
    copy_out(&staging, bytes)
}

#[cfg(not(target_arch = "wasm32"))]
fn wait(gpu: &Gpu) {
    gpu.wait_blocking();
}

/// The browser maps buffers by itself once control returns to its event loop.
#[cfg(target_arch = "wasm32")]
fn wait(_gpu: &Gpu) {}

/// Whether a buffer was mapped, once that is known, and who waits for it.
#[derive(Default)]
struct Arrival {
    mapped: Option<bool>,
    waker: Option<Waker>,
}

/// The sending end. A callback that is dropped without having been called lost its device, and says so.
struct Caller(Arc<Mutex<Arrival>>);

impl Caller {
    fn tell(&self, mapped: bool) {
        let waker = {
            let mut arrival = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            arrival.mapped.get_or_insert(mapped);
            arrival.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.tell(false);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that maps")]
fn map(staging: &wgpu::Buffer) -> Arc<Mutex<Arrival>> {
    let arrival = Arc::new(Mutex::new(Arrival::default()));
    let caller = Caller(arrival.clone());
    staging.slice(..).map_async(wgpu::MapMode::Read, move |result| caller.tell(result.is_ok()));
    arrival
}

/// Sleeps until the callback wakes it: in a browser nothing is mapped before control is back in the event loop, so a
/// task that asked again and again would never get an answer.
async fn arrived(gpu: &Gpu, arrival: Arc<Mutex<Arrival>>) -> Result<()> {
    let mapped = poll_fn(|context| {
        let mut arrival = arrival.lock().unwrap_or_else(PoisonError::into_inner);
        match arrival.mapped {
            Some(mapped) => Poll::Ready(mapped),
            None => {
                arrival.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    })
    .await;
    if mapped { gpu.check() } else { Err(Error::DeviceLost("a result could not be read back".into())) }
}

fn copy_out(staging: &wgpu::Buffer, bytes: u64) -> Result<Vec<f32>> {
    let lost = |e: wgpu::MapRangeError| Error::DeviceLost(e.to_string());
    let view = staging.slice(..bytes).get_mapped_range().map_err(lost)?;
    let values = bytemuck::pod_collect_to_vec::<u8, f32>(&view);
    drop(view);
    staging.unmap();
    Ok(values)
}

/// Values that come back some steps after they were computed, in order, through a ring of staging buffers.
#[derive(Debug)]
pub struct Ring {
    /// Bytes of a slot.
    slot: u64,
    free: Vec<Buffer>,
    flying: VecDeque<Flight>,
    /// The submits that fill the flying buffers, oldest first.
    submits: VecDeque<wgpu::SubmissionIndex>,
    sent: u64,
    sender: Sender<(u64, bool)>,
    receiver: Receiver<(u64, bool)>,
    landed: Vec<(u64, bool)>,
}

/// A value under way.
#[derive(Debug)]
struct Flight {
    /// Number of the value: senders may use a tag twice, and callbacks come in any order.
    number: u64,
    tag: u64,
    staging: Buffer,
}

impl Ring {
    /// A ring of `slots` buffers of `floats` values each.
    pub fn new(gpu: &Gpu, slots: usize, floats: usize) -> Self {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let slot = Dtype::F32.bytes(floats);
        let free = (0..slots).map(|_| gpu.buffer("loss ring", slot, usage)).collect();
        let (sender, receiver) = channel();
        Ring {
            slot,
            free,
            flying: VecDeque::new(),
            submits: VecDeque::new(),
            sent: 0,
            sender,
            receiver,
            landed: vec![],
        }
    }

    /// Whether another value can be sent now.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether something that was sent has not been received yet.
    pub fn is_waiting(&self) -> bool {
        !self.flying.is_empty()
    }

    /// Copies the sources (buffer, bytes) one behind the other; does nothing and says so if the ring is full.
    ///
    /// # Errors
    /// [`Error::Shape`] if a slot of the ring cannot hold them.
    pub(crate) fn send(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        from: &[(Buffer, u64)],
        tag: u64,
    ) -> Result<bool> {
        let needed: u64 = from.iter().map(|(_, bytes)| bytes).sum();
        if needed > self.slot {
            let [numbers, slot] = [needed, self.slot].map(|bytes| bytes / Dtype::F32.size());
            return Err(Error::Shape(format!("{numbers} numbers do not fit a ring whose slots hold {slot}")));
        }
        let Some(staging) = self.free.pop() else { return Ok(false) };
        let mut at = 0;
        for (buffer, bytes) in from {
            let bytes = *bytes;
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, at, bytes);
            at += bytes;
        }
        self.sent += 1;
        self.flying.push_back(Flight { number: self.sent, tag, staging });
        Ok(true)
    }

    /// Forgets the newest value, whose run is not submitted.
    pub(crate) fn take_back(&mut self) {
        if self.flying.len() > self.submits.len() {
            self.free.extend(self.flying.pop_back().map(|flight| flight.staging));
        }
    }

    /// Asks for the newest value; called after its command buffer was submitted.
    #[expect(clippy::disallowed_methods, reason = "the one place that maps")]
    pub(crate) fn request(&mut self, submit: wgpu::SubmissionIndex) {
        let Some(Flight { number, staging, .. }) = self.flying.back() else { return };
        self.submits.push_back(submit);
        let (sender, number) = (self.sender.clone(), *number);
        staging.slice(..).map_async(wgpu::MapMode::Read, move |result| {
            let _ = sender.send((number, result.is_ok()));
        });
    }

    /// Takes the values that have arrived, oldest first, each with its tag.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] if the device went away.
    pub fn receive(&mut self, gpu: &Gpu) -> Result<Vec<(u64, Vec<f32>)>> {
        gpu.poll();
        gpu.check()?;
        self.landed.extend(self.receiver.try_iter());
        let mut values = Vec::new();
        while let Some(Flight { number, .. }) = self.flying.front() {
            let Some(at) = self.landed.iter().position(|(landed, _)| landed == number) else { break };
            let (_, arrived) = self.landed.swap_remove(at);
            let Some(Flight { tag, staging, .. }) = self.flying.pop_front() else { break };
            self.submits.pop_front();
            if !arrived {
                return Err(Error::DeviceLost("a loss could not be read back".into()));
            }
            values.push((tag, copy_out(&staging, self.slot)?));
            self.free.push(staging);
        }
        Ok(values)
    }

    /// Sleeps until the oldest value has arrived: a host that spun instead would take a core from a CPU adapter.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait_oldest_blocking(&self, gpu: &Gpu) {
        if let Some(submit) = self.submits.front() {
            gpu.wait_for_blocking(submit.clone());
        }
    }

    /// Waits until everything sent has arrived, and takes it. Native only.
    ///
    /// # Errors
    /// See [`Ring::receive`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn drain_blocking(&mut self, gpu: &Gpu) -> Result<Vec<(u64, Vec<f32>)>> {
        let mut values = Vec::new();
        loop {
            gpu.wait_blocking();
            values.extend(self.receive(gpu)?);
            if !self.is_waiting() {
                return Ok(values);
            }
            // Another thread that polls may have taken the callback off the device and not have called it yet.
            self.landed.extend(self.receiver.recv_timeout(std::time::Duration::from_millis(10)));
        }
    }
}
