//! Session, loader and trainer know no images and no classes: here they train what labels every step of sequences that have
//! lengths of their own.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use lara_models::data::{Collate, Dataset, Loader, LoaderOptions, Picks, Position, Split};
use lara_models::layers::linear;
use lara_models::random::{Draws, Purpose};
use lara_models::task::{BatchOf, Objective, Score, Task};
use lara_models::train::{Checkpoint, Control, Event, Session, TrainConfig, Trainer};
use lara_models::{Error, Result, compile};
use lara_runtime::ops::CrossEntropy;
use lara_runtime::{Gpu, Init, Mode, Parameters, Plan, Role, Tape, Tensor, Tune};
use lara_tests::adapter;
use pollster::block_on;
use serde::Serialize;

/// Steps of the longest sequence.
const STEPS: usize = 7;
/// Numbers of a step.
const WIDTH: usize = 6;
/// Labels of a step.
const LABELS: usize = 4;

/// Sequences of 1 to 7 steps. The label of a step is that of its largest number among the first four.
struct Sequences(usize);

/// A sequence: numbers [steps, WIDTH] and a label for each step.
struct Sequence {
    numbers: Vec<f32>,
    labels: Vec<usize>,
}

impl Dataset for Sequences {
    type Item = Sequence;

    fn name(&self) -> &str {
        "sequences"
    }

    fn len(&self) -> usize {
        self.0
    }

    fn get(&self, index: usize) -> Result<Sequence> {
        let mut draws = Draws::new(5, Purpose::Split, 0, index as u64);
        let numbers: Vec<f32> = (0..(1 + index % STEPS) * WIDTH).map(|_| 2.0 * draws.uniform() - 1.0).collect();
        let largest = |step: &[f32]| (1..LABELS).fold(0, |best, at| if step[at] > step[best] { at } else { best });
        Ok(Sequence { labels: numbers.chunks(WIDTH).map(largest).collect(), numbers })
    }
}

/// Pads to the longest; what is padding does not count.
struct Pad;

#[derive(Clone)]
struct Padded {
    numbers: Vec<f32>,
    targets: Vec<f32>,
    indices: Vec<u32>,
}

impl Collate<Sequences> for Pad {
    type Batch = Padded;

    fn check(&self, _: &Sequences) -> Result<()> {
        Ok(())
    }

    fn collate(&self, dataset: &Sequences, picks: &Picks<'_>) -> Result<Padded> {
        let mut batch = Padded { numbers: vec![], targets: vec![], indices: picks.indices.to_vec() };
        for (at, &index) in picks.indices.iter().enumerate() {
            let Sequence { mut numbers, labels } = dataset.get(index as usize)?;
            // What is drawn for a sample is its own, whatever the batch.
            let gain = 1.0 + 0.1 * picks.of_sample(Purpose::Augment, at).uniform();
            numbers.iter_mut().for_each(|number| *number *= gain);
            numbers.resize(STEPS * WIDTH, 9.0);
            batch.numbers.extend(numbers);
            let target = |step: usize| labels.get(step).map_or(-1.0, |&label| label as f32);
            batch.targets.extend((0..STEPS).flat_map(|step| [target(step), 0.0, 0.0]));
        }
        Ok(batch)
    }
}

struct Label {
    smoothing: f32,
}

impl Label {
    fn logits(tape: &mut Tape<'_>, batch: usize) -> (Tensor, Tensor) {
        let numbers = tape.input("numbers", [batch, STEPS, WIDTH]);
        let logits = tape.scope("head", |tape| linear(tape, numbers, LABELS, true, Init::TruncNormal(0.02)));
        (numbers, logits.reshape([batch * STEPS, LABELS]))
    }
}

/// Share of the steps that get their label.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Right {
    share: f64,
    steps: usize,
}

impl Score for Right {
    fn score(&self) -> f64 {
        self.share
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("eval/right", self.share)]
    }
}

impl Task for Label {
    type Dataset = Sequences;
    type Collate = Pad;
    type Evaluator = (Plan, Tensor, Tensor);
    type Evaluation = Right;

    fn new(config: &TrainConfig) -> Result<Self> {
        Ok(Label { smoothing: config.train.smoothing as f32 })
    }

    fn open(&self, split: Split) -> Result<Arc<Sequences>> {
        Ok(Arc::new(Sequences(if split == Split::Train { 40 } else { 10 })))
    }

    fn classes(&self, _: &Sequences) -> Vec<String> {
        Vec::new()
    }

    fn collate(&self, _: Split) -> Pad {
        Pad
    }

    fn record(&self, tape: &mut Tape<'_>, batch: usize) -> Result<Objective> {
        let (numbers, logits) = Self::logits(tape, batch);
        let targets = tape.input("targets", [batch * STEPS, 3]);
        let loss = tape.apply_all(CrossEntropy { smoothing: self.smoothing }, &[logits, targets]);
        Ok(Objective { inputs: vec![numbers, targets], loss: loss[0], report: loss[1], taught: None })
    }

    fn feed<'b>(&self, batch: &'b Padded) -> Result<Vec<Cow<'b, [f32]>>> {
        Ok(vec![Cow::Borrowed(&batch.numbers), Cow::Borrowed(&batch.targets)])
    }

    fn targets(&self, batch: &Padded) -> usize {
        batch.targets.chunks(3).filter(|target| target[0] >= 0.0).count()
    }

    async fn evaluator(
        &self,
        gpu: &Gpu,
        tune: &Tune,
        weights: &mut Parameters,
        batch: usize,
    ) -> Result<Self::Evaluator> {
        let compiled = compile(gpu, tune, weights, Mode::Eval, &[Role::Weight], |tape| {
            let (numbers, logits) = Self::logits(tape, batch);
            tape.rec.pin(logits);
            Ok::<_, Error>((numbers, logits))
        });
        let (plan, (numbers, logits)) = compiled.await?;
        Ok((plan, numbers, logits))
    }

    async fn evaluate(
        &self,
        (plan, numbers, logits): &Self::Evaluator,
        dataset: &Arc<Sequences>,
        mut go_on: impl FnMut(usize) -> bool,
    ) -> Result<Option<Right>> {
        let options = LoaderOptions::eval(numbers.dims()[0], 0, Pad);
        let (mut right, mut steps, mut done) = (0, 0, 0);
        for batch in Loader::new(dataset.clone(), options, Position::default())? {
            let batch = batch?;
            plan.run().write(*numbers, &batch.numbers).steps().submit()?;
            let logits = plan.read(*logits).await?;
            for (logits, target) in logits.chunks(LABELS).zip(batch.targets.chunks(3)).filter(|(_, t)| t[0] >= 0.0) {
                let best = (1..LABELS).fold(0, |best, at| if logits[at] > logits[best] { at } else { best });
                right += usize::from(best == target[0] as usize);
                steps += 1;
            }
            done += batch.indices.len();
            if !go_on(done) {
                return Ok(None);
            }
        }
        Ok(Some(Right { share: right as f64 / steps as f64, steps }))
    }
}

fn tune() -> Tune {
    Tune::fixed(&[])
}

fn config(sets: &[&str]) -> TrainConfig {
    let mut all = vec!["train.batch_size=8", "train.lr=0.1", "train.min_lr=0.01", "train.warmup_epochs=0"];
    all.extend(["train.epochs=30", "train.smoothing=0", "train.weight_decay=0", "train.model_ema=false"]);
    all.extend(sets);
    TrainConfig::load("digits", &all).unwrap_or_else(|e| panic!("{e}"))
}

/// The weights after one plain step on these batches.
fn after_a_step(sets: &[&str], batches: &[BatchOf<Label>]) -> (Vec<Vec<f32>>, f64) {
    // Epsilon is so large that Adam's step is in proportion to the gradient.
    let config = config(&[&["train.eps=100", "train.lr=100", "train.min_lr=100", "train.clip_grad=0"], sets].concat());
    let task = Label::new(&config).unwrap();
    let tune = tune();
    let session = Session::of(task, adapter(), &tune, &config, config.schedule(100));
    let mut session = block_on(session).unwrap_or_else(|e| panic!("{e}"));
    session.step(0, batches).unwrap();
    let result = session.finish().unwrap()[0];
    (block_on(session.parameters.read(adapter(), Role::Weight)).unwrap(), result.loss)
}

/// A step over micro-batches is the step over their targets, however many each of them has.
#[test]
fn micro_batches_weigh_as_many_as_their_targets() {
    let pick = |indices: &[u32]| {
        let picks = Picks { indices, position: Position::default(), seed: 1, begin: 0, repeats: 1 };
        Pad.collate(&Sequences(40), &picks).unwrap()
    };
    // Sequences of one and two steps, and of six and seven.
    let (short, long, all) = (pick(&[0, 1]), pick(&[5, 6]), pick(&[0, 1, 5, 6]));
    let task = Label { smoothing: 0.0 };
    assert_eq!([&short, &long, &all].map(|batch| task.targets(batch)), [3, 13, 16]);
    let two = ["train.batch_size=2", "train.grad_accum_steps=2"];
    let (by_parts, loss_by_parts) = after_a_step(&two, &[short, long]);
    let (at_once, loss) = after_a_step(&["train.batch_size=4"], &[all]);
    assert!((loss_by_parts - loss).abs() < 1e-6, "the loss is {loss_by_parts}, not {loss}");
    let difference = |(a, b): (&f32, &f32)| (a - b).abs();
    let largest = by_parts.iter().flatten().zip(at_once.iter().flatten()).map(difference).fold(0.0, f32::max);
    assert!(largest < 2e-6, "the weights differ by {largest}");
}

#[test]
fn sequences_are_learnt_saved_and_resumed() {
    let temp = tempfile::tempdir().unwrap();
    let train = |name: &str, stop: bool| {
        let dir = format!("output.dir={}", temp.path().join(name).display());
        let config = config(&[&dir, "data.workers=2"]);
        let trainer = block_on(Trainer::<Label>::start(adapter(), &tune(), &config)).unwrap_or_else(|e| panic!("{e}"));
        let (control, mut steps) = (Control::new(), 0);
        let ended = block_on(trainer.run(&control, &mut |event| {
            if let Event::Step(_) = event {
                steps += 1;
                if stop && steps == 70 {
                    control.stop();
                }
            }
        }));
        (config.output.dir, ended.unwrap_or_else(|e| panic!("{e}")))
    };
    let (whole, summary) = train("whole", false);
    let right = summary.evaluation.expect("it was evaluated");
    assert_eq!(right.steps, 34);
    assert!(right.share > 0.9, "{right:?}");
    assert_eq!(summary.best.map(|(score, _)| score >= right.share), Some(true));
    let (stopped, summary) = train("stopped", true);
    assert!(summary.interrupted);
    let trainer = block_on(Trainer::<Label>::go_on(adapter(), &tune(), &stopped, false)).unwrap();
    block_on(trainer.run(&Control::new(), &mut |_| {})).unwrap();
    let newest = |dir: &std::path::Path| {
        let weights = Checkpoint::load(dir).unwrap();
        let wanted = [("head.weight", vec![LABELS, WIDTH]), ("head.bias", vec![LABELS])];
        weights.weights(&wanted).unwrap().concat().iter().map(|value| value.to_bits()).collect::<Vec<u32>>()
    };
    assert_eq!(newest(&whole), newest(&stopped));
    let metrics = std::fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"eval/right\""), "{metrics}");
}

#[test]
fn what_is_drawn_for_a_sample_is_its_own_in_every_batch() {
    let all = |batch_size, workers| {
        let options = LoaderOptions::train(batch_size, 3, workers, Pad);
        let loader = Loader::new(Arc::new(Sequences(40)), options, Position::default()).unwrap();
        let batches = loader.take(40 / batch_size).map(Result::unwrap);
        let samples = batches.flat_map(|batch| {
            let numbers: Vec<Vec<u32>> =
                batch.numbers.chunks(STEPS * WIDTH).map(|n| n.iter().map(|x| x.to_bits()).collect()).collect();
            batch.indices.into_iter().zip(numbers)
        });
        samples.collect::<BTreeSet<(u32, Vec<u32>)>>()
    };
    let one_by_one = all(1, 0);
    assert_eq!(one_by_one.len(), 40);
    assert_eq!(all(8, 3), one_by_one);
}
