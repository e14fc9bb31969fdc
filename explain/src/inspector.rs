//! A model under inspection: its forward pass, and for any query the row of attention that each head implies.
//!
//! No mechanism has to have an N x N matrix for that. An attention output is linear in the values, so with a gradient of
//! the output that is 1 at query n, channel r, the gradient of the values is the weight of every key, in channel r: one
//! vector-Jacobian product gives a row for every head, as many rows as a head has channels, in the time and memory of
//! the mechanism's backward pass.

use std::sync::Arc;

use lara_models::train::TrainConfig;
use lara_models::{Model, Network, Site, compile};
use lara_runtime::maps::{collect_rows, map_range, moments, select_rows};
use lara_runtime::profile::Stopwatch;
use lara_runtime::{Aside, Gpu, Header, Mode, Parameters, Plan, Ring, Role, Tape, Tensor, Tune};

use crate::error::{Error, Result};
use crate::map::{Kind, Map, Query};
use crate::rolling::Rolling;
use crate::sizes::{Head, Sizes};
use crate::source::{MapSource, ScaleEnd};

/// What a block shows.
#[derive(Clone, Copy, Debug)]
struct Layer {
    sizes: Sizes,
    /// [slots, queries]: what rows are wanted. Blocks with as many queries share it.
    select: Tensor,
    /// Works out the rows.
    aside: Aside,
    /// [slots, heads + 1, tokens]; the last of the second dimension is the mean.
    rows: Tensor,
    /// [slots, heads + 1, 2]: smallest and largest weight of a patch.
    range: Tensor,
    /// Deviation over redraws, where there is noise.
    spread: Option<Spread>,
}

/// Standard deviation of the rows over redraws of the randomness.
#[derive(Clone, Copy, Debug)]
struct Spread {
    /// Takes one more sample.
    aside: Aside,
    /// [slots, heads + 1, tokens].
    deviation: Tensor,
    /// [slots, heads + 1, 2].
    range: Tensor,
}

/// Numbers that came back since the last look; nothing of it is needed to paint.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// Logits of the image.
    pub logits: Option<Vec<f32>>,
    /// Milliseconds of the newest forward pass on the GPU.
    pub forward_ms: Option<f64>,
    /// A block and its rows, [slots, heads + 1, tokens], for labels.
    pub rows: Option<(usize, Vec<f32>)>,
    /// The first slot's rollout, `[tokens]`, for labels.
    pub rolled: Option<Vec<f32>>,
}

/// Why there is no rollout.
pub const NOT_SQUARE: &str = "a rollout multiplies the blocks' matrices, which takes the same tokens in every block, as queries and as keys; this model's \
     blocks have others";

/// A compiled model under inspection.
pub struct Inspector {
    gpu: Gpu,
    plan: Arc<Plan>,
    config: TrainConfig,
    images: Tensor,
    logits: Tensor,
    layers: Vec<Layer>,
    /// Where every block has the same tokens as queries and as keys.
    rolling: Option<Rolling>,
    logits_ring: Ring,
    rows_ring: Ring,
    rolled_ring: Ring,
    stopwatch: Option<Stopwatch>,
    queries: Vec<Query>,
}

impl Inspector {
    /// Records and compiles `config` over the model's weights. With `noise` the proposals get the noise of training and
    /// projections are drawn anew for every draw; otherwise the model is as in evaluation.
    ///
    /// # Errors
    /// A model that does not fit the adapter, or weights that do not fit the configuration.
    pub async fn new(gpu: &Gpu, tune: &Tune, model: &Model, config: &TrainConfig, noise: bool) -> Result<Self> {
        let record = |tape: &mut Tape<'_>| Recorded::of(tape, config, &*config.build()?, noise);
        let (plan, recorded) = model.compile(gpu, tune, config, Mode::Inspect { noise }, record).await?;
        Ok(Self::around(gpu, config, plan, recorded))
    }

    /// The same for any network, over parameters that are uploaded by the caller. Of `config` the image's shape and the seed
    /// count. Sizes are those of what the network records: blocks may differ in heads, and queries and keys may lie on grids
    /// of their own.
    ///
    /// # Errors
    /// A model that does not fit the adapter, or one without attention.
    pub async fn over(
        gpu: &Gpu,
        tune: &Tune,
        parameters: &mut Parameters,
        config: &TrainConfig,
        network: &dyn Network,
        noise: bool,
    ) -> Result<Self> {
        let record = |tape: &mut Tape<'_>| Recorded::of(tape, config, network, noise);
        let (plan, recorded) = compile(gpu, tune, parameters, Mode::Inspect { noise }, &[Role::Weight], record).await?;
        Ok(Self::around(gpu, config, plan, recorded))
    }

    fn around(gpu: &Gpu, config: &TrainConfig, plan: Plan, recorded: Recorded) -> Self {
        let Recorded { images, logits, layers, rolling } = recorded;
        let largest = layers.iter().map(|layer| layer.rows.len()).max().unwrap_or(0);
        let rolled = layers.first().map_or(0, |first| first.sizes.slots * first.sizes.tokens());
        Inspector {
            gpu: gpu.clone(),
            plan: Arc::new(plan),
            config: config.clone(),
            images,
            logits,
            layers,
            rolling,
            logits_ring: Ring::new(gpu, 2, logits.len()),
            rows_ring: Ring::new(gpu, 2, largest),
            rolled_ring: Ring::new(gpu, 2, rolled),
            stopwatch: Stopwatch::new(gpu),
            queries: Vec::new(),
        }
    }

    /// Sizes of the first block. Queries are counted on its grid; on that of another block they are where they are in the
    /// image.
    pub fn sizes(&self) -> Sizes {
        self.layers[0].sizes
    }

    /// Sizes of a block.
    pub fn block(&self, layer: usize) -> Option<Sizes> {
        self.layers.get(layer).map(|layer| layer.sizes)
    }

    /// Sizes of all blocks.
    pub fn blocks(&self) -> Vec<Sizes> {
        self.layers.iter().map(|layer| layer.sizes).collect()
    }

    /// Whether [`Inspector::roll_out`] works: every block has the same tokens as queries and as keys.
    pub fn rolls(&self) -> bool {
        self.rolling.is_some()
    }

    /// The configuration that was compiled.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The compiled plan: listing and memory.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Runs the model on a normalised image [channels, size, size]. `draw` numbers the randomness.
    ///
    /// # Errors
    /// A lost device.
    pub fn run(&mut self, image: &[f32], draw: u32) -> Result<()> {
        let (plan, header) = (self.plan.clone(), self.header(draw));
        let run = plan.run().write(self.images, image).header(header);
        let run = match &mut self.stopwatch {
            Some(stopwatch) => run.timed_steps(stopwatch, u64::from(draw)),
            None => run.steps(),
        };
        run.send(&mut self.logits_ring, &[(&plan, self.logits)], u64::from(draw)).submit()?;
        Ok(())
    }

    /// Works out the rows of `queries` (the first [`crate::SLOTS`] of them) in these blocks, and sends those of `report` back for
    /// labels. Returns the slots that are filled.
    ///
    /// # Errors
    /// A lost device.
    pub fn look(&mut self, queries: &[Query], layers: &[usize], report: Option<usize>) -> Result<usize> {
        self.keep(queries);
        let plan = self.plan.clone();
        let mut run = plan.run();
        for (select, values) in self.selections() {
            run = run.write(select, &values);
        }
        for layer in layers.iter().filter_map(|&at| self.layers.get(at)) {
            run = run.aside(layer.aside);
        }
        if let Some((at, layer)) = report.and_then(|at| Some((at, self.layers.get(at)?))) {
            run = run.send(&mut self.rows_ring, &[(&plan, layer.rows)], at as u64);
        }
        run.submit()?;
        Ok(self.queries.len())
    }

    /// Keeps the queries that there are, as many as there are slots.
    fn keep(&mut self, queries: &[Query]) {
        let sizes = self.sizes();
        self.queries = queries.iter().copied().filter(|query| sizes.selection(*query).is_some()).collect();
        self.queries.truncate(sizes.slots);
    }

    /// The queries as each selection [slots, queries] wants them.
    fn selections(&self) -> Vec<(Tensor, Vec<f32>)> {
        let from = self.sizes().query_grid;
        let mut selections: Vec<(Tensor, Vec<f32>)> = Vec::new();
        for Layer { sizes, select, .. } in &self.layers {
            if selections.iter().any(|(known, _)| known == select) {
                continue;
            }
            let rows = self.queries.iter().filter_map(|query| sizes.selection(sizes.project(*query, from)));
            let mut values: Vec<f32> = rows.flatten().collect();
            values.resize(select.len(), 0.0);
            selections.push((*select, values));
        }
        selections
    }

    /// Runs the model once more with other randomness and adds the rows of a block to their running deviation; sample 0
    /// begins anew. The queries are those of the last look.
    ///
    /// # Errors
    /// A lost device.
    pub fn redraw(&mut self, image: &[f32], layer: usize, first_draw: u32, sample: u32) -> Result<()> {
        let Some(layer) = self.layers.get(layer).copied() else { return Ok(()) };
        let Some(spread) = layer.spread else { return Ok(()) };
        let header = Header { micro_step: sample, ..self.header(first_draw.wrapping_add(sample)) };
        let run = self.plan.run().write(self.images, image).header(header).steps();
        run.aside(layer.aside).aside(spread.aside).submit()?;
        Ok(())
    }

    fn header(&self, draw: u32) -> Header {
        let seed = self.config.train.seed;
        Header { step: draw, seed: [seed as u32, (seed >> 32) as u32], ..Header::default() }
    }

    /// Where the deviation of a row over redraws lies, and its scale.
    pub fn deviation(&self, layer: usize, head: Head, slot: usize) -> Option<(MapSource, ScaleEnd)> {
        let Layer { spread, sizes, .. } = self.layers.get(layer)?;
        let (spread, row) = ((*spread)?, sizes.row(head, slot)?);
        let at = row * sizes.tokens() + sizes.prefix;
        let source = MapSource { buffer: self.plan.buffer(spread.deviation)?.clone(), at };
        Some((source, ScaleEnd { buffer: self.plan.buffer(spread.range)?.clone(), index: row }))
    }

    /// The queries of the slots, as [`Inspector::look`] was given them.
    pub fn queries(&self) -> &[Query] {
        &self.queries
    }

    /// Where the row of a slot lies, for painting.
    pub fn source(&self, layer: usize, head: Head, slot: usize) -> Option<MapSource> {
        let Layer { rows, sizes, .. } = self.layers.get(layer)?;
        let row = sizes.row(head, slot)?;
        let buffer = self.plan.buffer(*rows)?.clone();
        Some(MapSource { buffer, at: row * sizes.tokens() + sizes.prefix })
    }

    /// The scale of that row: up to its own largest weight.
    pub fn scale(&self, layer: usize, head: Head, slot: usize) -> Option<ScaleEnd> {
        let layer = self.layers.get(layer)?;
        let index = layer.sizes.row(head, slot)?;
        Some(ScaleEnd { buffer: self.plan.buffer(layer.range)?.clone(), index })
    }

    /// The tensor of a block's rows, for a plan that copies it.
    pub fn rows(&self, layer: usize) -> Option<Tensor> {
        self.layers.get(layer).map(|layer| layer.rows)
    }

    /// Works out the rollout rows of `queries` (the first [`crate::SLOTS`] of them): heads averaged, nothing discarded,
    /// all layers in one submit. The first one comes back for labels. Returns the slots that are filled.
    ///
    /// The layers' own rows are overwritten; whoever shows them looks again.
    ///
    /// # Errors
    /// Blocks whose matrices cannot be multiplied, or a lost device.
    pub fn roll_out(&mut self, queries: &[Query]) -> Result<usize> {
        self.keep(queries);
        let (Some(rolling), [(select, values)]) = (&self.rolling, &self.selections()[..]) else {
            return Err(Error::BadInput(NOT_SQUARE.into()));
        };
        let plan = self.plan.clone();
        let mut run = plan.run().write(*select, values);
        for (layer, &rolls_on) in self.layers.iter().zip(&rolling.asides).rev() {
            run = run.aside(layer.aside).aside(rolls_on);
        }
        let run = run.copy((&plan, *select), rolling.rolled).aside(rolling.finish);
        run.send(&mut self.rolled_ring, &[(&plan, rolling.rolled)], 0).submit()?;
        Ok(self.queries.len())
    }

    /// Where a slot's rollout lies, and its scale.
    pub fn rolled(&self, slot: usize) -> Option<(MapSource, ScaleEnd)> {
        let sizes = self.sizes();
        let Rolling { rolled, range, .. } = self.rolling.as_ref().filter(|_| slot < sizes.slots)?;
        let source = MapSource { buffer: self.plan.buffer(*rolled)?.clone(), at: slot * sizes.tokens() + sizes.prefix };
        Some((source, ScaleEnd { buffer: self.plan.buffer(*range)?.clone(), index: slot }))
    }

    /// Reads the rollout rows [slots, tokens]: for tests and files.
    pub fn read_rolled(&self) -> impl Future<Output = Result<Vec<f32>>> + use<> {
        let (plan, rolled) = (self.plan.clone(), self.rolling.as_ref().map(|rolling| rolling.rolled));
        async move {
            let rolled = rolled.ok_or_else(|| Error::BadInput(NOT_SQUARE.into()))?;
            Ok(plan.read(rolled).await?)
        }
    }

    /// Whether something is still on its way back.
    pub fn is_waiting(&self) -> bool {
        self.logits_ring.is_waiting() || self.rows_ring.is_waiting() || self.rolled_ring.is_waiting()
    }

    /// What came back since the last call.
    ///
    /// # Errors
    /// A lost device.
    pub fn news(&mut self) -> Result<News> {
        let logits = self.logits_ring.receive(&self.gpu)?.pop().map(|(_, values)| values);
        let rows = self.rows_ring.receive(&self.gpu)?.pop().map(|(layer, mut values)| {
            // The ring is as large as the largest block's rows.
            values.truncate(self.layers.get(layer as usize).map_or(0, |layer| layer.rows.len()));
            (layer as usize, values)
        });
        let tokens = self.sizes().tokens();
        let rolled = self.rolled_ring.receive(&self.gpu)?.pop().map(|(_, mut values)| {
            // The first slot's.
            values.truncate(tokens);
            values
        });
        let times = match &mut self.stopwatch {
            Some(stopwatch) => stopwatch.receive(&self.gpu)?,
            None => Vec::new(),
        };
        Ok(News { logits, rows, rolled, forward_ms: times.last().map(|(_, ms)| *ms) })
    }

    /// Reads the logits of the last run: for files and results.
    pub fn read_logits(&self) -> impl Future<Output = Result<Vec<f32>>> + use<> {
        let (plan, logits) = (self.plan.clone(), self.logits);
        async move { Ok(plan.read(logits).await?) }
    }

    /// Reads the rows of the current queries in these blocks, every head and the mean: for files, not for painting.
    pub fn read_maps(
        &self,
        mechanism: &str,
        layers: &[usize],
        heads: &[Head],
    ) -> impl Future<Output = Result<Vec<Map>>> + use<> {
        let plan = self.plan.clone();
        let wanted: Vec<(usize, Layer)> = layers.iter().filter_map(|&at| Some((at, *self.layers.get(at)?))).collect();
        let (queries, heads, mechanism) = (self.queries.clone(), heads.to_vec(), mechanism.to_owned());
        let from = self.sizes().query_grid;
        async move {
            let mut maps = Vec::new();
            for (layer, Layer { rows, sizes, .. }) in wanted {
                let values = plan.read(rows).await?;
                let rows: Vec<&[f32]> = values.chunks(sizes.tokens()).collect();
                for (slot, &query) in queries.iter().enumerate() {
                    for &head in &heads {
                        let row = sizes.row(head, slot).and_then(|at| rows.get(at));
                        let head = if let Head::One(head) = head { Some(head) } else { None };
                        maps.extend(row.map(|values| Map {
                            mechanism: mechanism.clone(),
                            kind: Kind::Attention,
                            layer: Some(layer),
                            head,
                            query: sizes.project(query, from),
                            query_grid: sizes.query_grid,
                            grid: sizes.grid,
                            prefix: sizes.prefix,
                            values: values.to_vec(),
                        }));
                    }
                }
            }
            Ok(maps)
        }
    }
}

/// The tensors of a recorded model.
struct Recorded {
    images: Tensor,
    logits: Tensor,
    layers: Vec<Layer>,
    rolling: Option<Rolling>,
}

impl Recorded {
    fn of(tape: &mut Tape<'_>, config: &TrainConfig, network: &dyn Network, noise: bool) -> Result<Self> {
        let inputs = config.model.declare(tape, 1);
        let mut layers: Vec<Layer> = Vec::new();
        let mut hook = |tape: &mut Tape<'_>, site: &Site<'_>| {
            let sizes = Sizes::of_site(site);
            let shared = layers.iter().find(|layer| layer.select.dims() == [sizes.slots, sizes.queries()]);
            let select = shared.map(|layer| layer.select);
            let select = select.unwrap_or_else(|| tape.input("select", [sizes.slots, sizes.queries()]));
            let mut layer = record(tape, site, select, sizes);
            layer.spread = noise.then(|| record_spread(tape, layer.rows, sizes));
            layers.push(layer);
        };
        let logits = network.forward_hooked(tape, &inputs, &mut hook).first();
        tape.rec.pin(logits);
        let rolling = record_rolling(tape, &layers);
        // A mistake of the recording comes before what it does not have.
        tape.rec.finish()?;
        if layers.is_empty() {
            return Err(Error::BadInput("this model has no attention to look at".into()));
        }
        let mut all: Vec<Sizes> = layers.iter().map(|layer| layer.sizes).collect();
        Sizes::agree(&mut all);
        layers.iter_mut().zip(all).for_each(|(layer, sizes)| layer.sizes = sizes);
        Ok(Recorded { images: inputs[0], logits, layers, rolling })
    }
}

/// Records what shows a block's attention, right behind it, as an aside.
fn record(tape: &mut Tape<'_>, site: &Site<'_>, select: Tensor, sizes: Sizes) -> Layer {
    let output = site.output;
    let rows = tape.rec.pinned("rows", [sizes.slots, sizes.heads + 1, sizes.tokens()]);
    let mut range = rows;
    let aside = tape.aside(|tape| {
        let dout = tape.rec.scratch("dout", output.shape());
        select_rows(&mut tape.rec, select, dout);
        tape.backward(&[(output, dout)]);
        if let Some(dv) = tape.gradient(site.qkv.v) {
            collect_rows(&mut tape.rec, dv, rows);
        }
        range = map_range(&mut tape.rec, rows, sizes.prefix);
        tape.rec.pin(range);
    });
    tape.unwatch(output);
    Layer { sizes, select, aside, rows, range, spread: None }
}

/// Records the rollout, where the blocks' matrices can be multiplied: the same queries in all, which are the keys.
fn record_rolling(tape: &mut Tape<'_>, layers: &[Layer]) -> Option<Rolling> {
    let first = layers.first()?;
    let fits = |layer: &Layer| layer.select == first.select && layer.sizes.is_square();
    let rows: Vec<Tensor> = layers.iter().filter(|layer| fits(layer)).map(|layer| layer.rows).collect();
    (rows.len() == layers.len()).then(|| Rolling::record(tape, first.select, &rows, first.sizes.prefix))
}

/// Records what takes one more sample of the rows, as an aside.
fn record_spread(tape: &mut Tape<'_>, rows: Tensor, sizes: Sizes) -> Spread {
    let (mut deviation, mut range) = (rows, rows);
    let aside = tape.aside(|tape| {
        deviation = moments(&mut tape.rec, rows).deviation;
        range = map_range(&mut tape.rec, deviation, sizes.prefix);
        tape.rec.pin(deviation);
        tape.rec.pin(range);
    });
    Spread { aside, deviation, range }
}
