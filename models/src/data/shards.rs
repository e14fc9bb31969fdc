//! Pictures in tar files, in the layout of WebDataset: members that follow each other and are called the same up to the
//! first dot are a sample, one of them a picture (`00042.jpg`), one its class as a number (`00042.cls`).

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Dataset, Fingerprint, ImageDataset, ImageShape, Open, Place, Preprocess, Sample, Split, picture};
use crate::error::{Error, Result};

/// A split of shards. Opening reads the headers, not the pictures; of a sample there are 32 bytes in memory.
#[derive(Debug)]
pub struct Shards {
    name: String,
    files: Vec<PathBuf>,
    samples: Vec<Entry>,
    classes: Vec<String>,
    fingerprint: Fingerprint,
    preprocess: Preprocess,
}

/// Where a picture lies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    header: u64,
    begin: u64,
    length: u64,
    shard: u32,
    label: u32,
}

/// Where the names of the classes may be, one a line.
const CLASSES_FILE: &str = "classes.txt";

/// A class is a number of so many digits at most.
const LABEL_MAX: u64 = 32;
/// Classes that there may be: a number far beyond stands in the wrong file.
const LABELS_MAX: u32 = 1 << 16;

/// tar files consist of blocks.
const BLOCK: u64 = 512;

impl Shards {
    /// Reads the headers of the tar files of a split: those in `root/train`, else those in `root` whose names contain
    /// `train`; for testing the same with `val`, else `test`. Classes are called as `classes.txt` has them, one a line, else
    /// by their numbers.
    ///
    /// # Errors
    /// No tar file; one that is cut short or damaged, with the member at which it is; a sample without a picture or class.
    pub fn open(root: impl AsRef<Path>, split: Split, preprocess: &Preprocess) -> Result<Self> {
        let root = root.as_ref();
        let files = shards(root, split)?;
        let mut found = Found::default();
        for (number, path) in files.iter().enumerate() {
            found.read(path, number as u32)?;
        }
        let Found { samples, names } = found;
        let fingerprint = Fingerprint { samples: samples.len() as u64, names: names.finalize() };
        let classes = class_names(root, split, &samples)?;
        if let Some(entry) = samples.iter().find(|entry| entry.label as usize >= classes.len()) {
            let problem = format!(
                "has class {} in {}, but there are {} classes",
                entry.label,
                member_name(&files[entry.shard as usize], entry.header),
                classes.len()
            );
            return Err(Error::input(&files[entry.shard as usize], problem));
        }
        let name = root.file_name().map_or_else(|| "shards".into(), |name| name.to_string_lossy().into_owned());
        Ok(Self { name, files, samples, classes, fingerprint, preprocess: preprocess.clone() })
    }

    /// A sample as it is in its shard, and its class.
    fn decode(&self, index: usize) -> Result<(picture::Picture, u32)> {
        let entry = self.samples.get(index).ok_or_else(|| {
            Error::Failed(format!(
                "the data set {} has {} images here; number {index} was asked for",
                self.name,
                self.len()
            ))
        })?;
        let path = &self.files[entry.shard as usize];
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        file.seek(SeekFrom::Start(entry.begin)).map_err(Error::io("read", path))?;
        let mut bytes = Vec::new();
        file.take(entry.length).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        let name = path.join(member_name(path, entry.header));
        Ok((picture::from_bytes(name, &bytes)?, entry.label))
    }
}

/// The tar files of a split, by name.
fn shards(root: &Path, split: Split) -> Result<Vec<PathBuf>> {
    let words: &[&str] = match split {
        Split::Train => &["train"],
        Split::Test => &["val", "test"],
    };
    for word in words {
        let folder = root.join(word);
        let (folder, all) = if folder.is_dir() { (folder.as_path(), true) } else { (root, false) };
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
            let path = entry.map_err(Error::io("list", folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".tar") && !name.starts_with('.') && (all || name.contains(word)) {
                files.push(path);
            }
        }
        files.sort();
        if !files.is_empty() {
            return Ok(files);
        }
    }
    let words = words.join(" or ");
    Err(Error::input(
        root,
        format!("has no tar files of {words}: neither in a folder of that name nor named so (*.tar)"),
    ))
}

fn class_names(root: &Path, split: Split, samples: &[Entry]) -> Result<Vec<String>> {
    let path = root.join(CLASSES_FILE);
    if path.is_file() {
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        return Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect());
    }
    // Both splits have the classes of the training images.
    let mut found = Found::default();
    if split == Split::Test {
        for (number, path) in shards(root, Split::Train)?.iter().enumerate() {
            found.read(path, number as u32)?;
        }
    }
    let samples = if split == Split::Test { &found.samples } else { samples };
    let count = samples.iter().map(|entry| entry.label + 1).max().unwrap_or(0);
    Ok((0..count).map(|class| class.to_string()).collect())
}

/// The name in a tar file's header, for messages.
fn member_name(path: &Path, header: u64) -> String {
    let name = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(header))?;
        let mut block = tar::Header::new_old();
        file.read_exact(block.as_mut_bytes())?;
        Ok(block.path()?.to_string_lossy().into_owned())
    };
    name().unwrap_or_else(|_| format!("the member at byte {header}"))
}

/// Samples of the shards that were read so far.
#[derive(Default)]
struct Found {
    samples: Vec<Entry>,
    /// Of their names and classes: another class makes another sample of the same picture.
    names: crc32fast::Hasher,
}

/// Members that belong together.
#[derive(Default)]
struct Group {
    key: String,
    picture: Option<Entry>,
    label: Option<u32>,
}

impl Found {
    fn read(&mut self, path: &Path, shard: u32) -> Result<()> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let mut archive = tar::Archive::new(file);
        let (mut group, mut last, mut end) = (Group::default(), String::new(), 0);
        let damaged = |after: &str, error: &std::io::Error| {
            let place = if after.is_empty() { "at its beginning".into() } else { format!("after the member {after}") };
            Error::input(path, format!("is no whole tar file: {place} comes no other ({error}); fetch it again"))
        };
        for member in archive.entries_with_seek().map_err(|error| damaged("", &error))? {
            let mut member = member.map_err(|error| damaged(&last, &error))?;
            let name = member.path().map_err(|error| damaged(&last, &error))?.to_string_lossy().into_owned();
            let (header, begin, size) = (member.raw_header_position(), member.raw_file_position(), member.size());
            if begin.saturating_add(size) > length {
                return Err(Error::input(
                    path,
                    format!("is cut short: it ends within the member {name}; fetch it again"),
                ));
            }
            (end, last) = ((begin + size).next_multiple_of(BLOCK), name.clone());
            let Some((key, kind)) = key_and_kind(&name).filter(|_| member.header().entry_type().is_file()) else {
                continue;
            };
            if key != group.key {
                self.close(path, std::mem::take(&mut group))?;
                group.key = key.to_owned();
            }
            if kind == "cls" {
                group.label = Some(label(&mut member, &name, path)?);
            } else if group.picture.is_none() && picture::is_called_picture(Path::new(&name)) {
                group.picture = Some(Entry { header, begin, length: size, shard, label: 0 });
            }
        }
        self.close(path, group)?;
        // Two blocks of zeros are the end.
        if end + BLOCK > length {
            let problem =
                format!("is cut short: after the member {last} the end of the archive is missing; fetch it again");
            return Err(Error::input(path, problem));
        }
        Ok(())
    }

    fn close(&mut self, path: &Path, group: Group) -> Result<()> {
        match group {
            Group { key, picture: Some(entry), label: Some(label) } => {
                self.names.update(key.as_bytes());
                self.names.update(&[0]);
                self.names.update(&label.to_le_bytes());
                self.samples.push(Entry { label, ..entry });
                Ok(())
            }
            Group { key, picture: Some(_), label: None } => {
                Err(Error::input(path, format!("has no class for the sample {key}: the member {key}.cls is missing")))
            }
            Group { key, picture: None, label: Some(_) } => {
                let kinds = picture::EXTENSIONS.join(", ");
                Err(Error::input(
                    path,
                    format!("has no picture for the sample {key}: {key} with one of {kinds} is missing"),
                ))
            }
            // Notes beside the samples.
            Group { .. } => Ok(()),
        }
    }
}

/// What a member is called up to the first dot of its last part, and the rest.
fn key_and_kind(name: &str) -> Option<(&str, &str)> {
    let begin = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = begin + name[begin..].find('.')?;
    (dot > begin).then(|| (&name[..dot], &name[dot + 1..]))
}

fn label(member: &mut impl Read, name: &str, path: &Path) -> Result<u32> {
    let mut text = Vec::new();
    member.take(LABEL_MAX).read_to_end(&mut text).map_err(Error::io("read", path))?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let label = text.parse().ok().filter(|&label: &u32| label < LABELS_MAX);
    label.ok_or_else(|| {
        Error::input(
            path,
            format!("has \"{text}\" in the member {name}, where a class's number below {LABELS_MAX} is expected"),
        )
    })
}

impl Open for Shards {
    const ANY_SIZE: bool = true;

    fn open_split(place: &Place<'_>, split: Split) -> Result<Self> {
        Self::open(place.path, split, place.preprocess)
    }
}

impl ImageDataset for Shards {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn image_shape(&self) -> ImageShape {
        self.preprocess.shape
    }

    fn picture(&self, index: usize) -> Result<(picture::Picture, u32)> {
        self.decode(index)
    }
}

impl Dataset for Shards {
    type Item = Sample;

    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let (picture, label) = self.decode(index)?;
        Ok(Sample { pixels: self.preprocess.fit(picture)?.planes(), label })
    }
}
