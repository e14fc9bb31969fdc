//! One mechanism of the comparison: what is compiled for it, and what it has worked out.

use lara_explain::{Comparison, Distances, Head, Inspector, Query, with_attention};
use lara_runtime::attention::AttentionConfig;

use crate::context::Context;
use crate::error::Result;
use crate::job::{Job, Stage};

/// Redraws that are added to a deviation in one frame.
const DRAWS_A_FRAME: usize = 2;
/// Runs of a fresh plan until its time means something.
const WARM_UP: usize = 3;

/// What all columns show.
pub(super) struct Shown<'a> {
    /// The normalised image, and whether it is another one than before.
    pub(super) image: (&'a [f32], bool),
    pub(super) queries: &'a [Query],
    pub(super) layer: usize,
    /// Whether queries, layer or image are others than before.
    pub(super) moved: bool,
    /// Number of the randomness.
    pub(super) draw: u32,
    /// Redraws of the deviation; None while it is not shown.
    pub(super) redraws: Option<usize>,
}

/// A mechanism in the comparison.
pub(super) struct Column {
    /// What is wanted. While it is not what was compiled, another compile follows: one at a time, so that a slider that is
    /// moved on leaves nothing behind.
    attention: AttentionConfig,
    /// What the stages were begun for.
    begun: Option<AttentionConfig>,
    settled: Stage<Comparison>,
    /// With the noise of training and fresh projections: compiled when a deviation is asked for.
    noisy: Stage<Inspector>,
    /// Whether that was asked for.
    deviates: bool,
    forward_ms: Option<f64>,
    /// Samples in the deviation.
    samples: usize,
    is_stale: bool,
    /// Compiled in this frame.
    is_fresh: bool,
}

impl Column {
    pub(super) fn new(attention: AttentionConfig) -> Self {
        Column {
            attention,
            begun: None,
            settled: Stage::Empty,
            noisy: Stage::Empty,
            deviates: false,
            forward_ms: None,
            samples: 0,
            is_stale: true,
            is_fresh: false,
        }
    }

    pub(super) fn attention(&self) -> &AttentionConfig {
        &self.attention
    }

    /// Another mechanism or other settings. What was compiled for the last ones goes at once.
    pub(super) fn change(&mut self, attention: AttentionConfig) {
        self.attention = attention;
        if !self.is_compiling() {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        (self.settled, self.noisy, self.begun) = (Stage::Empty, Stage::Empty, None);
        (self.forward_ms, self.samples, self.deviates) = (None, 0, false);
    }

    fn is_compiling(&self) -> bool {
        self.settled.is_coming() || self.noisy.is_coming()
    }

    /// Everything is worked out again: with another draw, or beside other columns.
    pub(super) fn redo(&mut self) {
        (self.samples, self.is_stale) = (0, true);
    }

    /// The deviation begins anew.
    pub(super) fn begin_deviation(&mut self) {
        self.samples = 0;
    }

    /// What is compiled, once it is.
    pub(super) fn comparison(&self) -> Option<&Comparison> {
        if let Stage::Ready(comparison) = &self.settled { Some(comparison) } else { None }
    }

    /// The mechanism with its noise, once a deviation was asked for.
    pub(super) fn noisy(&self) -> Option<&Inspector> {
        if let Stage::Ready(noisy) = &self.noisy { Some(noisy) } else { None }
    }

    pub(super) fn is_coming(&self) -> bool {
        self.settled.is_coming()
    }

    pub(super) fn samples(&self) -> usize {
        self.samples
    }

    pub(super) fn forward_ms(&self) -> Option<f64> {
        self.forward_ms
    }

    /// How far the row in front is from exact softmax, once that is known.
    pub(super) fn distances(&self, head: Head) -> Option<Distances> {
        self.comparison()?.distances(head, 0)
    }

    /// Something is still being compiled, measured or drawn; `redraws` are wanted.
    pub(super) fn is_busy(&self, redraws: usize) -> bool {
        // What could not be compiled is not waited for.
        let can_deviate = !self.deviates || !matches!(self.noisy, Stage::Empty);
        match &self.settled {
            _ if self.begun.as_ref() != Some(&self.attention) => true,
            Stage::Empty => false,
            Stage::Coming(_) => true,
            Stage::Ready(comparison) => comparison.is_waiting() || (can_deviate && self.samples < redraws),
        }
    }

    /// Begins what has to be compiled, and takes what has been.
    pub(super) fn compile(&mut self, cx: &Context, deviates: bool) -> Result<()> {
        let settled = self.settled.settle();
        let noisy = self.noisy.settle();
        self.is_fresh = matches!(settled, Ok(true));
        self.is_stale |= self.is_fresh;
        if !self.is_compiling() {
            self.begin(cx, deviates);
        }
        settled?;
        noisy?;
        Ok(())
    }

    fn begin(&mut self, cx: &Context, deviates: bool) {
        let (gpu, tune, subject) = (cx.gpu.clone(), cx.tune.clone(), cx.subject.clone());
        let attention = self.attention.clone();
        if self.begun.as_ref() != Some(&attention) {
            // First let go of the old, then make the new: one at a time on the device.
            self.let_go();
            self.begun = Some(attention.clone());
            let work = move || async move { Comparison::new(&gpu, &tune, &subject, &attention).await };
            self.settled = Stage::Coming(Job::spawn(cx.repaint.clone(), work));
        } else if deviates && !self.deviates && self.comparison().is_some() {
            let config = with_attention(&subject.config, &attention);
            let work = move || async move { Inspector::new(&gpu, &tune, &subject, &config, true).await };
            self.noisy = Stage::Coming(Job::spawn(cx.repaint.clone(), work));
            self.deviates = true;
        }
    }

    /// Runs what is stale; true if there is more to come.
    pub(super) fn update(&mut self, cx: &Context, reference: &Inspector, shown: &Shown<'_>) -> Result<bool> {
        let Some(comparison) = self.settled.ready() else { return Ok(false) };
        let (image, is_new) = shown.image;
        let rerun = is_new || self.is_stale;
        // The first runs of a fresh plan warm the device up; the time that is shown is the last one's.
        for _ in 0..if self.is_fresh { WARM_UP } else { usize::from(rerun) } {
            comparison.settled.run(image, shown.draw)?;
            self.is_stale = false;
        }
        if rerun || shown.moved {
            comparison.look(shown.queries, shown.layer, reference)?;
            self.samples = 0;
        }
        self.forward_ms = comparison.receive(&cx.gpu)?.or(self.forward_ms);
        let mut is_waiting = comparison.is_waiting();
        let wanted = shown.redraws.unwrap_or(0);
        if let (true, Some(noisy)) = (wanted > self.samples, self.noisy.ready()) {
            if self.samples == 0 {
                noisy.look(shown.queries, &[], None)?;
            }
            for _ in 0..DRAWS_A_FRAME.min(wanted.saturating_sub(self.samples)) {
                noisy.redraw(image, shown.layer, shown.draw.wrapping_mul(65_537), self.samples as u32)?;
                self.samples += 1;
            }
            is_waiting |= self.samples < wanted;
        }
        Ok(is_waiting)
    }
}
