//! One mechanism on the weights of another: its rows, and how far they are from exact softmax.

use lara_models::Model;
use lara_models::train::TrainConfig;
use lara_runtime::attention::{AttentionConfig, MechanismKind, ProposalGen};
use lara_runtime::maps::map_distance;
use lara_runtime::{Gpu, Parameters, Plan, Recorder, Ring, Tensor, Tune};

use crate::error::Result;
use crate::inspector::Inspector;
use crate::map::Query;
use crate::sizes::Head;

/// How far a row is from exact softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distances {
    /// |a - b| / |b|, Euclidean.
    pub relative: f32,
    /// KL(softmax || a) in nats.
    pub divergence: f32,
    /// Half the sum of absolute differences.
    pub variation: f32,
    /// The largest difference of one weight.
    pub largest: f32,
}

/// A mechanism in the comparison.
pub struct Comparison {
    /// As it is evaluated.
    pub settled: Inspector,
    /// One for every shape that rows of a block have.
    measures: Vec<Measure>,
    /// The block that was looked at.
    layer: usize,
    distances: Vec<f32>,
}

/// How far rows of one shape are from others.
struct Measure {
    plan: Plan,
    maps: Tensor,
    reference: Tensor,
    distance: Tensor,
    ring: Ring,
}

impl Measure {
    async fn new(gpu: &Gpu, tune: &Tune, rows: Tensor) -> Result<Self> {
        let mut rec = Recorder::new(tune.clone());
        let (maps, reference) = (rec.pinned("maps", rows.shape()), rec.pinned("reference", rows.shape()));
        let distance = map_distance(&mut rec, maps, reference);
        rec.pin(distance);
        let plan = Plan::compile(gpu, rec, &Parameters::new(gpu)).await?;
        let ring = Ring::new(gpu, 2, distance.len());
        Ok(Measure { plan, maps, reference, distance, ring })
    }
}

impl Comparison {
    /// Compiles the model with another attention.
    ///
    /// # Errors
    /// Settings that contradict each other, or that need weights which the model does not have.
    pub async fn new(gpu: &Gpu, tune: &Tune, model: &Model, attention: &AttentionConfig) -> Result<Self> {
        let config = with_attention(&model.config, attention);
        config.validate()?;
        let settled = Inspector::new(gpu, tune, model, &config, false).await?;
        let mut measures: Vec<Measure> = Vec::new();
        for rows in (0..settled.sizes().layers).filter_map(|layer| settled.rows(layer)) {
            if measures.iter().all(|measure| measure.maps.shape() != rows.shape()) {
                measures.push(Measure::new(gpu, tune, rows).await?);
            }
        }
        Ok(Comparison { settled, measures, layer: 0, distances: Vec::new() })
    }

    /// Works out the rows and compares them with those of `reference`, which has looked at the same queries before.
    ///
    /// # Errors
    /// A lost device.
    pub fn look(&mut self, queries: &[Query], layer: usize, reference: &Inspector) -> Result<()> {
        self.settled.look(queries, &[layer], None)?;
        let (Some(own), Some(exact)) = (self.settled.rows(layer), reference.rows(layer)) else { return Ok(()) };
        let Some(measure) = self.measures.iter_mut().find(|measure| measure.maps.shape() == own.shape()) else {
            return Ok(());
        };
        let Measure { plan, maps, reference: other, distance, ring } = measure;
        let run = plan.run().copy((self.settled.plan(), own), *maps).copy((reference.plan(), exact), *other);
        run.steps().send(ring, &[(&*plan, *distance)], layer as u64).submit()?;
        self.layer = layer;
        Ok(())
    }

    /// Takes what has come back.
    ///
    /// # Errors
    /// A lost device.
    pub fn receive(&mut self, gpu: &Gpu) -> Result<Option<f64>> {
        for measure in &mut self.measures {
            let of_layer = measure.ring.receive(gpu)?.into_iter().rfind(|(layer, _)| *layer == self.layer as u64);
            self.distances = of_layer.map(|(_, distances)| distances).unwrap_or(std::mem::take(&mut self.distances));
        }
        Ok(self.settled.news()?.forward_ms)
    }

    /// Whether something is still on its way back.
    pub fn is_waiting(&self) -> bool {
        self.settled.is_waiting() || self.measures.iter().any(|measure| measure.ring.is_waiting())
    }

    /// How far the row of a slot is from exact softmax, once that is known.
    pub fn distances(&self, head: Head, slot: usize) -> Option<Distances> {
        let row = self.settled.block(self.layer)?.row(head, slot)?;
        let &[relative, divergence, variation, largest] = self.distances.get(row * 4..row * 4 + 4)? else {
            return None;
        };
        Some(Distances { relative, divergence, variation, largest })
    }
}

/// A configuration with this attention in every block.
pub fn with_attention(config: &TrainConfig, attention: &AttentionConfig) -> TrainConfig {
    let mut config = config.clone();
    config.model.clear_attention_layers();
    config.attention = attention.clone();
    config
}

/// Settings of a mechanism that run on the weights of `config`: LARA's landmarks are learned only where they were trained.
pub fn attention_for(config: &TrainConfig, mechanism: MechanismKind) -> AttentionConfig {
    let mut attention = config.attention.clone();
    if mechanism == MechanismKind::Lara && config.attention.mechanism != MechanismKind::Lara {
        attention.proposal_gen = ProposalGen::NoParamPool;
        let fewest = (0..config.model.depth()).map(|layer| config.model.layer(layer).places()).min();
        attention.num_landmarks = fewest.map_or(attention.num_landmarks, |places| attention.num_landmarks.min(places));
    }
    attention.causal = false;
    attention.mechanism = mechanism;
    attention
}
