//! The readers that get hostile input, one a file, and how often each has its turn.

mod attend;
mod configs;
mod folders;
mod idx;
mod pictures;
mod runs;
mod sizes;
mod tensors;
mod torch;

use std::path::PathBuf;

use crate::case::{Answer, Case};
use crate::source::Source;

/// A reader under test.
pub(crate) struct Kind {
    /// What `--kind` calls it.
    pub(crate) name: &'static str,
    /// Its share of the cases, in 10,000: what takes long comes seldom.
    weight: usize,
    /// Makes an input and gives it to the reader.
    pub(crate) run: fn(&mut Case<'_>, &mut Rooms) -> Answer,
}

/// All of them.
pub(crate) const KINDS: [Kind; 13] = [
    Kind { name: "safetensors", weight: 1495, run: tensors::file },
    Kind { name: "torch", weight: 700, run: torch::file },
    Kind { name: "toml", weight: 1300, run: configs::toml },
    Kind { name: "set", weight: 1300, run: configs::set },
    Kind { name: "attention", weight: 600, run: configs::attention },
    Kind { name: "idx", weight: 1400, run: idx::files },
    Kind { name: "png", weight: 1300, run: pictures::png },
    Kind { name: "jpeg", weight: 600, run: pictures::jpeg },
    Kind { name: "state", weight: 350, run: runs::state },
    Kind { name: "folders", weight: 150, run: folders::any },
    Kind { name: "attend", weight: 800, run: attend::file },
    Kind { name: "layer", weight: 5, run: attend::layer },
    Kind { name: "sizes", weight: 10, run: sizes::training },
];

/// The kind that a case is of.
pub(crate) fn choose(source: &mut Source<'_>) -> &'static Kind {
    &KINDS[source.weighted(&KINDS.map(|kind| kind.weight))]
}

/// What cases share and need not make anew.
pub(crate) struct Rooms {
    /// A folder of this process, in memory where the system has such a place.
    pub(crate) folder: tempfile::TempDir,
    /// A run with checkpoints, as a training leaves it.
    pub(crate) run: PathBuf,
    /// A device of little memory, once a case has asked for it.
    pub(crate) gpu: Option<lara_runtime::Gpu>,
    /// Whole pictures.
    pub(crate) pictures: pictures::Album,
}

impl Rooms {
    pub(crate) fn furnish() -> Result<Self, String> {
        let memory = PathBuf::from("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.map_err(|error| format!("cannot make a temporary folder: {error}"))?;
        let run = folder.path().join("run");
        runs::write(&run).map_err(|error| error.to_string())?;
        Ok(Self { run, gpu: None, pictures: pictures::Album::paint(), folder })
    }

    /// An empty folder for one case.
    pub(crate) fn empty(&self) -> PathBuf {
        let path = self.folder.path().join("case");
        // What is not there need not go; what cannot go shows when it is made again.
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("the folder of a case cannot be made");
        path
    }
}

/// The worst of some answers: one that is no refusal by a sentence, else one that is, else that all was well.
pub(crate) fn worst(answers: impl IntoIterator<Item = Answer>) -> Answer {
    let mut refusals: Vec<(String, bool)> = answers.into_iter().filter_map(Result::err).collect();
    refusals.sort_by_key(|(sentence, is_bad_input)| *is_bad_input && crate::case::is_sentence(sentence));
    refusals.into_iter().next().map_or(Ok(()), Err)
}
