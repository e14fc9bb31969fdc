//! `lara convert`

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lara_models::estimate;
use lara_models::import::positions::Resampling;
use lara_models::import::{self, CONFIG_FILE, Library, PREPROCESSOR_FILE};
use lara_models::torch;
use lara_models::train::TrainConfig;
use lara_models::train::checkpoint::{MODEL_FILE, RESAMPLING, TrainedModel};
use lara_models::weights::{Metadata, TensorFile};

use crate::fail::{Failure, Outcome, print};
use crate::{files, model};

/// Write a model's weights and settings as another library has them, value for value.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara convert hf:timm/deit_tiny_patch16_224.fb_in1k deit/ --to lara
  lara convert runs/digits/best out/ --to timm --set attention.mechanism=softmax
  lara convert hf:facebook/dino-vits8 dino.safetensors --to timm
  lara convert checkpoint.pth out/ --to lara --preset deit_tiny_p16

Out is a folder, into which model.safetensors and (but for lara, whose files carry it) config.json are written, for hf
preprocessor_config.json, too; or a name that ends in .safetensors: then only that file is written. A file of PyTorch (.pth,
.bin) is read where it holds a dictionary of tensors; for any other the ten lines of Python are printed that write it so.")]
pub(crate) struct Options {
    /// A run's folder, a checkpoint, a safetensors file, a folder with config.json, or `hf:ORG/NAME[@REVISION]`.
    source: PathBuf,
    /// Where to write it.
    out: PathBuf,
    /// Whose names and settings.
    #[arg(long, value_enum)]
    to: Form,
    /// Configuration for a file that carries none: a preset or a TOML file.
    #[arg(long, value_name = "NAME|FILE")]
    preset: Option<String>,
    /// Set a value of the configuration, for instance attention.mechanism=lara; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// This program's: timm's names, with the configuration in the file.
    Lara,
    /// PyTorch Image Models.
    Timm,
    /// transformers of Hugging Face.
    Hf,
    /// The paper's authors (HKUNLP/efficient-attention).
    Hkunlp,
}

impl Form {
    fn library(self) -> Library {
        match self {
            Form::Lara => Library::Lara,
            Form::Timm => Library::Timm,
            Form::Hf => Library::Hf,
            Form::Hkunlp => Library::Hkunlp,
        }
    }
}

pub(crate) fn run(options: &Options) -> Outcome {
    let (mut trained, config) = match model::trained(&options.source, options.preset.as_deref(), &options.set) {
        Ok(opened) => opened,
        Err(failure) => {
            if torch::is_of_pytorch(&options.source) {
                print(script(&options.source));
            }
            return Err(failure);
        }
    };
    let library = options.to.library();
    let unchanged = trained.config.as_ref().is_none_or(|own| own.model.image_shape() == config.model.image_shape());
    // A position table goes over as it is, unless other images were asked for or the library shows a model no others.
    if !(unchanged && matches!(options.to, Form::Lara | Form::Hf)) {
        trained.fit(&config)?;
    }
    let stored = import::as_stored(&config, &trained.weights);
    trained.weights.check_all(&estimate::weights(&stored)?)?;
    // What the library has no words for is refused before its tensors are named.
    let beside = [
        (CONFIG_FILE, import::config_json(library, &stored, &trained.classes)?),
        (PREPROCESSOR_FILE, import::preprocessor_json(library, &config)?),
    ];
    let weights = import::export(&trained.weights, library, &stored)?;
    let mut metadata = Metadata::from([("format".to_owned(), "pt".to_owned())]);
    if options.to == Form::Lara {
        metadata.extend(own_metadata(&config, &trained)?);
    }
    write(options, &weights, &metadata, beside)
}

/// Writes the model's file and, into a folder, what stands beside it.
fn write(
    options: &Options,
    weights: &TensorFile,
    metadata: &Metadata,
    beside: [(&str, Option<serde_json::Value>); 2],
) -> Outcome {
    let alone = options.out.extension().is_some_and(|ending| ending == "safetensors");
    let file = if alone { options.out.clone() } else { options.out.join(MODEL_FILE) };
    if !alone {
        let refused = |error| Failure::input(format!("cannot create {}: {error}", options.out.display()));
        fs::create_dir_all(&options.out).map_err(refused)?;
    }
    let beside: Vec<_> = beside.into_iter().filter_map(|(name, json)| Some((name, json?))).filter(|_| !alone).collect();
    refuse_source(&options.source, &file)?;
    for (name, _) in &beside {
        // The settings beside a file of another name are its own.
        let own = options.source.parent().map(|folder| folder.join(name));
        refuse_same(&own.unwrap_or_default(), &options.out.join(name))?;
    }
    files::write(&file, |out| weights.write_to(out, metadata))?;
    for (name, json) in beside {
        let text = serde_json::to_string_pretty(&json)? + "\n";
        files::write(&options.out.join(name), |out| out.write_all(text.as_bytes()))?;
    }
    print(format!("{}: {} tensors", file.display(), weights.names().count()));
    Ok(())
}

/// Refuses to write over what is read: what the other library has no words for would be lost.
fn refuse_source(source: &Path, file: &Path) -> Outcome {
    let read = [source.to_path_buf(), source.join(MODEL_FILE), source.join("best").join(MODEL_FILE)];
    read.iter().try_for_each(|path| refuse_same(path, file))
}

fn refuse_same(read: &Path, file: &Path) -> Outcome {
    let target = fs::canonicalize(file).ok();
    if target.is_some() && target == fs::canonicalize(read).ok() {
        return Err(Failure::input(format!("{} is the model itself; name another place", file.display())));
    }
    Ok(())
}

/// What files of this program carry.
fn own_metadata(config: &TrainConfig, trained: &TrainedModel) -> Outcome<Metadata> {
    let mut metadata = Metadata::from([
        ("config".to_owned(), config.to_toml()?),
        ("classes".to_owned(), serde_json::to_string(&trained.classes)?),
    ]);
    if trained.resampling != Resampling::default() {
        metadata.insert(RESAMPLING.to_owned(), trained.resampling.name().to_owned());
    }
    Ok(metadata)
}

/// The ten lines that make a safetensors file of one of PyTorch which only PyTorch can read.
fn script(path: &Path) -> String {
    let name = path.display().to_string();
    let out = path.with_extension("safetensors").display().to_string();
    format!(
        "# pip install torch safetensors; then run these lines with Python
import argparse, torch
from safetensors.torch import save_file
torch.serialization.add_safe_globals([argparse.Namespace])
saved = torch.load({name:?}, map_location=\"cpu\", weights_only=True)
for key in (\"state_dict_ema\", \"model_ema\", \"state_dict\", \"model\"):
    if isinstance(saved, dict) and isinstance(saved.get(key), dict):
        saved = saved[key]
tensors = {{name: value.contiguous().clone() for name, value in saved.items() if torch.is_tensor(value)}}
save_file(tensors, {out:?}, metadata={{\"format\": \"pt\"}})"
    )
}
