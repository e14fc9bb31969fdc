//! `lara export-maps`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lara_explain::export::compute::{Asked, Heads, Pick, Rolling, Selection, gradients, rollouts, rows};
use lara_explain::export::{Ends, Format, Picture, Sheet, Style, folder_names, overview, write, write_files};
use lara_explain::{Colormap, Factor, Inspector, Kind, Map, Matrices, Relevance};
use lara_models::data::picture;
use lara_models::{Model, softmax, top};
use lara_runtime::attention::{MechanismKind, ProposalGen};
use lara_runtime::maps::Fusion;
use lara_runtime::{Gpu, Tune};
use pollster::block_on;
use serde::Serialize;

use crate::adapter::AdapterOptions;
use crate::fail::{Failure, Outcome, print, print_json};
use crate::model;

/// Write attention maps of images as pictures, arrays or a page.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara export-maps runs/digits seven.png --format html --out maps/
  lara export-maps runs/digits seven.png --query mean --query center --overview --out maps/
  lara export-maps runs/digits *.png --layer 0,2 --head all --query center --format png,svg --out maps/
  lara export-maps runs/digits seven.png --mechanism softmax,lara --query 3,4 --shared --out maps/
  lara export-maps runs/digits seven.png --mechanism lara:num_landmarks=4,lara:num_landmarks=16 --out maps/
  lara export-maps runs/digits seven.png --head all --format npy,safetensors --json --out maps/
  lara export-maps runs/digits seven.png --kind attention,rollout --query center --out maps/
  lara export-maps runs/digits seven.png --kind rollout --fusion max --discard 0.9 --out maps/
  lara export-maps runs/digits seven.png --query center --scale uniform:8 --out maps/
  lara export-maps runs/digits seven.png --kind gradient --class 7 --head all --out maps/

Kinds: `attention` is a row of a block's attention matrix. `rollout` multiplies attention through all blocks (--layer and
--head do not apply). `gradient` is attention times its gradient for a class, the mean over all queries (--query does not
apply). Rows of attention, rollouts of averaged heads and gradients take memory linear in the tokens; --fusion max, min
and --discard need matrices and are limited to 1,024 tokens.

Every image has a folder of its own below DIR. Pictures are named by mechanism, layer, head and query.")]
pub(crate) struct Options {
    /// A run's folder (its best checkpoint, else its newest), a checkpoint, or a safetensors file.
    checkpoint: PathBuf,
    /// Pictures: PNG, JPEG, WebP, GIF or BMP files.
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
    /// What is written, with commas: attention, rollout, gradient.
    #[arg(long, value_name = "KIND", value_delimiter = ',', default_value = "attention")]
    kind: Vec<Kind>,
    /// How a rollout fuses the heads: mean, max, min [default: mean].
    #[arg(long, value_name = "NAME", value_parser = fusion)]
    fusion: Option<Fusion>,
    /// Share of each block's lowest attention that a rollout leaves out, 0 to 1 [default: 0].
    #[arg(long, value_name = "RATIO")]
    discard: Option<f32>,
    /// The class of the gradient, by name or from 0; without this option the one that is predicted.
    #[arg(long, value_name = "NAME|INDEX")]
    class: Option<String>,
    /// Mechanisms over the same weights, with commas; settings of one follow it after colons. Without this option the
    /// checkpoint's own.
    #[arg(long, value_name = "NAME[:KEY=VALUE..]", value_delimiter = ',')]
    mechanism: Vec<String>,
    /// Kinds of files, with commas: png, svg, npy, safetensors, html.
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', default_value = "png", value_parser = Format::from_name)]
    format: Vec<Format>,
    /// Also one picture, overview.png: the image, and beside it all maps of each query, layer by layer.
    #[arg(long)]
    overview: bool,
    /// Colours: viridis, magma, inferno, plasma, cividis, diverging.
    #[arg(long, value_name = "NAME", default_value = "viridis", value_parser = colormap)]
    colormap: Colormap,
    /// How much the colours cover the image, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.6)]
    opacity: f32,
    /// Colours by the logarithm.
    #[arg(long)]
    log: bool,
    /// Ends of the colour scale: each map's own, shared by all maps of an image, or 0 and some times (4 unless said) the weight
    /// that every key would get if all got the same.
    #[arg(long, value_name = "own|shared|uniform[:TIMES]", default_value = "own")]
    scale: Ends,
    /// The same as --scale shared.
    #[arg(long, conflicts_with = "scale")]
    shared: bool,
    /// The maps alone, without the image under them.
    #[arg(long)]
    bare: bool,
    /// Configuration for a file that carries none: a preset (`digits`, `mnist`, `emoji`, ..) or a TOML file.
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
struct Seen {
    /// As the model reads it, before normalisation.
    pixels: Vec<f32>,
    sheet: Sheet,
    predictions: Vec<Prediction>,
}

/// The compiled plans of a variant: as many as the kinds of maps need.
struct Plans {
    inspector: Inspector,
    matrices: Option<Matrices>,
    relevance: Option<Relevance>,
}

/// Names of `--fusion`.
const FUSIONS: [(&str, Fusion); 3] = [("mean", Fusion::Mean), ("max", Fusion::Max), ("min", Fusion::Min)];

fn fusion(name: &str) -> Result<Fusion, String> {
    let known = FUSIONS.iter().find(|(known, _)| *known == name);
    known
        .map(|(_, fusion)| *fusion)
        .ok_or_else(|| format!("heads are not fused by `{name}`; there are mean, max and min"))
}

fn colormap(name: &str) -> Result<Colormap, String> {
    Colormap::from_name(name).ok_or_else(|| {
        let known: Vec<&str> =
            Colormap::SEQUENTIAL.into_iter().chain([Colormap::Diverging]).map(Colormap::name).collect();
        format!("there is no colour scale `{name}`; there are {}", known.join(", "))
    })
}

pub(crate) fn run(options: &Options) -> Outcome {
    check(options)?;
    let variants = variants(options)?;
    let gpu = options.adapter.open()?;
    let progress = Progress::new((variants.len() + 1) * options.images.len());
    let mut images: Vec<Seen> = Vec::new();
    for variant in &variants {
        let name = variant.name.as_deref().unwrap_or("the checkpoint's attention");
        let subject = model::open(&options.checkpoint, options.preset.as_deref(), &variant.sets)?;
        if images.is_empty() {
            images = open_images(options, &subject, &gpu)?;
        }
        progress.say(&format!("compiling {name}"));
        let mut plans = compile(options, &gpu, &subject)?;
        for (seen, path) in images.iter_mut().zip(&options.images) {
            progress.say(&format!("{name}, {}", path.display()));
            look(options, &gpu, variant, &subject, &mut plans, seen)?;
            progress.step();
        }
    }
    let stems: Vec<String> = images.iter().map(|seen| stem(&seen.sheet.image_name)).collect();
    let mut exported = Vec::new();
    for ((seen, folder), image) in images.into_iter().zip(folder_names(&stems)).zip(&options.images) {
        progress.say(&format!("writing {folder}"));
        exported.push(save(options, seen, &folder, image)?);
        progress.step();
    }
    progress.bar.finish_and_clear();
    if options.json {
        return print_json(&exported);
    }
    exported.iter().flat_map(|image| &image.files).for_each(|file| print(file.display()));
    Ok(())
}

/// Numbers out of their range, and options of kinds that were not asked for.
fn check(options: &Options) -> Outcome {
    for (option, value) in [("--opacity", Some(options.opacity)), ("--discard", options.discard)] {
        if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
            return Err(Failure::input(format!("{option} is {value}; it goes from 0 to 1")));
        }
    }
    let needs = [
        ("--fusion", options.fusion.is_some(), Kind::Rollout, "rollout"),
        ("--discard", options.discard.is_some(), Kind::Rollout, "rollout"),
        ("--class", options.class.is_some(), Kind::Gradient, "gradient"),
    ];
    match needs.iter().find(|(_, is_given, kind, _)| *is_given && !options.kind.contains(kind)) {
        Some((option, _, _, name)) => {
            Err(Failure::input(format!("{option} is for --kind {name}; add it, or leave {option} out")))
        }
        None => Ok(()),
    }
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
        if runs_without_landmarks(options, &sets)? {
            // Said once.
            sets.push("attention.proposal_gen=no-param-pool".into());
            name.push_str(", no-param-pool");
        }
        Ok(Variant { name: Some(name), sets })
    };
    options.mechanism.iter().map(variant).collect()
}

/// Whether LARA does without landmark generators because the checkpoint was not trained with them.
fn runs_without_landmarks(options: &Options, sets: &[String]) -> Outcome<bool> {
    let model = model::open(&options.checkpoint, options.preset.as_deref(), sets)?;
    let attention = &model.config.attention;
    let chosen = sets.iter().any(|set| set.contains("proposal_gen"));
    Ok(attention.mechanism == MechanismKind::Lara && attention.proposal_gen == ProposalGen::NoParamPool && !chosen)
}

/// Every image is read before the first is looked at: a bad one is told at once.
fn open_images(options: &Options, subject: &Model, gpu: &Gpu) -> Outcome<Vec<Seen>> {
    let reader = subject.config.preprocess()?;
    let style = Style {
        colormap: options.colormap,
        opacity: options.opacity,
        log_scale: options.log,
        shared_range: None,
        uniform: if let Ends::Uniform(times) = options.scale { Some(times) } else { None },
        bare: options.bare,
    };
    let mut notes = vec![
        ("checkpoint".to_owned(), options.checkpoint.display().to_string()),
        ("adapter".to_owned(), gpu.report().name.clone()),
    ];
    if options.kind.contains(&Kind::Rollout) {
        let (fusion, discard) = rolling(options);
        let name = FUSIONS.iter().find(|(_, known)| *known == fusion).map_or("", |(name, _)| name);
        let how = format!("{name} of the heads, lowest {:.0} % discarded", 100.0 * discard);
        notes.push(("rollout".to_owned(), how));
    }
    let seen = |path: &PathBuf| {
        let file = picture::load(path)?;
        let (picture, pixels) = (Picture::seen(&reader, file.clone())?, reader.fit(file)?.planes());
        let image_name = path.file_name().map_or_else(|| "image".into(), |name| name.to_string_lossy().into_owned());
        let title = "Attention maps".to_owned();
        let sheet = Sheet { title, image_name, picture, maps: vec![], style, notes: notes.clone() };
        Ok(Seen { pixels, sheet, predictions: vec![] })
    };
    options.images.iter().map(seen).collect()
}

/// How heads are fused, and what share is discarded.
fn rolling(options: &Options) -> (Fusion, f32) {
    (options.fusion.unwrap_or_default(), options.discard.unwrap_or_default())
}

fn compile(options: &Options, gpu: &Gpu, subject: &Model) -> Outcome<Plans> {
    let tune = Tune::measured(gpu);
    let (fusion, discard) = rolling(options);
    let inspector = block_on(Inspector::new(gpu, &tune, subject, &subject.config, false))?;
    // The inspector rolls averaged heads out without matrices.
    let needs_matrices = options.kind.contains(&Kind::Rollout) && (fusion != Fusion::Mean || discard > 0.0);
    let matrices = if needs_matrices {
        Some(block_on(Matrices::new(gpu, &tune, subject, Factor::Attention, fusion))?)
    } else {
        None
    };
    let relevance = if options.kind.contains(&Kind::Gradient) {
        Some(block_on(Relevance::new(gpu, &tune, subject))?)
    } else {
        None
    };
    Ok(Plans { inspector, matrices, relevance })
}

/// Runs the model on an image and keeps the maps that were asked for.
fn look(
    options: &Options,
    gpu: &Gpu,
    variant: &Variant,
    subject: &Model,
    plans: &mut Plans,
    seen: &mut Seen,
) -> Outcome {
    let input = subject.normalise(&seen.pixels)?;
    plans.inspector.run(&input, 0)?;
    let logits = block_on(plans.inspector.read_logits())?;
    if logits.iter().any(|x| !x.is_finite()) {
        // Says where that began.
        block_on(block_on(subject.predictor(gpu, &Tune::measured(gpu), 1))?.finite_logits(&input))?;
    }
    let Some((predicted, probability)) = top(&softmax(&logits), 1).first().copied() else { return Ok(()) };
    let mechanism = variant.name.as_deref().unwrap_or(subject.config.attention.mechanism.name()).to_owned();
    for kind in &options.kind {
        let maps = match kind {
            Kind::Attention => {
                let (layers, heads) = (options.layer.clone(), options.head.clone());
                let selection = Selection { layers, heads, queries: options.query.clone() };
                block_on(rows(&mut plans.inspector, variant.name.as_deref(), &selection))?
            }
            Kind::Rollout => roll_out(options, variant, subject, plans, &input)?,
            Kind::Gradient => {
                let class = class(options, subject)?.unwrap_or(predicted);
                let several = options.mechanism.len() > 1;
                let what = if several { format!("gradient of {mechanism}") } else { "gradient".into() };
                seen.sheet.notes.push((what, format!("for class {}", class_name(subject, class))));
                weigh(options, variant, subject, plans, &input, class)?
            }
        };
        seen.sheet.maps.extend(maps);
    }
    seen.predictions.push(Prediction { mechanism, class: class_name(subject, predicted), probability });
    Ok(())
}

fn roll_out(
    options: &Options,
    variant: &Variant,
    subject: &Model,
    plans: &mut Plans,
    input: &[f32],
) -> Outcome<Vec<Map>> {
    let rolling = match &mut plans.matrices {
        Some(matrices) => {
            matrices.run(input, 0)?;
            Rolling::Matrices(matrices, rolling(options).1)
        }
        None => Rolling::Linear(&mut plans.inspector),
    };
    Ok(block_on(rollouts(rolling, &subject.config, variant.name.as_deref(), &options.query))?)
}

fn weigh(
    options: &Options,
    variant: &Variant,
    subject: &Model,
    plans: &mut Plans,
    input: &[f32],
    class: usize,
) -> Outcome<Vec<Map>> {
    let Some(relevance) = &mut plans.relevance else { return Ok(Vec::new()) };
    relevance.run(input, class)?;
    let name = variant.name.as_deref();
    Ok(block_on(gradients(relevance, &subject.config, name, &options.layer, &options.head))?)
}

/// The number of the class that was asked for.
fn class(options: &Options, subject: &Model) -> Outcome<Option<usize>> {
    let Some(text) = &options.class else { return Ok(None) };
    let count = subject.config.model.num_classes();
    let named = subject.classes.iter().position(|name| name == text);
    match named.or_else(|| text.parse().ok()).filter(|&class| class < count) {
        Some(class) => Ok(Some(class)),
        None => {
            let names: Vec<&str> = subject.classes.iter().take(20).map(String::as_str).collect();
            let more = if subject.classes.len() > names.len() { ", …" } else { "" };
            let what = format!("there is no class `{text}`; the model has {count}: {}{more}", names.join(", "));
            Err(Failure::input(what))
        }
    }
}

fn class_name(subject: &Model, class: usize) -> String {
    subject.classes.get(class).cloned().unwrap_or_else(|| class.to_string())
}

fn save(options: &Options, mut seen: Seen, folder: &str, image: &Path) -> Outcome<Exported> {
    let sheet = &mut seen.sheet;
    for Prediction { mechanism, class, probability } in &seen.predictions {
        let what = if seen.predictions.len() > 1 { format!("prediction of {mechanism}") } else { "prediction".into() };
        sheet.notes.push((what, format!("{class} ({:.1} %)", 100.0 * probability)));
    }
    if options.shared || options.scale == Ends::Shared {
        let ranges = sheet.maps.iter().map(Map::range);
        let all = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        // Where all values are the same there is no range to share.
        sheet.style.shared_range = all.filter(|(low, high)| low < high);
    }
    let folder = options.out.join(folder);
    let mut files = write(sheet, &options.format, &folder)?;
    if options.overview {
        files.extend(write_files(&[overview::file(sheet)?], &folder)?);
    }
    let maps = sheet.maps.iter().map(Map::title).collect();
    Ok(Exported { image: image.to_path_buf(), predictions: seen.predictions, maps, files })
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
