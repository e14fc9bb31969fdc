//! `lara train`

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lara_models::data::augment::Recipe;
use lara_models::data::{Loader, LoaderOptions, Position, Split};
use lara_models::fit::fit;
use lara_models::train::checkpoint::TrainedModel;
use lara_models::train::{
    Checkpointing, Event, Initialized, Progress, Session, Summary, TrainConfig, Trainer, initialize,
};
use lara_runtime::profile::{self, Timing};
use lara_runtime::{Gpu, GpuOptions, Tune, bytes_from, human_bytes};

use crate::adapter::AdapterOptions;
use crate::fail::{Failure, Outcome, print, print_json};
use crate::interrupt::Interrupt;
use crate::{model, view};

/// Train a Vision Transformer.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara train --preset digits --attention lara
  lara train --preset mnist --set train.lr=5e-4 --set train.epochs=3
  lara train --preset mine.toml --attention softmax --output-dir runs/softmax
  lara train --preset digits --view
  lara train --preset deit_tiny_p16 --memory 8G --set data.path=photos/
  lara train --init hf:timm/deit_tiny_patch16_224.fb_in1k --set data.path=photos/ --set train.epochs=5 --output-dir runs/photos
  lara train --preset digits --set distill.teacher=runs/teacher --set distill.type=hard --output-dir runs/student
  lara train --resume runs/digits")]
pub(crate) struct Options {
    /// A preset (`digits`, `mnist`, `emoji`, ..) or a TOML file.
    #[arg(long, value_name = "NAME|FILE", required_unless_present_any = ["resume", "init"], conflicts_with = "resume")]
    preset: Option<String>,
    /// Begin with the weights of a trained model: a checkpoint, or `hf:ORG/NAME[@REVISION]`. The model, its attention and its
    /// normalisation are that model's, all else the preset's; a classifier for other classes begins anew.
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "resume")]
    init: Option<PathBuf>,
    /// Set a value of the configuration, for instance train.lr=1e-3; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "resume")]
    set: Vec<String>,
    /// Attention mechanism: softmax, ra, rfa, performer or lara. Short for --set attention.mechanism=...
    #[arg(long, value_name = "MECHANISM", conflicts_with = "resume")]
    attention: Option<String>,
    /// Folder for checkpoints and metrics. Short for --set output.dir=...
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    output_dir: Option<PathBuf>,
    /// Go on from a run's folder or one of its checkpoints, bit for bit as if it had not stopped.
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    /// With --resume: go on although the images have changed since the checkpoint.
    #[arg(long, requires = "resume")]
    accept_changed_data: bool,
    /// The most memory that the run may take on the device, for instance 8G: where a step needs more, the batch is split into
    /// smaller ones whose gradients are averaged, or the insides of blocks are computed twice instead of being kept.
    #[arg(long, value_name = "BYTES", value_parser = bytes_from, conflicts_with = "resume")]
    memory: Option<u64>,
    /// Before the run, time every dispatch of a step on the GPU and write a Chrome/Perfetto trace.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Print every setting that the run would have as TOML, defaults included, and do nothing else.
    #[arg(long, conflicts_with = "resume")]
    print_config: bool,
    /// Print every dispatch of the compiled step with its shapes and workgroups, then go on.
    #[arg(long)]
    print_plan: bool,
    /// Open a window on the run: its curves, and buttons to pause, step, save and stop. Closing it leaves the run going on.
    #[arg(long)]
    view: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

impl Options {
    /// The configuration of a new run, and the model that it begins with.
    fn config(&self) -> Outcome<Option<(TrainConfig, Option<TrainedModel>)>> {
        let mut sets = self.set.clone();
        sets.extend(self.attention.iter().map(|a| format!("attention={a}")));
        sets.extend(self.output_dir.iter().map(|d| format!("output.dir={}", d.display())));
        let Some(path) = &self.init else {
            let Some(preset) = &self.preset else { return Ok(None) };
            return Ok(Some((TrainConfig::load(preset, &sets)?, None)));
        };
        let (trained, config) = model::beginning(path, self.preset.as_deref(), &sets)?;
        Ok(Some((config, Some(trained))))
    }
}

pub(crate) fn run(options: &Options) -> Outcome {
    if options.view {
        view::is_there()?;
    }
    let (config, trained) = options.config()?.unzip();
    if let (true, Some(config)) = (options.print_config, &config) {
        return print_config(config);
    }
    let gpu = Gpu::open_blocking(&GpuOptions { memory_limit: options.memory, ..options.adapter.options() })?;
    let tune = Tune::measured(&gpu);
    let config = match (config, options.memory) {
        (Some(config), Some(limit)) => Some(fitted(&gpu, &tune, &config, limit)?),
        (config, _) => config,
    };
    tracing::info!("{} ({}): recording and compiling", gpu.report().name, gpu.report().backend);
    let trainer = pollster::block_on(async {
        match (&config, &options.resume) {
            (Some(config), _) => Trainer::new(&gpu, &tune, config).await,
            (None, Some(path)) if options.accept_changed_data => {
                Trainer::resume_with_changed_data(&gpu, &tune, path).await
            }
            (None, Some(path)) => Trainer::resume(&gpu, &tune, path).await,
            (None, None) => Err(lara_models::Error::BadInput("give --preset or --resume".into())),
        }
    })?;
    if let Some(trained) = trained.flatten() {
        let Initialized { taken, fresh } = initialize(&gpu, trainer.session(), &trained)?;
        let rest = if fresh.is_empty() { String::new() } else { format!("; these begin anew: {}", fresh.join(", ")) };
        tracing::info!("{taken} tensors come from {}{rest}", trained.weights.path().display());
    }
    let memory = trainer.session().memory();
    tracing::info!(
        "{} parameters; {} on the GPU: weights {}, gradients {}, optimizer {}, activations {}",
        trainer.session().parameters.count(),
        human_bytes(memory.peak()),
        human_bytes(memory.weights),
        human_bytes(memory.gradients),
        human_bytes(memory.optimizer),
        human_bytes(memory.activations)
    );
    if options.print_plan {
        trainer.session().plans().iter().for_each(print);
    }
    if let Some(file) = &options.profile {
        write_profile(&gpu, &tune, trainer.config(), file)?;
    }
    let summary = train(&gpu, &tune, trainer, options.view)?;
    if options.json {
        return print_json(&summary);
    }
    show(&summary);
    Ok(())
}

/// The configuration that stays within `limit` bytes, and a line that says what that means.
fn fitted(gpu: &Gpu, tune: &Tune, config: &TrainConfig, limit: u64) -> Outcome<TrainConfig> {
    let (fitted, needed) = fit(gpu, tune, config, limit)?;
    let train = &fitted.train;
    tracing::info!(
        "within {}: {} images at a time, {} times a step, {}; {} are expected",
        human_bytes(limit),
        train.batch_size,
        train.grad_accum_steps,
        if train.checkpoint == Checkpointing::Block { "blocks computed twice" } else { "everything kept" },
        human_bytes(needed)
    );
    Ok(fitted)
}

/// The settings, and first what follows from several of them together.
fn print_config(config: &TrainConfig) -> Outcome {
    let train = &config.train;
    print(format!(
        "# {} images a step, in {} passes",
        train.batch_size * train.grad_accum_steps,
        train.grad_accum_steps
    ));
    print(format!("# peak learning rate {:e}; {} epochs in all", train.peak_lr(), train.total_epochs()));
    print(config.to_toml()?);
    Ok(())
}

fn train(gpu: &Gpu, tune: &Tune, trainer: Trainer, in_window: bool) -> Outcome<Summary> {
    let interrupt = Interrupt::listen()?;
    let (total, done) = (trainer.total(), trainer.position());
    let bar = progress_bar(total);
    bar.set_position(done);
    bar.reset_eta();
    let shown = bar.clone();
    let listener = move |event: &Event<'_>| show_event(&shown, event);
    let result = if in_window {
        view::watch(gpu, tune, trainer, interrupt, listener)
    } else {
        pollster::block_on(trainer.run(&interrupt.control, &mut |event| listener(&event))).map_err(Failure::from)
    };
    bar.finish_and_clear();
    result
}

fn progress_bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = "{bar:30} {pos}/{len} {msg} eta {eta}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn show_event(bar: &ProgressBar, event: &Event<'_>) {
    match event {
        Event::Step(Progress { result, lr, epoch, images_per_second, .. }) => {
            bar.set_position(result.step + 1);
            bar.set_message(format!(
                "epoch {epoch:.1} loss {:.4} acc {:.1} % lr {lr:.1e} {images_per_second:.0} images/s",
                result.loss,
                100.0 * result.accuracy
            ));
        }
        Event::Evaluating { done, total } => bar.set_message(format!("evaluating {done}/{total}")),
        Event::Evaluated { epoch, evaluation, .. } => {
            let line = format!(
                "epoch {epoch}: held-out accuracy {:.2} %, loss {:.4}",
                100.0 * evaluation.accuracy,
                evaluation.loss
            );
            say(bar, &line);
        }
        Event::Saved(path) => tracing::debug!("saved {}", path.display()),
    }
}

/// Above the bar, or plainly where there is no terminal to draw one in.
fn say(bar: &ProgressBar, line: &str) {
    if bar.is_hidden() {
        eprintln!("{line}");
    } else {
        bar.println(line);
    }
}

fn show(summary: &Summary) {
    if summary.interrupted {
        let at = summary.checkpoint.as_deref().map_or_else(String::new, |p| p.display().to_string());
        print(format!("interrupted after {} steps; `lara train --resume {at}` goes on", summary.steps));
        return;
    }
    print(format!(
        "{} steps of {} parameters in {:.1} s (the first step was done after {:.1} s)",
        summary.steps, summary.parameters, summary.seconds, summary.first_step_seconds
    ));
    if let Some(evaluation) = &summary.evaluation {
        print(format!("held-out accuracy {:.2} % of {} images", 100.0 * evaluation.accuracy, evaluation.images));
    }
    if let (Some((best, step)), Some(path)) = (summary.best, &summary.checkpoint) {
        print(format!("best {:.2} % at step {step}; newest checkpoint {}", 100.0 * best, path.display()));
    }
}

/// Profiles one step of a session of its own, so that the run's weights and moments stay what they would have been.
fn write_profile(gpu: &Gpu, tune: &Tune, config: &TrainConfig, file: &Path) -> Outcome {
    let images = config.open_data(Split::Train)?;
    let recipe = Recipe::train(&config.data, &config.augment)?;
    let options = LoaderOptions::train(config.train.batch_size, config.train.seed, 0, recipe);
    let batch = Loader::new(images, options, Position::default())?.next().transpose()?;
    let mut session = pollster::block_on(Session::new(gpu, tune, config, config.schedule(1)))?;
    session.step(0, batch.as_slice())?;
    session.finish()?;
    let mut timings: Vec<Timing> = Vec::new();
    for plan in session.plans() {
        let offset = timings.last().map_or(0.0, |t| t.start_us + t.duration_us);
        let part = pollster::block_on(profile::profile(gpu, plan))?;
        timings.extend(part.into_iter().map(|t| Timing { start_us: t.start_us + offset, ..t }));
    }
    let write = |error: std::io::Error| Failure::input(format!("cannot write {}: {error}", file.display()));
    std::fs::write(file, profile::chrome_trace(&timings)).map_err(write)?;
    tracing::info!("wrote {} ({} dispatches); open it at ui.perfetto.dev", file.display(), timings.len());
    Ok(())
}
