//! One run of a plan: uploads, steps, what comes back, in as few submits as are safe.

use std::num::NonZeroU64;

use crate::buffer::Buffer;
use crate::cost;
use crate::error::{Error, Result};
use crate::header::Header;
use crate::parameters::{Parameters, Role};
use crate::plan::Plan;
use crate::profile::Stopwatch;
use crate::readback::Ring;
use crate::recorder::Aside;
use crate::tensor::Tensor;

impl Plan {
    /// Starts a run: upload inputs, then [`Run::submit`].
    pub fn run(&self) -> Run<'_> {
        Run::new(self)
    }
}

/// That a run needs what a plan computes once.
struct Need<'p> {
    plan: &'p Plan,
    /// Which of it.
    once: usize,
    /// The header, if this run has set it.
    header: Option<Header>,
    /// Whether the run computes it, for it was not as the run needs it.
    encoded: bool,
}

/// One run of a plan in the making. Mistakes are kept and reported by [`Run::submit`], which then submits nothing.
///
/// It is one submit, or several where the steps are predicted to keep the device busy for too long
/// ([`crate::LONGEST_SUBMIT`]); the results are the same.
pub struct Run<'p> {
    plan: &'p Plan,
    encoder: wgpu::CommandEncoder,
    /// What was encoded before and is submitted first.
    full: Vec<wgpu::CommandBuffer>,
    /// Predicted seconds of what the encoder holds.
    pending: f64,
    belt: Option<wgpu::util::StagingBelt>,
    /// The header that a plan has been given in this run, the newest last.
    headers: Vec<(&'p Plan, Header)>,
    /// What is computed once and was needed, in order.
    needs: Vec<Need<'p>>,
    rings: Vec<&'p mut Ring>,
    error: Option<Error>,
}

impl<'p> Run<'p> {
    fn new(plan: &'p Plan) -> Self {
        let encoder = plan.gpu().encoder();
        let (headers, needs) = (Vec::new(), Vec::new());
        Run {
            plan,
            encoder,
            full: Vec::new(),
            pending: 0.0,
            belt: None,
            headers,
            needs,
            rings: Vec::new(),
            error: None,
        }
    }

    /// Uploads values into an input through reused staging memory. Fewer values than it has elements write its beginning.
    pub fn write(mut self, tensor: Tensor, values: &[f32]) -> Self {
        match self.plan.buffer_for(tensor, values.len()) {
            Ok(buffer) => self.upload(&buffer.clone(), bytemuck::cast_slice(values)),
            Err(error) => self.fail(error),
        }
        self
    }

    /// Sets the step header.
    pub fn header(mut self, header: Header) -> Self {
        self.set_header(self.plan, header);
        self
    }

    fn set_header(&mut self, plan: &'p Plan, header: Header) {
        self.upload(&plan.header.clone(), bytemuck::bytes_of(&header));
        self.headers.push((plan, header));
    }

    fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    fn upload(&mut self, buffer: &wgpu::Buffer, bytes: &[u8]) {
        if let Some(size) = NonZeroU64::new(bytes.len() as u64) {
            let belt = self.belt.get_or_insert_with(|| self.plan.gpu().take_belt());
            belt.write_buffer(&mut self.encoder, buffer, 0, size).copy_from_slice(bytes);
        }
    }

    /// Zeroes the gradients of all parameters first.
    pub fn clear_gradients(mut self, parameters: &Parameters) -> Self {
        match parameters.allocated(Role::Grad) {
            Ok(buffers) => buffers.iter().flatten().for_each(|buffer| self.encoder.clear_buffer(buffer, 0, None)),
            Err(error) => self.fail(error),
        }
        self
    }

    /// The steps that are left of `steps` without what the plan computes once and has computed for this header.
    fn due(&mut self, plan: &'p Plan, steps: &[usize]) -> Vec<usize> {
        let mut due = Vec::with_capacity(steps.len());
        for &step in steps {
            let Some(once) = plan.once().iter().position(|once| once.steps.contains(&step)) else {
                due.push(step);
                continue;
            };
            if step == plan.once()[once].steps.start {
                self.need(plan, once);
            }
            if self.last_need(plan, once).is_some_and(|need| need.encoded) {
                due.push(step);
            }
        }
        due
    }

    fn last_need(&self, plan: &Plan, once: usize) -> Option<&Need<'p>> {
        self.needs.iter().rev().find(|need| std::ptr::eq(need.plan, plan) && need.once == once)
    }

    /// Notes that what a plan computes once is needed under the header that it has here.
    fn need(&mut self, plan: &'p Plan, once: usize) {
        let set = self.headers.iter().rev().find(|(of, _)| std::ptr::eq(*of, plan));
        let header = set.map(|(_, header)| *header);
        let redraw = plan.once()[once].redraw;
        let kept = plan.kept();
        let is_there = match self.last_need(plan, once).map(|need| need.header) {
            None => kept.keys[once] == Some(redraw.key(&header.unwrap_or(kept.header))),
            Some(before) => before.map(|before| redraw.key(&before)) == header.map(|header| redraw.key(&header)),
        };
        drop(kept);
        self.needs.push(Need { plan, once, header, encoded: !is_there });
    }

    /// Encodes steps of a plan in compute passes, and ends a submit where the next step would make it too long. The first
    /// pass begins and the last one ends what a stopwatch times.
    fn encode(&mut self, plan: &'p Plan, steps: &[usize], stopwatch: Option<&Stopwatch>) {
        let steps = &self.due(plan, steps)[..];
        let speed = self.plan.gpu().speed();
        let seconds = steps.iter().map(|&step| plan.steps()[step].seconds(speed));
        let sizes = cost::submits(seconds, &mut self.pending);
        let (mut first, last) = (0, sizes.len() - 1);
        for (at, size) in sizes.into_iter().enumerate() {
            if at > 0 {
                let full = std::mem::replace(&mut self.encoder, self.plan.gpu().encoder());
                self.full.push(full.finish());
            }
            let timestamps = stopwatch.map(|stopwatch| stopwatch.writes(at == 0, at == last));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: timestamps.flatten() };
            let mut pass = self.encoder.begin_compute_pass(&descriptor);
            steps[first..first + size].iter().for_each(|&step| plan.encode_step(&mut pass, step));
            first += size;
        }
    }

    /// Encodes every step.
    pub fn steps(self) -> Self {
        self.repeat(1)
    }

    /// Encodes every step between two timestamps.
    pub fn timed_steps(mut self, stopwatch: &'p mut Stopwatch, tag: u64) -> Self {
        self.encode(self.plan, self.plan.main_steps(), Some(stopwatch));
        if let Some(ring) = stopwatch.finish(&mut self.encoder, tag) {
            self.rings.push(ring);
        }
        self
    }

    /// Copies a tensor of another plan on the same device over one of this plan. Both must be pinned and equally long.
    pub fn copy(self, from: (&Plan, Tensor), to: Tensor) -> Self {
        let plan = self.plan;
        self.copy_between(from, (plan, to))
    }

    /// Copies a tensor of a plan over one of another plan on the same device. Both must be pinned and equally long.
    pub fn copy_between(mut self, from: (&Plan, Tensor), to: (&Plan, Tensor)) -> Self {
        if from.1.bytes() != to.1.bytes() {
            self.fail(Error::Shape(format!(
                "{} cannot be copied over {}: their lengths differ",
                from.1.shape(),
                to.1.shape()
            )));
            return self;
        }
        match (from.0.buffer_for(from.1, from.1.len()), to.0.buffer_for(to.1, to.1.len())) {
            (Ok(source), Ok(target)) => self.encoder.copy_buffer_to_buffer(source, 0, target, 0, to.1.bytes()),
            (Err(error), _) | (_, Err(error)) => self.fail(error),
        }
        self
    }

    /// Encodes every step `times` times, for timing what is too short to be timed alone.
    pub fn repeat(mut self, times: usize) -> Self {
        let once = self.plan.main_steps();
        self.encode(self.plan, &once.repeat(times), None);
        self
    }

    /// Encodes the steps of an aside. They see what the last ordinary run left behind.
    pub fn aside(mut self, aside: Aside) -> Self {
        match self.plan.aside_steps(aside) {
            Ok(steps) => self.encode(self.plan, &steps, None),
            Err(error) => self.fail(error),
        }
        self
    }

    /// Encodes every step of another plan that shares buffers with this one, behind it.
    pub fn then(mut self, other: &'p Plan, header: Header) -> Self {
        self.set_header(other, header);
        self.encode(other, other.main_steps(), None);
        self
    }

    /// Sends tensors (of this plan or of one that runs with it) back through a ring, one behind the other, tagged. A full
    /// ring leaves them out; [`Ring::has_room`] tells before.
    pub fn send(mut self, ring: &'p mut Ring, tensors: &[(&Plan, Tensor)], tag: u64) -> Self {
        let source =
            |(plan, tensor): &(&Plan, Tensor)| Ok((plan.buffer_for(*tensor, tensor.len())?.clone(), tensor.bytes()));
        match tensors.iter().map(source).collect::<Result<Vec<(Buffer, u64)>>>() {
            Ok(sources) => match ring.send(&mut self.encoder, &sources, tag) {
                Ok(true) => self.rings.push(ring),
                Ok(false) => {}
                Err(error) => self.fail(error),
            },
            Err(error) => self.fail(error),
        }
        self
    }

    /// Submits the run.
    ///
    /// # Errors
    /// The first mistake in the making of the run ([`Error::Shape`]), or what [`crate::Gpu::check`] finds.
    pub fn submit(mut self) -> Result<wgpu::SubmissionIndex> {
        let gpu = self.plan.gpu();
        if let Some(error) = self.error {
            self.rings.into_iter().for_each(Ring::take_back);
            return Err(error);
        }
        let order = gpu.order();
        self.settle();
        let index = gpu.submit_all(self.full, self.encoder, self.belt);
        drop(order);
        for ring in self.rings {
            ring.request(index.clone());
        }
        let checked = gpu.check();
        if checked.is_err() {
            self.needs.iter().for_each(|need| need.plan.kept().keys[need.once] = None);
        }
        checked.map(|()| index)
    }

    /// Notes what this run leaves behind. What it relied on may be another by now, if a run that was made beside this one was
    /// submitted first: then it is computed in front.
    fn settle(&mut self) {
        let mut front = None;
        for need in &self.needs {
            let mut kept = need.plan.kept();
            let header = need.header.unwrap_or(kept.header);
            let key = need.plan.once()[need.once].redraw.key(&header);
            if !need.encoded && kept.keys[need.once] != Some(key) {
                let encoder = front.get_or_insert_with(|| need.plan.gpu().encoder());
                let belt = self.belt.get_or_insert_with(|| need.plan.gpu().take_belt());
                need.plan.encode_once(encoder, belt, need.once, &[header, kept.header]);
            }
            kept.keys[need.once] = Some(key);
        }
        self.headers.iter().for_each(|(plan, header)| plan.kept().header = *header);
        if let Some(front) = front {
            self.full.insert(0, front.finish());
        }
    }
}
