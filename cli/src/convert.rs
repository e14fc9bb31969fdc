//! `lara convert`

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lara_models::import::{self, CONFIG_FILE, Library};
use lara_models::train::TrainConfig;
use lara_models::train::checkpoint::MODEL_FILE;
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
  lara convert checkpoint.pth out/ --to lara      prints how to write it as safetensors first

Out is a folder, into which model.safetensors and (but for lara, whose files carry it) config.json are written, or a name
that ends in .safetensors: then only that file is written.")]
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

#[derive(Clone, Copy, ValueEnum)]
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
            if is_pickle(&options.source) {
                print(script(&options.source));
            }
            return Err(failure);
        }
    };
    trained.fit(&config)?;
    let library = options.to.library();
    // What the library has no words for is refused before its tensors are named.
    let json = import::config_json(library, &config, &trained.classes)?;
    let weights = import::export(&trained.weights, library, &config)?;
    let mut metadata = Metadata::from([("format".to_owned(), "pt".to_owned())]);
    if json.is_none() {
        metadata.extend(own_metadata(&config, &trained.classes)?);
    }
    let alone = options.out.extension().is_some_and(|ending| ending == "safetensors");
    let file = if alone { options.out.clone() } else { options.out.join(MODEL_FILE) };
    if !alone {
        let refused = |error| Failure::input(format!("cannot create {}: {error}", options.out.display()));
        fs::create_dir_all(&options.out).map_err(refused)?;
    }
    refuse_source(&options.source, &file)?;
    if json.is_some() && !alone {
        // The settings beside a file of another name are its own.
        let beside = options.source.parent().map(|folder| folder.join(CONFIG_FILE));
        refuse_same(&beside.unwrap_or_default(), &options.out.join(CONFIG_FILE))?;
    }
    files::write(&file, |out| weights.write_to(out, &metadata))?;
    if let Some(json) = json.filter(|_| !alone) {
        let text = serde_json::to_string_pretty(&json)? + "\n";
        files::write(&options.out.join(CONFIG_FILE), |out| out.write_all(text.as_bytes()))?;
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
fn own_metadata(config: &TrainConfig, classes: &[String]) -> Outcome<[(String, String); 2]> {
    let classes = serde_json::to_string(classes)?;
    Ok([("config".to_owned(), config.to_toml()?), ("classes".to_owned(), classes)])
}

/// Whether a file is one of PyTorch.
fn is_pickle(path: &Path) -> bool {
    path.is_file() && TensorFile::open(path).is_err_and(|error| error.to_string().contains("PyTorch"))
}

/// The ten lines that make a safetensors file of one of PyTorch, which only PyTorch can read safely.
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
