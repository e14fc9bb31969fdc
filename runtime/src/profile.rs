//! Per-dispatch GPU times as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open.

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::plan::Plan;
use crate::readback::{self, Ring};

/// Time of one dispatch.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Timing {
    /// Label of the step.
    pub label: String,
    /// Start in microseconds since the first dispatch.
    pub start_us: f64,
    /// Duration in microseconds.
    pub duration_us: f64,
}

/// Most timestamps in one query set that WebGPU allows.
const QUERIES: u32 = 4096;

/// Runs a plan once with a compute pass and two timestamps a dispatch. Inputs and header keep their last values.
///
/// # Errors
/// [`Error::Shape`] if the adapter has no timestamps, [`Error::DeviceLost`].
pub async fn profile(gpu: &Gpu, plan: &Plan) -> Result<Vec<Timing>> {
    if !gpu.has_timestamps() {
        let name = &gpu.report().name;
        return Err(Error::Shape(format!("{name} has no timestamp queries; use another --adapter to profile")));
    }
    let mut ticks: Vec<u64> = Vec::new();
    let steps: Vec<usize> = (0..plan.steps().len()).collect();
    for part in steps.chunks((QUERIES / 2) as usize) {
        ticks.extend(profile_part(gpu, plan, part).await?);
    }
    // What is computed once was computed again, under whatever header was there.
    plan.kept().keys.fill(None);
    let period_us = f64::from(gpu.queue().get_timestamp_period()) / 1e3;
    let origin = ticks.iter().copied().min().unwrap_or_default();
    let timings = plan.steps().iter().zip(ticks.chunks_exact(2)).map(|(step, t)| Timing {
        label: step.label.clone(),
        start_us: (t[0] - origin) as f64 * period_us,
        duration_us: t[1].saturating_sub(t[0]) as f64 * period_us,
    });
    Ok(timings.collect())
}

async fn profile_part(gpu: &Gpu, plan: &Plan, part: &[usize]) -> Result<Vec<u64>> {
    let count = part.len() as u32 * 2;
    let query_set = gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
        label: Some("profile"),
        ty: wgpu::QueryType::Timestamp,
        count,
    });
    let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
    let resolved = gpu.buffer("profile", u64::from(count) * 8, usage);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    for (at, &index) in part.iter().enumerate() {
        let at = at as u32 * 2;
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                query_set: &query_set,
                beginning_of_pass_write_index: Some(at),
                end_of_pass_write_index: Some(at + 1),
            }),
        });
        plan.encode_step(&mut pass, index);
    }
    encoder.resolve_query_set(&query_set, 0..count, &resolved, 0);
    gpu.submit(encoder);
    let words = readback::read(gpu, &resolved, 0, u64::from(count) * 8).await?;
    Ok(words.chunks_exact(2).map(ticks).collect())
}

/// Times whole runs with two timestamps each, without waiting for them.
#[derive(Debug)]
pub struct Stopwatch {
    queries: wgpu::QuerySet,
    resolved: Buffer,
    ring: Ring,
    period_ms: f64,
}

impl Stopwatch {
    /// None where the adapter has no timestamps.
    pub fn new(gpu: &Gpu) -> Option<Self> {
        gpu.has_timestamps().then(|| Stopwatch {
            queries: gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("stopwatch"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: gpu.buffer("stopwatch", 16, wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            ring: Ring::new(gpu, 4, 4),
            period_ms: f64::from(gpu.queue().get_timestamp_period()) / 1e6,
        })
    }

    /// The timestamps of a pass that is the first or the last of what is timed, or both.
    pub(crate) fn writes(&self, is_first: bool, is_last: bool) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        (is_first || is_last).then(|| wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: is_first.then_some(0),
            end_of_pass_write_index: is_last.then_some(1),
        })
    }

    /// The ring to ask for the times once the encoder was submitted; None if four are under way.
    pub(crate) fn finish(&mut self, encoder: &mut wgpu::CommandEncoder, tag: u64) -> Option<&mut Ring> {
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
        // Two timestamps are what a slot holds.
        let sent = self.ring.send(encoder, &[(self.resolved.clone(), 16)], tag);
        sent.unwrap_or(false).then_some(&mut self.ring)
    }

    /// Milliseconds of the runs whose times have arrived, oldest first, each with its tag.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] if the device went away.
    pub fn receive(&mut self, gpu: &Gpu) -> Result<Vec<(u64, f64)>> {
        let arrived = self.ring.receive(gpu)?;
        let milliseconds = |w: &[f32]| ticks(&w[2..4]).saturating_sub(ticks(&w[..2])) as f64 * self.period_ms;
        Ok(arrived.iter().map(|(tag, words)| (*tag, milliseconds(words))).collect())
    }
}

/// A timestamp from its two words.
fn ticks(words: &[f32]) -> u64 {
    u64::from(words[0].to_bits()) | (u64::from(words[1].to_bits()) << 32)
}

/// The timings as Chrome trace events (JSON).
pub fn chrome_trace(timings: &[Timing]) -> String {
    let event = |t: &Timing| serde_json::json!({ "name": t.label, "ph": "X", "ts": t.start_us, "dur": t.duration_us, "pid": 1, "tid": 1 });
    let events: Vec<serde_json::Value> = timings.iter().map(event).collect();
    serde_json::json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string()
}
