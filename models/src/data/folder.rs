//! A folder of pictures: `train/` and `val/` (or `test/`), in each one sub-folder a class, in it the pictures.

use std::fs;
use std::path::{Path, PathBuf};

use super::picture::Picture;
use super::{Dataset, Fingerprint, ImageDataset, ImageShape, Open, Place, Preprocess, Sample, Split, picture};
use crate::error::{Error, Result};

/// One split of a folder of pictures. Opening lists the files; each is decoded when its sample is asked for.
#[derive(Debug)]
pub struct ImageFolder {
    name: String,
    /// Sorted by class, then by name, so that a sample's number is the same on every system.
    files: Vec<(PathBuf, u32)>,
    classes: Vec<String>,
    preprocess: Preprocess,
}

impl ImageFolder {
    /// Lists `root/train` for training, or `root/val` (else `root/test`) for testing. Classes are the names of the
    /// sub-folders of `train`, sorted by their bytes; those of the test split must be the same. Names that begin with a
    /// dot are passed over. Pictures are fitted as `preprocess` says.
    pub fn open(root: impl AsRef<Path>, split: Split, preprocess: &Preprocess) -> Result<Self> {
        let root = root.as_ref();
        let train = root.join("train");
        if !train.is_dir() {
            return Err(Error::input(
                root,
                "has no folder train; an image folder has train/CLASS/*.png and val/CLASS/*.png",
            ));
        }
        let folder = match split {
            Split::Train => train.clone(),
            Split::Test => {
                ["val", "test"].map(|name| root.join(name)).into_iter().find(|path| path.is_dir()).ok_or_else(|| {
                    Error::input(root, "has no folder val (nor test); images to test with go to val/CLASS/*.png")
                })?
            }
        };
        let classes = class_names(&train)?;
        if folder != train {
            check_same_classes(&folder, &classes, &class_names(&folder)?)?;
        }
        let mut files = Vec::new();
        for (label, class) in classes.iter().enumerate() {
            let class_folder = folder.join(class);
            let pictures = pictures(&class_folder)?;
            if pictures.is_empty() {
                let problem =
                    "holds no picture (PNG, JPEG, WebP, GIF or BMP); give the class images or remove its folder";
                return Err(Error::input(class_folder, problem));
            }
            files.extend(pictures.into_iter().map(|path| (path, label as u32)));
        }
        let name = root.file_name().map_or_else(|| "folder".into(), |name| name.to_string_lossy().into_owned());
        Ok(Self { name, files, classes, preprocess: preprocess.clone() })
    }

    /// The file of sample number `index`.
    pub fn path(&self, index: usize) -> Option<&Path> {
        self.files.get(index).map(|(path, _)| path.as_path())
    }
}

impl ImageFolder {
    fn file(&self, index: usize) -> Result<&(PathBuf, u32)> {
        self.files.get(index).ok_or_else(|| {
            Error::Failed(format!(
                "the data set {} has {} images here; number {index} was asked for",
                self.name,
                self.len()
            ))
        })
    }
}

impl Open for ImageFolder {
    const ANY_SIZE: bool = true;

    fn open_split(place: &Place<'_>, split: Split) -> Result<Self> {
        Self::open(place.path, split, place.preprocess)
    }
}

impl ImageDataset for ImageFolder {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn image_shape(&self) -> ImageShape {
        self.preprocess.shape
    }

    fn picture(&self, index: usize) -> Result<(Picture, u32)> {
        let (path, label) = self.file(index)?;
        Ok((picture::load(path)?, *label))
    }
}

impl Dataset for ImageFolder {
    type Item = Sample;

    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn fingerprint(&self) -> Fingerprint {
        // Without the folders above it: a data set may be moved.
        let names = self.files.iter().flat_map(|(path, label)| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            [self.classes[*label as usize].as_str(), name]
        });
        Fingerprint::of(self.len(), names)
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let (path, label) = self.file(index)?;
        Ok(Sample { pixels: self.preprocess.read(path)?, label: *label })
    }
}

/// Entries of a folder without those whose name begins with a dot, sorted by name.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            entries.push((name, entry.path()));
        }
    }
    entries.sort();
    Ok(entries)
}

fn class_names(folder: &Path) -> Result<Vec<String>> {
    let names: Vec<String> =
        entries(folder)?.into_iter().filter(|(_, path)| path.is_dir()).map(|(name, _)| name).collect();
    if names.is_empty() {
        return Err(Error::input(
            folder,
            "has no sub-folders; each class has its images in a sub-folder named after it",
        ));
    }
    Ok(names)
}

fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let paths = entries(folder)?.into_iter().map(|(_, path)| path);
    let (pictures, others): (Vec<_>, Vec<_>) = paths.partition(|path| picture::is_called_picture(path));
    if !others.is_empty() {
        tracing::warn!(
            "{}: {} entries are not called pictures ({}) and are passed over",
            folder.display(),
            others.len(),
            picture::EXTENSIONS.join(", ")
        );
    }
    Ok(pictures)
}

fn check_same_classes(folder: &Path, train: &[String], test: &[String]) -> Result<()> {
    let missing: Vec<&str> = train.iter().filter(|name| !test.contains(name)).map(String::as_str).collect();
    let unknown: Vec<&str> = test.iter().filter(|name| !train.contains(name)).map(String::as_str).collect();
    if missing.is_empty() && unknown.is_empty() {
        return Ok(());
    }
    let mut problem = format!("has not the {} classes of train:", train.len());
    if !missing.is_empty() {
        problem += &format!(" it lacks {}", few(&missing));
    }
    if !unknown.is_empty() {
        let joint = if missing.is_empty() { "" } else { " and" };
        problem += &format!("{joint} it has {}, which train has not", few(&unknown));
    }
    Err(Error::input(folder, problem))
}

/// At most five names, and how many more there are.
fn few(names: &[&str]) -> String {
    let shown = names[..names.len().min(5)].join(", ");
    if names.len() > 5 { format!("{shown} and {} more", names.len() - 5) } else { shown }
}
