//! Models in the local cache of the Hugging Face hub, read as its layout says. Nothing is fetched.
//!
//! `models--ORG--NAME/refs/REVISION` holds the commit of a revision, `snapshots/COMMIT/FILE` links to the file in `blobs/`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::import::{CONFIG_FILE, PREPROCESSOR_FILE};

/// How a model on the hub is written: `hf:ORG/NAME` or `hf:ORG/NAME@REVISION`.
pub const SCHEME: &str = "hf:";

/// The file with the weights.
pub const WEIGHTS: &str = "model.safetensors";

/// The weights of a model that was saved with PyTorch alone.
pub const PICKLED: &str = "pytorch_model.bin";

/// The revision that is meant where none is named.
const MAIN: &str = "main";

/// The cache on this machine.
#[derive(Clone, Debug)]
pub struct Hub {
    root: PathBuf,
}

impl Hub {
    /// Where the environment says that the cache is: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`,
    /// `HOME`, in this order, as `huggingface_hub` has it. `variable` looks one up.
    ///
    /// # Errors
    /// If none of them is set.
    pub fn from_env(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
        let below = |name: &str, path: &str| set(name).map(|folder| folder.join(path));
        let root = set("HF_HUB_CACHE")
            .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| below("HF_HOME", "hub"))
            .or_else(|| below("XDG_CACHE_HOME", "huggingface/hub"))
            .or_else(|| below("HOME", ".cache/huggingface/hub"))
            .or_else(|| below("USERPROFILE", ".cache/huggingface/hub"));
        root.map(|root| Hub { root }).ok_or_else(|| {
            Error::BadInput(
                "it is not known where the hub's cache is: set HF_HUB_CACHE, or name the model's folder".into(),
            )
        })
    }

    /// The cache of this process's environment.
    ///
    /// # Errors
    /// If the environment names none.
    pub fn of_this_machine() -> Result<Self> {
        Self::from_env(|name| std::env::var_os(name).map(PathBuf::from))
    }

    /// The folder of a model `ORG/NAME[@REVISION]` (with or without `hf:` in front), with weights and configuration in it.
    ///
    /// # Errors
    /// A name that is none, or a model or file that is not in the cache: with the command that fetches it.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let wanted = Wanted::parse(name)?;
        let Wanted { repository, revision } = wanted;
        let which = if revision == MAIN { String::new() } else { format!(" --revision {revision}") };
        let fetch = format!("hf download {repository} {WEIGHTS} {CONFIG_FILE} {PREPROCESSOR_FILE}{which}");
        let absent = |what: &str| {
            let root = self.root.display();
            Error::BadInput(format!(
                "{what} is not in the hub's cache {root}; nothing is fetched here: `{fetch}` does it"
            ))
        };
        let folder = self.repository(&wanted);
        if !folder.is_dir() {
            return Err(absent(repository));
        }
        let commit = fs::read_to_string(folder.join("refs").join(revision)).ok();
        let snapshot = folder.join("snapshots").join(commit.as_deref().map_or(revision, str::trim));
        if !snapshot.is_dir() {
            return Err(absent(&format!("revision {revision} of {repository}")));
        }
        for file in [WEIGHTS, CONFIG_FILE] {
            // A link whose blob was removed is no file.
            let there = |file: &str| snapshot.join(file).is_file();
            let is_there = there(file) || (file == WEIGHTS && there(PICKLED));
            if !is_there {
                return Err(instead(&snapshot, file).unwrap_or_else(|| absent(&format!("{file} of {repository}"))));
            }
        }
        Ok(snapshot)
    }

    /// The folder of the cache that is a model's: refs, blobs and snapshots in it.
    pub fn repository(&self, wanted: &Wanted<'_>) -> PathBuf {
        self.root.join(format!("models--{}", wanted.repository.replace('/', "--")))
    }
}

/// A model on the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// `ORG/NAME`, or a name alone.
    pub repository: &'a str,
    /// A branch, a tag or a commit.
    pub revision: &'a str,
}

impl<'a> Wanted<'a> {
    /// From `ORG/NAME[@REVISION]`, with or without `hf:` in front.
    ///
    /// # Errors
    /// A name that is none, or would lead out of the cache.
    pub fn parse(name: &'a str) -> Result<Self> {
        let name = name.strip_prefix(SCHEME).unwrap_or(name);
        let (repository, revision) = name.split_once('@').unwrap_or((name, MAIN));
        let is_word = |word: &str| !word.is_empty() && word != "." && word != ".." && !word.contains(['\\', ':']);
        let words: Vec<&str> = repository.split('/').collect();
        if words.len() > 2 || !words.iter().all(|word| is_word(word)) || !revision.split('/').all(is_word) {
            return Err(Error::BadInput(format!(
                "\"{SCHEME}{name}\" names no model on the hub; write {SCHEME}ORGANISATION/NAME or \
                 {SCHEME}ORGANISATION/NAME@REVISION"
            )));
        }
        Ok(Wanted { repository, revision })
    }
}

/// What a snapshot has instead of a file that it lacks, where that is of no use here.
fn instead(snapshot: &Path, file: &str) -> Option<Error> {
    let has = |name: &str| snapshot.join(name).is_file();
    let several = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];
    (file == WEIGHTS && several.into_iter().any(has)).then(|| {
        Error::input(
            snapshot,
            "has its weights in several files; write them as one (safetensors.torch.save_file of all) to use them here",
        )
    })
}

/// The folder or file that a user named: `hf:ORG/NAME[@REVISION]` is looked up in the hub's cache.
///
/// # Errors
/// A model that is not in the cache.
pub fn locate(path: &Path) -> Result<PathBuf> {
    match path.to_str().filter(|text| text.starts_with(SCHEME)) {
        Some(name) => Hub::of_this_machine()?.folder(name),
        None => Ok(path.to_path_buf()),
    }
}
