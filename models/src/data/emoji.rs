//! Emoji as pictures, from the npm packages `emoji-datasource-google` (Noto, Apache-2.0) and `emoji-datasource-twitter`
//! (Twemoji, CC BY 4.0): 3,786 drawings of 64x64 each, in ten categories.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Dataset, Fingerprint, ImageDataset, ImageShape, Open, Place, Sample, Split, picture};
use crate::error::{Error, Result};
use crate::random::{Draws, Purpose};

const SHAPE: ImageShape = ImageShape { channels: 3, height: 64, width: 64 };

/// Who drew them.
const VENDORS: [&str; 2] = ["google", "twitter"];

/// The split is part of the data set's definition and must never depend on a run's seed.
const SPLIT_SEED: u64 = 2010;

/// What is behind a drawing: its transparent parts show it.
const PAPER: [u8; 3] = [255; 3];

/// One split of the emoji: one in five of every category is held out.
///
/// An emoji is held out with all its skin tones, by whomever they are drawn, and with the emoji that look the same (some
/// flags, some families): no picture is in both splits. Drawings are laid on white.
#[derive(Debug)]
pub struct Emoji {
    files: Vec<(PathBuf, u32)>,
    classes: Vec<String>,
}

/// What `emoji.json` says of one.
#[derive(Deserialize)]
struct Listed {
    image: String,
    category: String,
    #[serde(flatten)]
    drawn: DrawnBy,
    #[serde(default)]
    skin_variations: BTreeMap<String, Variation>,
}

#[derive(Deserialize)]
struct Variation {
    image: String,
    #[serde(flatten)]
    drawn: DrawnBy,
}

/// By whom there is a drawing; a list that does not say so means by everybody.
#[derive(Clone, Copy, Deserialize)]
struct DrawnBy {
    has_img_google: Option<bool>,
    has_img_twitter: Option<bool>,
}

impl DrawnBy {
    fn has(self, vendor: &str) -> bool {
        let says = if vendor == VENDORS[0] { self.has_img_google } else { self.has_img_twitter };
        says.unwrap_or(true)
    }
}

impl Emoji {
    /// Lists a split of the packages in `root`: unpacked as `google` and `twitter` (where `lara data emoji` puts them) or
    /// `emoji-datasource-google` and `emoji-datasource-twitter` (as in `node_modules`); one of the two will do.
    ///
    /// # Errors
    /// A package without its list, or without pictures that it lists: how many, and the first by name.
    pub fn open(root: impl AsRef<Path>, split: Split) -> Result<Self> {
        let root = root.as_ref();
        let packages: Vec<(&str, PathBuf)> = VENDORS
            .iter()
            .filter_map(|vendor| {
                let places = [vendor.to_string(), format!("emoji-datasource-{vendor}")].map(|name| root.join(name));
                places.into_iter().find(|place| place.is_dir()).map(|place| (*vendor, place))
            })
            .collect();
        let Some((_, first)) = packages.first() else {
            let problem = "has neither of the folders google and twitter; `lara data emoji` fetches them";
            return Err(Error::input(root, problem));
        };
        let list = first.join("emoji.json");
        let text = fs::read(&list).map_err(Error::io("read", &list))?;
        let mut listed: Vec<Listed> = serde_json::from_slice(&text)
            .map_err(|error| Error::input(&list, format!("is no list of emoji: {error}")))?;
        listed.sort_by(|a, b| a.image.cmp(&b.image));
        let mut classes: Vec<String> = listed.iter().map(|emoji| emoji.category.clone()).collect();
        classes.sort();
        classes.dedup();
        let drawn: Vec<Vec<PathBuf>> = listed.iter().map(|emoji| drawings(emoji, &packages)).collect();
        refuse_missing(root, &drawn)?;
        let families = families(&drawn)?;
        let mut files = Vec::new();
        for (label, class) in classes.iter().enumerate() {
            let member = |emoji: usize| listed[emoji].category == *class;
            for emoji in chosen(&families, label as u64, member, split) {
                files.extend(drawn[emoji].iter().cloned().map(|path| (path, label as u32)));
            }
        }
        files.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        Ok(Self { files, classes })
    }
}

/// All drawings that there are of an emoji, as the list says.
fn drawings(emoji: &Listed, packages: &[(&str, PathBuf)]) -> Vec<PathBuf> {
    let images: Vec<(&str, DrawnBy)> = std::iter::once((emoji.image.as_str(), emoji.drawn))
        .chain(emoji.skin_variations.values().map(|variation| (variation.image.as_str(), variation.drawn)))
        .collect();
    let of_package = |(vendor, place): &(&str, PathBuf)| {
        let folder = place.join("img").join(vendor).join("64");
        let drawn = images.iter().filter(|(_, drawn)| drawn.has(vendor));
        drawn.map(|(image, _)| folder.join(image)).collect::<Vec<_>>()
    };
    packages.iter().flat_map(of_package).collect()
}

/// Fewer drawings would be another data set under the same name: accuracies of the two are not to be compared.
fn refuse_missing(root: &Path, drawn: &[Vec<PathBuf>]) -> Result<()> {
    let all: Vec<&PathBuf> = drawn.iter().flatten().collect();
    let missing: Vec<&&PathBuf> = all.iter().filter(|path| !path.is_file()).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let first = first.strip_prefix(root).unwrap_or(first).display();
    let problem = format!(
        "lacks {} of the {} pictures that its list has, the first is {first}; delete the folder and fetch it again with \
         `lara data emoji`",
        missing.len(),
        all.len()
    );
    Err(Error::input(root, problem))
}

/// For every emoji the first one that it shares a drawing with, directly or over others: itself if it shares none.
fn families(drawn: &[Vec<PathBuf>]) -> Result<Vec<usize>> {
    let mut first: Vec<usize> = (0..drawn.len()).collect();
    let root = |first: &[usize], mut emoji: usize| {
        while first[emoji] != emoji {
            emoji = first[emoji];
        }
        emoji
    };
    let mut seen: BTreeMap<(usize, u32), usize> = BTreeMap::new();
    for (emoji, path) in drawn.iter().enumerate().flat_map(|(emoji, paths)| paths.iter().map(move |path| (emoji, path)))
    {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let other = *seen.entry((bytes.len(), crc32fast::hash(&bytes))).or_insert(emoji);
        let [a, b] = [other, emoji].map(|emoji| root(&first, emoji));
        first[a.max(b)] = a.min(b);
    }
    Ok((0..drawn.len()).map(|emoji| root(&first, emoji)).collect())
}

/// The emoji of a category that are in a split.
fn chosen(families: &[usize], category: u64, member: impl Fn(usize) -> bool, split: Split) -> Vec<usize> {
    // A family is in the category of its first member, as a whole.
    let mut by_family: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (emoji, &family) in families.iter().enumerate().filter(|(_, family)| member(**family)) {
        by_family.entry(family).or_default().push(emoji);
    }
    let mut groups: Vec<Vec<usize>> = by_family.into_values().collect();
    Draws::new(SPLIT_SEED, Purpose::Split, 0, category).shuffle(&mut groups);
    let tests = groups.iter().map(Vec::len).sum::<usize>().div_ceil(5);
    let mut taken = 0;
    let (held_out, kept): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| {
        let is_held_out = taken < tests;
        taken += group.len();
        is_held_out
    });
    let groups = if split == Split::Test { held_out } else { kept };
    groups.into_iter().flatten().collect()
}

impl Open for Emoji {
    fn open_split(place: &Place<'_>, split: Split) -> Result<Self> {
        Self::open(place.path, split)
    }
}

impl ImageDataset for Emoji {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn image_shape(&self) -> ImageShape {
        SHAPE
    }
}

impl Dataset for Emoji {
    type Item = Sample;

    fn name(&self) -> &str {
        "emoji"
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn fingerprint(&self) -> Fingerprint {
        let names = self.files.iter().flat_map(|(path, label)| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            [self.classes[*label as usize].as_str(), name]
        });
        Fingerprint::of(self.len(), names)
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let (path, label) = self.files.get(index).ok_or_else(|| {
            Error::Failed(format!("the data set emoji has {} images here; number {index} was asked for", self.len()))
        })?;
        let picture = picture::load_over(path, PAPER)?.with_channels(3);
        if (picture.width(), picture.height()) != (64, 64) {
            let problem = format!("has {}x{} pixels where 64x64 are expected", picture.width(), picture.height());
            return Err(Error::input(path, problem));
        }
        Ok(Sample { pixels: picture.planes(), label: *label })
    }
}
