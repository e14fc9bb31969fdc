//! Images to look at: of the embedded digits, of files and folders, and dropped ones.

use std::sync::Arc;

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

impl Gallery {
    /// The first `count` held-out digits.
    ///
    /// # Errors
    /// Never: the digits are in the program.
    pub fn digits(count: usize) -> Result<Self> {
        Self::of(&Digits::new(Split::Test), count)
    }

    /// The first `count` images of a data set.
    ///
    /// # Errors
    /// A file of the data set that cannot be read.
    pub fn of(dataset: &dyn ImageDataset, count: usize) -> Result<Self> {
        let entry = |index: usize| -> Result<Entry> {
            let sample = dataset.get(index)?;
            let name = format!("{} {index}", dataset.name());
            Ok(Entry { name, pixels: Arc::new(sample.pixels), label: Some(sample.label as usize) })
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
        let pixels = preprocess.read_bytes(name, bytes)?;
        self.entries.push(Entry { name: name.to_owned(), pixels: Arc::new(pixels), label: None });
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
            gallery.add(&name, &bytes, preprocess)?;
        }
        if gallery.entries.is_empty() {
            return Err(Error::bad_input(format!("{} holds no picture (PNG, JPEG, WebP, GIF or BMP)", path.display())));
        }
        Ok(gallery)
    }

    /// An image as pixels for a texture: grey or RGB, 8 bits.
    pub fn color_image(&self, entry: &Entry) -> egui::ColorImage {
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
