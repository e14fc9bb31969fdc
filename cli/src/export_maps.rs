//! `lara export-maps`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lara_models::data::{Augment, ImageShape, picture};
use lara_models::random::{Draws, Purpose};
use lara_models::train::TrainConfig;
use lara_models::train::config::DatasetKind;
use lara_models::{softmax, top};
use lara_runtime::Gpu;
use lara_runtime::attention::{MechanismKind, ProposalGen};
use lara_viewer::Colormap;
use lara_viewer::export::compute::{Asked, Heads, Pick, Selection, rows};
use lara_viewer::export::{Format, Picture, Sheet, Style, folder_names, write};
use serde::Serialize;

use crate::AdapterOptions;
use crate::fail::{Failure, Outcome, print, print_json};
use crate::model::{self, Model};

/// Write attention maps of images as pictures, arrays or a page.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara export-maps runs/digits seven.png --format html --out maps/
  lara export-maps runs/digits *.png --layer 0,2 --head all --query center --format png,svg --out maps/
  lara export-maps runs/digits seven.png --mechanism softmax,lara --query 3,4 --shared --out maps/
  lara export-maps runs/digits seven.png --mechanism lara:num_landmarks=4,lara:num_landmarks=16 --out maps/
  lara export-maps runs/digits seven.png --head all --format npy,safetensors --json --out maps/

Every image has a folder of its own below DIR. Pictures are named by mechanism, layer, head and query.")]
pub(crate) struct Options {
    /// A run's folder (its best checkpoint, else its newest), a checkpoint, or a safetensors file.
    checkpoint: PathBuf,
    /// PNG or JPEG files.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Folder for the files; created if need be, files of the same names are replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Blocks, from 0: `all` or numbers with commas.
    #[arg(long, value_name = "all|N[,N]", default_value = "all")]
    layer: Pick,
    /// Heads, from 0: their mean, all or some of them.
    #[arg(long, value_name = "mean|all|N[,N]", default_value = "mean")]
    head: Heads,
    /// Whose attention: the mean of all queries, the class token's, that of the patch in the middle or of another. May be
    /// given several times.
    #[arg(long, value_name = "mean|class|center|ROW,COL", default_value = "mean")]
    query: Vec<Asked>,
    /// Mechanisms over the same weights, with commas; settings of one follow it after colons. Without this option the
    /// checkpoint's own.
    #[arg(long, value_name = "NAME[:KEY=VALUE..]", value_delimiter = ',')]
    mechanism: Vec<String>,
    /// Kinds of files, with commas: png, svg, npy, safetensors, html.
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', default_value = "png", value_parser = Format::from_name)]
    format: Vec<Format>,
    /// Colours: viridis, magma, inferno, plasma, cividis, diverging.
    #[arg(long, value_name = "NAME", default_value = "viridis", value_parser = colormap)]
    colormap: Colormap,
    /// How much the colours cover the image, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.6)]
    opacity: f32,
    /// Colours by the logarithm.
    #[arg(long)]
    log: bool,
    /// One scale for all maps of an image, to compare them.
    #[arg(long)]
    shared: bool,
    /// The maps alone, without the image under them.
    #[arg(long)]
    bare: bool,
    /// Configuration for a file that carries none: `digits`, `mnist` or a TOML file.
    #[arg(long, value_name = "NAME|FILE")]
    preset: Option<String>,
    /// Set a value of the configuration for every mechanism; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the written files as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterOptions,
}

/// What was written for an image.
#[derive(Serialize)]
struct Exported {
    image: PathBuf,
    predictions: Vec<Prediction>,
    maps: Vec<String>,
    files: Vec<PathBuf>,
}

#[derive(Clone, Serialize)]
struct Prediction {
    mechanism: String,
    class: String,
    probability: f64,
}

/// One way to run the weights.
struct Variant {
    /// What the maps are called; the blocks' own mechanisms if there is none.
    name: Option<String>,
    sets: Vec<String>,
}

/// An image with what was found out about it so far.
struct Subject {
    /// As the model reads it, before normalisation.
    pixels: Vec<f32>,
    sheet: Sheet,
    predictions: Vec<Prediction>,
}

fn colormap(name: &str) -> Result<Colormap, String> {
    Colormap::from_name(name).ok_or_else(|| {
        let known: Vec<&str> =
            Colormap::SEQUENTIAL.into_iter().chain([Colormap::Diverging]).map(Colormap::name).collect();
        format!("there is no colour scale `{name}`; there are {}", known.join(", "))
    })
}

pub(crate) fn run(options: &Options) -> Outcome {
    if !(0.0..=1.0).contains(&options.opacity) {
        return Err(Failure::input(format!("--opacity is {}; it goes from 0 to 1", options.opacity)));
    }
    let variants = variants(options)?;
    let gpu = options.adapter.open()?;
    let progress = Progress::new((variants.len() + 1) * options.images.len());
    let mut subjects: Vec<Subject> = Vec::new();
    for variant in &variants {
        let name = variant.name.as_deref().unwrap_or("the checkpoint's attention");
        progress.say(&format!("compiling {name}"));
        let model = model::load(&gpu, &options.checkpoint, options.preset.as_deref(), &variant.sets, 1, true)?;
        if subjects.is_empty() {
            subjects = open_images(options, &model, &gpu)?;
        }
        for (subject, path) in subjects.iter_mut().zip(&options.images) {
            progress.say(&format!("{name}, {}", path.display()));
            look(options, variant, &model, subject)?;
            progress.step();
        }
    }
    let stems: Vec<String> = subjects.iter().map(|subject| stem(&subject.sheet.image_name)).collect();
    let mut exported = Vec::new();
    for ((subject, folder), image) in subjects.into_iter().zip(folder_names(&stems)).zip(&options.images) {
        progress.say(&format!("writing {folder}"));
        exported.push(save(options, subject, &folder, image)?);
        progress.step();
    }
    progress.bar.finish_and_clear();
    if options.json {
        return print_json(&exported);
    }
    exported.iter().flat_map(|image| &image.files).for_each(|file| print(file.display()));
    Ok(())
}

/// The mechanisms that were asked for, each with the settings that make it.
fn variants(options: &Options) -> Outcome<Vec<Variant>> {
    if options.mechanism.is_empty() {
        return Ok(vec![Variant { name: None, sets: options.set.clone() }]);
    }
    let several = |kind: &str| options.mechanism.iter().filter(|m| m.split(':').next() == Some(kind)).count() > 1;
    let variant = |text: &String| {
        let mut parts = text.split(':').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let own: Vec<&str> = parts.collect();
        // The short form, which also clears a list of single blocks: it would win over the mechanism.
        let mut sets = vec![format!("attention={kind}")];
        sets.extend(options.set.iter().cloned());
        sets.extend(own.iter().map(|set| format!("attention.{}", set.strip_prefix("attention.").unwrap_or(set))));
        let mut name = kind.to_owned();
        if several(kind) {
            name = [&[kind][..], &own].concat().join(", ");
        }
        if lacks_landmarks(options, &sets)? {
            sets.push("attention.proposal_gen=no-param-pool".into());
            name.push_str(", no-param-pool");
            let file = options.checkpoint.display();
            tracing::warn!("{file} has no landmark weights: {kind} runs with attention.proposal_gen=no-param-pool");
        }
        Ok(Variant { name: Some(name), sets })
    };
    options.mechanism.iter().map(variant).collect()
}

/// Whether LARA needs landmark generators that the checkpoint was not trained with, and nobody chose how to do without.
fn lacks_landmarks(options: &Options, sets: &[String]) -> Outcome<bool> {
    let (trained, config) = model::open(&options.checkpoint, options.preset.as_deref(), sets)?;
    let learned = !matches!(config.attention.proposal_gen, ProposalGen::NoParamPool | ProposalGen::NoParamPoolMixed);
    let chosen = sets.iter().any(|set| set.contains("proposal_gen"));
    let has = trained.weights.names().any(|name| name.contains("_landmarks"));
    Ok(config.attention.mechanism == MechanismKind::Lara && learned && !chosen && !has)
}

/// Every image is read before the first is looked at: a bad one is told at once.
fn open_images(options: &Options, model: &Model, gpu: &Gpu) -> Outcome<Vec<Subject>> {
    let shape = shape(&model.config);
    Augment::eval(&model.config.data).check(shape.channels)?;
    let style = Style {
        colormap: options.colormap,
        opacity: options.opacity,
        log_scale: options.log,
        shared_range: None,
        bare: options.bare,
    };
    let notes = vec![
        ("checkpoint".to_owned(), options.checkpoint.display().to_string()),
        ("adapter".to_owned(), gpu.report().name.clone()),
    ];
    let subject = |path: &PathBuf| {
        let pixels = read(path, &model.config)?;
        let picture = Picture::from_planes(shape.channels, shape.height, shape.width, &pixels)?;
        let image_name = path.file_name().map_or_else(|| "image".into(), |name| name.to_string_lossy().into_owned());
        let title = "Attention maps".to_owned();
        let sheet = Sheet { title, image_name, picture, maps: vec![], style, notes: notes.clone() };
        Ok(Subject { pixels, sheet, predictions: vec![] })
    };
    options.images.iter().map(subject).collect()
}

fn shape(config: &TrainConfig) -> ImageShape {
    let model = &config.model;
    ImageShape { channels: model.in_chans, height: model.image_size, width: model.image_size }
}

/// An image as `lara predict` reads it: those of digits and MNIST fill their frames.
fn read(path: &Path, config: &TrainConfig) -> Outcome<Vec<f32>> {
    let crop_pct = if config.data.dataset == DatasetKind::Folder { config.data.crop_pct } else { 1.0 };
    Ok(picture::load(path, shape(config), crop_pct)?)
}

/// Runs the model on an image and keeps the rows that were asked for.
fn look(options: &Options, variant: &Variant, model: &Model, subject: &mut Subject) -> Outcome {
    let shape = shape(&model.config);
    let mut input = vec![0.0; shape.len()];
    let mut draws = Draws::new(0, Purpose::Augment, 0, 0);
    Augment::eval(&model.config.data).apply(&subject.pixels, shape, &mut draws, &mut input);
    let logits = pollster::block_on(model.predictor.logits(&input))?;
    let selection =
        Selection { layers: options.layer.clone(), heads: options.head.clone(), queries: options.query.clone() };
    let name = variant.name.as_deref();
    let maps = pollster::block_on(rows(&model.predictor, &model.config, name, &selection))?;
    subject.sheet.maps.extend(maps);
    let Some((index, probability)) = logits.first().and_then(|row| top(&softmax(row), 1).first().copied()) else {
        return Ok(());
    };
    let class = model.classes.get(index).cloned().unwrap_or_else(|| index.to_string());
    let mechanism = name.unwrap_or(model.config.attention.mechanism.name()).to_owned();
    subject.predictions.push(Prediction { mechanism, class, probability });
    Ok(())
}

fn save(options: &Options, mut subject: Subject, folder: &str, image: &Path) -> Outcome<Exported> {
    let sheet = &mut subject.sheet;
    for Prediction { mechanism, class, probability } in &subject.predictions {
        let what =
            if subject.predictions.len() > 1 { format!("prediction of {mechanism}") } else { "prediction".into() };
        sheet.notes.push((what, format!("{class} ({:.1} %)", 100.0 * probability)));
    }
    if options.shared {
        let ranges = sheet.maps.iter().map(lara_viewer::Map::range);
        let all = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        // Where all values are the same there is no range to share.
        sheet.style.shared_range = all.filter(|(low, high)| low < high);
    }
    let files = write(sheet, &options.format, options.out.join(folder))?;
    let maps = sheet.maps.iter().map(lara_viewer::Map::title).collect();
    Ok(Exported { image: image.to_path_buf(), predictions: subject.predictions, maps, files })
}

/// The name of an image without its ending.
fn stem(name: &str) -> String {
    Path::new(name).file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// A bar that shows itself where the work takes longer than one waits for without asking.
struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    const PATIENCE: Duration = Duration::from_secs(2);

    fn new(total: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} eta {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress { bar, begun: Instant::now() }
    }

    fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        if self.bar.is_hidden() && self.begun.elapsed() > Self::PATIENCE {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    fn step(&self) {
        self.bar.inc(1);
    }
}
