//! Images to look at: what comes with the program, of files and folders, and dropped ones.

use std::sync::Arc;

use lara_explain::{DRAWINGS, export};
use lara_models::Model;
use lara_models::data::picture::{Interpolation, Picture, Resize, from_bytes};
use lara_models::data::{Digits, ImageDataset, ImageShape, Preprocess, Split};

#[cfg(not(target_arch = "wasm32"))]
use crate::error::Error;
use crate::error::Result;

/// One image, as the data set or the file gave it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// File name, or number in the data set.
    pub name: String,
    /// [C, H, W], values in 0..1.
    pub pixels: Arc<Vec<f32>>,
    /// The true class, where it is known.
    pub label: Option<usize>,
    /// The whole picture, where it is more than what the model sees.
    pub photo: Option<Photo>,
}

/// A picture of any size of which a model sees a part. It is kept as its file, and decoded again when it is looked at.
#[derive(Clone, Debug)]
pub struct Photo {
    name: String,
    source: Source,
    size: [u32; 2],
    frame: [[f64; 2]; 2],
    fill: [u8; 3],
    thumbnail: Arc<egui::ColorImage>,
}

/// Where its file is.
#[derive(Clone, Debug)]
enum Source {
    Bytes(Arc<[u8]>),
    #[cfg(not(target_arch = "wasm32"))]
    File(std::path::PathBuf),
}

/// The longer side of a thumbnail, and of a picture on the screen, in pixels.
const THUMBNAIL: u32 = 192;
const LARGE: u32 = 1600;

impl Photo {
    fn new(name: &str, source: Source, picture: &Picture, preprocess: &Preprocess) -> Self {
        let size = [picture.width(), picture.height()];
        // A grey model fills a border with one number.
        let fill = [0, 1, 2].map(|c| preprocess.fill.get(c).or(preprocess.fill.last()).copied().unwrap_or(0));
        let thumbnail = Arc::new(color_image(&shrunk(picture, THUMBNAIL)));
        Photo { name: name.to_owned(), source, size, frame: preprocess.frame(size), fill, thumbnail }
    }

    /// Width and height in pixels.
    pub(crate) fn proportions(&self) -> egui::Vec2 {
        egui::Vec2::from(self.size.map(|side| side as f32))
    }

    /// Where the model's image lies in it, as [`Preprocess::frame`] says.
    pub fn frame(&self) -> [[f64; 2]; 2] {
        self.frame
    }

    /// The colour of what the model sees beyond it.
    pub fn fill(&self) -> [u8; 3] {
        self.fill
    }

    /// Whether the thumbnail is all there is.
    pub fn is_small(&self) -> bool {
        self.size.iter().all(|&side| side <= THUMBNAIL)
    }

    /// The picture as large as it is shown.
    ///
    /// # Errors
    /// A file that has gone.
    pub fn large(&self) -> Result<egui::ColorImage> {
        Ok(color_image(&shrunk(&self.decode()?, LARGE)))
    }

    /// The part that the model sees, in all the detail that an exported map has room for.
    ///
    /// # Errors
    /// A file that has gone.
    pub fn seen(&self, preprocess: &Preprocess) -> Result<export::Picture> {
        Ok(export::Picture::seen(preprocess, self.decode()?)?)
    }

    fn decode(&self) -> Result<Picture> {
        Ok(match &self.source {
            Source::Bytes(bytes) => from_bytes(&self.name, bytes)?,
            #[cfg(not(target_arch = "wasm32"))]
            Source::File(path) => lara_models::data::picture::load(path)?,
        })
    }
}

/// The same picture with no side longer than `most`.
fn shrunk(picture: &Picture, most: u32) -> Picture {
    let (width, height) = (picture.width(), picture.height());
    let longer = width.max(height);
    if longer <= most {
        return picture.clone();
    }
    let side = |side: u32| (u64::from(side) * u64::from(most)).div_ceil(u64::from(longer)).max(1);
    Resize::to([side(width), side(height)], Interpolation::Bilinear).apply(picture)
}

fn color_image(picture: &Picture) -> egui::ColorImage {
    let size = [picture.width() as usize, picture.height() as usize];
    match picture.channels() {
        1 => egui::ColorImage::from_gray(size, picture.pixels()),
        _ => egui::ColorImage::from_rgb(size, picture.pixels()),
    }
}

/// Images of one shape.
#[derive(Clone, Debug)]
pub struct Gallery {
    /// What they are.
    pub name: String,
    /// Their shape.
    pub shape: ImageShape,
    /// Themselves.
    pub entries: Vec<Entry>,
}

/// Digits that are shown to a model of their size.
const DIGITS: usize = 120;

impl Gallery {
    /// What comes with the program, as a model sees it: held-out digits for one of their size, drawings in colour for all
    /// others.
    ///
    /// # Errors
    /// A model that takes no pictures.
    pub fn bundled(subject: &Model) -> Result<Self> {
        let digits = Digits::new(Split::Test);
        if digits.image_shape() == subject.image_shape() {
            return Self::of(&digits, DIGITS);
        }
        Self::drawings(subject)
    }

    fn drawings(subject: &Model) -> Result<Self> {
        let preprocess = subject.preprocess()?;
        let mut gallery = Gallery { name: "emoji, held out".into(), ..Self::empty(preprocess.shape) };
        for drawing in DRAWINGS {
            let at = gallery.add(drawing.name, drawing.png, &preprocess)?;
            gallery.entries[at].label = subject.classes.iter().position(|class| class == drawing.class);
        }
        Ok(gallery)
    }

    /// The first `count` images of a data set.
    ///
    /// # Errors
    /// A file of the data set that cannot be read.
    pub fn of(dataset: &dyn ImageDataset, count: usize) -> Result<Self> {
        let entry = |index: usize| -> Result<Entry> {
            let sample = dataset.get(index)?;
            let name = format!("{} {index}", dataset.name());
            Ok(Entry { name, pixels: Arc::new(sample.pixels), label: Some(sample.label as usize), photo: None })
        };
        let entries = (0..count.min(dataset.len())).map(entry).collect::<Result<_>>()?;
        let name = format!("{}, held out", dataset.name());
        Ok(Gallery { name, shape: dataset.image_shape(), entries })
    }

    /// No image yet, for a model that takes this shape.
    pub fn empty(shape: ImageShape) -> Self {
        Gallery { name: "dropped images".into(), shape, entries: Vec::new() }
    }

    /// Adds the bytes of a picture's file; returns its place.
    ///
    /// # Errors
    /// Bytes that are no image.
    pub fn add(&mut self, name: &str, bytes: &[u8], preprocess: &Preprocess) -> Result<usize> {
        self.take(name, bytes, Source::Bytes(bytes.into()), preprocess)
    }

    fn take(&mut self, name: &str, bytes: &[u8], source: Source, preprocess: &Preprocess) -> Result<usize> {
        let picture = from_bytes(name, bytes)?;
        let photo = Photo::new(name, source, &picture, preprocess);
        let pixels = Arc::new(preprocess.fit(picture)?.planes());
        self.entries.push(Entry { name: name.to_owned(), pixels, label: None, photo: Some(photo) });
        Ok(self.entries.len() - 1)
    }

    /// The images in a folder (told by their names), or a single file.
    ///
    /// # Errors
    /// A folder that cannot be read or has no image, or a file that is none.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &std::path::Path, preprocess: &Preprocess) -> Result<Self> {
        let mut gallery = Gallery { name: path.display().to_string(), shape: preprocess.shape, entries: Vec::new() };
        let files = if path.is_dir() { pictures_in(path)? } else { vec![path.to_path_buf()] };
        for file in files.iter().take(MOST) {
            let bytes = std::fs::read(file).map_err(|source| unreadable(file, source))?;
            let name = file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            gallery.take(&name, &bytes, Source::File(file.clone()), preprocess)?;
        }
        if gallery.entries.is_empty() {
            return Err(Error::bad_input(format!("{} holds no picture (PNG, JPEG, WebP, GIF or BMP)", path.display())));
        }
        Ok(gallery)
    }

    /// An image as pixels for a texture: the whole picture, no larger than a thumbnail, or what the model sees where there is
    /// nothing else.
    pub fn color_image(&self, entry: &Entry) -> egui::ColorImage {
        if let Some(photo) = &entry.photo {
            return (*photo.thumbnail).clone();
        }
        let ImageShape { channels, height, width } = self.shape;
        let plane = height * width;
        let byte =
            |c: usize, i: usize| (entry.pixels[c.min(channels - 1) * plane + i].clamp(0.0, 1.0) * 255.0).round() as u8;
        let rgb: Vec<u8> = (0..plane).flat_map(|i| [0, 1, 2].map(|c| byte(c, i))).collect();
        egui::ColorImage::from_rgb([width, height], &rgb)
    }
}

/// Most images of a folder that are opened.
#[cfg(not(target_arch = "wasm32"))]
const MOST: usize = 500;

#[cfg(not(target_arch = "wasm32"))]
fn pictures_in(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let failed = |source| unreadable(folder, source);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    files.retain(|path| lara_models::data::picture::is_called_picture(path));
    files.sort();
    Ok(files)
}

#[cfg(not(target_arch = "wasm32"))]
fn unreadable(path: &std::path::Path, source: std::io::Error) -> Error {
    lara_models::Error::Io { action: "read", path: path.to_path_buf(), source }.into()
}
