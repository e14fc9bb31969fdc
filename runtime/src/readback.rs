//! Bringing numbers back: one awaited read for results, and a ring of small buffers for losses that never stalls a run.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// Copies `bytes` of `buffer` from `offset` (a multiple of 4) to the CPU.
///
/// # Errors
/// [`Error::DeviceLost`] if the device went away meanwhile.
pub(crate) async fn read(gpu: &Gpu, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<f32>> {
    let staging = gpu.buffer("readback", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes);
    gpu.submit(encoder);
    let mapped = map(&staging);
    wait(gpu);
    arrived(gpu, mapped).await?;
    copy_out(&staging, bytes)
}

#[cfg(not(target_arch = "wasm32"))]
fn wait(gpu: &Gpu) {
    gpu.wait_blocking();
}

/// The browser maps buffers by itself once control returns to its event loop.
#[cfg(target_arch = "wasm32")]
fn wait(_gpu: &Gpu) {}

#[expect(clippy::disallowed_methods, reason = "the one place that maps")]
fn map(staging: &wgpu::Buffer) -> Receiver<std::result::Result<(), wgpu::BufferAsyncError>> {
    let (sender, receiver) = channel();
    staging.slice(..).map_async(wgpu::MapMode::Read, move |result| {
        // The receiver is gone when the caller no longer wants the value.
        let _ = sender.send(result);
    });
    receiver
}

async fn arrived(gpu: &Gpu, mapped: Receiver<std::result::Result<(), wgpu::BufferAsyncError>>) -> Result<()> {
    let result = std::future::poll_fn(|context| match mapped.try_recv() {
        Ok(result) => std::task::Poll::Ready(Some(result)),
        Err(std::sync::mpsc::TryRecvError::Disconnected) => std::task::Poll::Ready(None),
        Err(std::sync::mpsc::TryRecvError::Empty) => {
            gpu.poll();
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        }
    })
    .await;
    match result {
        Some(Ok(())) => gpu.check(),
        _ => Err(Error::DeviceLost("a result could not be read back".into())),
    }
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
    floats: u64,
    free: Vec<wgpu::Buffer>,
    flying: VecDeque<(u64, wgpu::Buffer)>,
    /// The submits that fill the flying buffers, oldest first.
    submits: VecDeque<wgpu::SubmissionIndex>,
    sender: Sender<(u64, bool)>,
    receiver: Receiver<(u64, bool)>,
    landed: Vec<(u64, bool)>,
}

impl Ring {
    /// A ring of `slots` buffers of `floats` values each.
    pub fn new(gpu: &Gpu, slots: usize, floats: usize) -> Self {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let free = (0..slots).map(|_| gpu.buffer("loss ring", floats as u64 * 4, usage)).collect();
        let (sender, receiver) = channel();
        Ring {
            floats: floats as u64,
            free,
            flying: VecDeque::new(),
            submits: VecDeque::new(),
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
    pub(crate) fn send(&mut self, encoder: &mut wgpu::CommandEncoder, from: &[(wgpu::Buffer, u64)], tag: u64) -> bool {
        let Some(staging) = self.free.pop() else { return false };
        let mut at = 0;
        for (buffer, bytes) in from {
            let bytes = (*bytes).min(self.floats * 4 - at);
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, at, bytes);
            at += bytes;
        }
        self.flying.push_back((tag, staging));
        true
    }

    /// Asks for the newest value; called after its command buffer was submitted.
    #[expect(clippy::disallowed_methods, reason = "the one place that maps")]
    pub(crate) fn request(&mut self, submit: wgpu::SubmissionIndex) {
        let Some((tag, staging)) = self.flying.back() else { return };
        self.submits.push_back(submit);
        let (sender, tag) = (self.sender.clone(), *tag);
        staging.slice(..).map_async(wgpu::MapMode::Read, move |result| {
            let _ = sender.send((tag, result.is_ok()));
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
        while let Some((tag, _)) = self.flying.front() {
            let Some(at) = self.landed.iter().position(|(t, _)| t == tag) else { break };
            let (_, arrived) = self.landed.swap_remove(at);
            let Some((tag, staging)) = self.flying.pop_front() else { break };
            self.submits.pop_front();
            if !arrived {
                return Err(Error::DeviceLost("a loss could not be read back".into()));
            }
            values.push((tag, copy_out(&staging, self.floats * 4)?));
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
        gpu.wait_blocking();
        self.receive(gpu)
    }
}
