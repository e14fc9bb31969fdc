//! Attention maps as files: pictures (PNG, SVG), numbers (NPY, safetensors) and a page to look at (HTML).
//!
//! [`files`] makes the bytes, also in a browser; [`write()`] puts them into a folder.

pub mod compute;
pub mod html;
pub mod layout;
mod names;
pub mod npy;
pub mod overview;
pub mod png;
pub mod safetensors;
mod scale;
pub mod svg;
mod text;
#[cfg(not(target_arch = "wasm32"))]
mod write;

use lara_models::data::{ImageShape, Preprocess};
use serde::Serialize;

use crate::colormap::Colormap;
use crate::error::{Error, Result};
use crate::map::{Map, Query};

pub use names::{file_stems, folder_names, tensor_names};
pub use scale::{Ends, Scale};
#[cfg(not(target_arch = "wasm32"))]
pub use write::{write, write_files};

/// The largest picture that is drawn, pixels: 64 MiB of grey, 192 MiB of colour.
const MOST_PIXELS: usize = 1 << 26;

/// The largest end of a scale in uniform weights.
const MOST_TIMES: f32 = 1e6;

/// The longer side of what a model sees of a photo, in pixels, unless the model's image is larger.
const DETAIL: usize = 672;

/// A picture of 8-bit sRGB pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// [height, width, 3], row by row.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// The picture of planes [channels, height, width] with values in 0 ..= 1, as models take them: one channel is grey,
    /// of more the first three are red, green and blue.
    ///
    /// # Errors
    /// If there are no pixels or not as many values as the sizes say.
    pub fn from_planes(channels: usize, height: usize, width: usize, values: &[f32]) -> Result<Self> {
        let plane = height.checked_mul(width).filter(|&plane| plane > 0);
        let (Some(plane), true) = (plane, plane.and_then(|p| p.checked_mul(channels)) == Some(values.len())) else {
            let what = format!("{} values are no picture of {channels} x {height} x {width}", values.len());
            return Err(Error::BadInput(what));
        };
        let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
        let channel = |c: usize| if channels < 3 { 0 } else { c };
        let rgb = (0..plane).flat_map(|i| (0..3).map(move |c| byte(values[channel(c) * plane + i]))).collect();
        Ok(Picture { width, height, rgb })
    }

    /// What a model sees of a picture, in as much detail as the picture has and a drawn map has room for.
    ///
    /// # Errors
    /// A model that takes neither grey nor RGB images.
    pub fn seen(preprocess: &Preprocess, picture: lara_models::data::picture::Picture) -> Result<Self> {
        let size = [picture.width(), picture.height()];
        let [across, down] = preprocess.frame(size).map(|[first, last]| last - first);
        let ImageShape { height, width, .. } = preprocess.shape;
        // Pixels of the picture for one of the model's image, the finer way.
        let detail = (across * f64::from(size[0]) / width as f64).max(down * f64::from(size[1]) / height as f64);
        let times = (detail.ceil() as usize).min(DETAIL / height.max(width)).max(1);
        let seen = preprocess.enlarged(times).fit(picture)?.with_channels(3);
        let (width, height) = (seen.width() as usize, seen.height() as usize);
        Ok(Picture { width, height, rgb: seen.pixels().to_vec() })
    }

    /// The pixel at (x, y), which must be inside.
    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let at = 3 * (y * self.width + x);
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// Sets the pixel at (x, y), which must be inside.
    fn set(&mut self, x: usize, y: usize, color: [u8; 3]) {
        let at = 3 * (y * self.width + x);
        self.rgb[at..at + 3].copy_from_slice(&color);
    }
}

/// How numbers become colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// The colour scale. A map with negative values takes the diverging one whatever stands here, so that zero keeps a
    /// colour of its own.
    pub colormap: Colormap,
    /// How much the colours cover the picture, 0 ..= 1.
    pub opacity: f32,
    /// Colours by the logarithm; for maps without negative values.
    pub log_scale: bool,
    /// Values of the scale's ends, for all maps alike; otherwise every map has its own.
    pub shared_range: Option<(f32, f32)>,
    /// The scale goes from 0 to so many times the uniform weight (on a logarithmic one, from its inverse), so that a flat
    /// map is seen to be flat; numbers are told in it. Wins over `shared_range` wherever values are weights.
    pub uniform: Option<f32>,
    /// The colours alone, without the picture under them.
    pub bare: bool,
}

impl Default for Style {
    fn default() -> Self {
        let colormap = Colormap::default();
        Style { colormap, opacity: 0.6, log_scale: false, shared_range: None, uniform: None, bare: false }
    }
}

/// Maps of one picture, to be exported together.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// What heads the page.
    pub title: String,
    /// What the picture is called.
    pub image_name: String,
    /// What the model saw, at its own resolution or in more detail.
    pub picture: Picture,
    /// The maps, all of this picture.
    pub maps: Vec<Map>,
    /// Their colours.
    pub style: Style,
    /// What else is to be known: checkpoint, adapter, prediction.
    pub notes: Vec<(String, String)>,
}

impl Sheet {
    /// Whether the parts go together.
    ///
    /// # Errors
    /// A sentence with the numbers that do not.
    pub fn check(&self) -> Result<()> {
        let Picture { width, height, ref rgb } = self.picture;
        let bytes = width.checked_mul(height).and_then(|n| n.checked_mul(3)).filter(|&n| n > 0);
        if bytes != Some(rgb.len()) {
            let what =
                format!("the picture has {} bytes; {width} x {height} pixels have width x height x 3", rgb.len());
            return bad(what);
        }
        if !(0.0..=1.0).contains(&self.style.opacity) {
            return bad(format!("the opacity is {}; it goes from 0 to 1", self.style.opacity));
        }
        if let Some((low, high)) = self.style.shared_range
            && !(low.is_finite() && high.is_finite() && low < high)
        {
            return bad(format!("the shared range goes from {low} to {high}; it has to rise, between finite numbers"));
        }
        if let Some(times) = self.style.uniform
            && !(times > 1.0 && times <= MOST_TIMES)
        {
            return bad(format!(
                "the scale goes up to {times} times the uniform weight; choose a number above 1 and up to {MOST_TIMES}"
            ));
        }
        if self.maps.is_empty() {
            return bad(format!("there is no map of {} to export; choose a layer and a head", self.image_name));
        }
        self.maps.iter().try_for_each(check_map)
    }

    /// The map at `index`.
    fn map(&self, index: usize) -> Result<&Map> {
        let count = self.maps.len();
        self.maps.get(index).ok_or_else(|| {
            Error::BadInput(format!("map {index} was asked for, but the sheet has {count} (counted from 0)"))
        })
    }
}

fn bad<T>(what: String) -> Result<T> {
    Err(Error::BadInput(what))
}

fn check_map(map: &Map) -> Result<()> {
    let [rows, columns] = map.grid;
    let Some(patches) = rows.checked_mul(columns).filter(|&n| n > 0) else {
        return bad(format!(
            "the map {} has a grid of {rows} x {columns} patches; it needs at least 1 x 1",
            map.title()
        ));
    };
    if patches.checked_add(map.prefix) != Some(map.values.len()) {
        return bad(format!(
            "the map {} has {} values, but {} tokens before the patches and {rows} x {columns} patches",
            map.title(),
            map.values.len(),
            map.prefix
        ));
    }
    let queries = map.query_grid[0].saturating_mul(map.query_grid[1]);
    match map.query {
        Query::Patch(at) if at >= queries => {
            bad(format!("the map {} is of patch number {at}, but there are only {queries}, from 0", map.title()))
        }
        _ => Ok(()),
    }
}

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One picture a map: the map over the image, with a colour bar.
    Png,
    /// The same as vectors; every patch tells its value.
    Svg,
    /// All maps as one array [maps, tokens] of f32 for NumPy, and a JSON file that says which row is what.
    Npy,
    /// All maps as named tensors with their labels.
    Safetensors,
    /// One page with all maps, to be looked at in a browser.
    Html,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 5] = [Format::Png, Format::Svg, Format::Npy, Format::Safetensors, Format::Html];

    /// Name on the command line and ending of the files.
    pub fn name(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Svg => "svg",
            Format::Npy => "npy",
            Format::Safetensors => "safetensors",
            Format::Html => "html",
        }
    }

    /// The format with this name.
    ///
    /// # Errors
    /// An unknown name; the error lists the known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Format::name).join(", ");
            Error::BadInput(format!("there is no format `{name}`; maps are exported as {known}"))
        })
    }
}

/// A file to be: its name and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Of `a-z`, `0-9`, `-`, `_` and `.` alone.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The files of a sheet, in the order of `formats`. Names are unique.
///
/// # Errors
/// If the sheet's parts do not go together (see [`Sheet::check`]) or a format cannot hold them.
pub fn files(sheet: &Sheet, formats: &[Format]) -> Result<Vec<File>> {
    let mut files = Vec::new();
    each_file(sheet, formats, &mut |file| {
        files.push(file);
        Ok(())
    })?;
    Ok(files)
}

/// As [`files`], one at a time: many large pictures need not be in memory together.
fn each_file(sheet: &Sheet, formats: &[Format], take: &mut dyn FnMut(File) -> Result<()>) -> Result<()> {
    sheet.check()?;
    let stems = file_stems(&sheet.maps);
    for (at, &format) in formats.iter().enumerate() {
        if formats[..at].contains(&format) {
            continue;
        }
        let named = |stem: &str, bytes| File { name: format!("{stem}.{}", format.name()), bytes };
        match format {
            Format::Png => {
                for (index, stem) in stems.iter().enumerate() {
                    take(named(stem, png::encode(sheet, index)?))?;
                }
            }
            Format::Svg => {
                for (index, stem) in stems.iter().enumerate() {
                    take(named(stem, svg::encode(sheet, index)?.into_bytes()))?;
                }
            }
            Format::Npy => {
                take(named("maps", npy::encode(&sheet.maps)?))?;
                take(File { name: "maps.npy.json".into(), bytes: json(&labels(&sheet.maps))? })?;
            }
            Format::Safetensors => take(named("maps", safetensors::encode(sheet)?))?,
            Format::Html => take(named("maps", html::encode(sheet)?.into_bytes()))?,
        }
    }
    Ok(())
}

/// What is to be known of a map besides its values.
#[derive(Clone, Debug, Serialize)]
struct Label<'a> {
    name: String,
    title: String,
    mechanism: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<usize>,
    query: Query,
    /// Where it is another grid than the map's.
    #[serde(skip_serializing_if = "Option::is_none")]
    query_grid: Option<[usize; 2]>,
    grid: [usize; 2],
    prefix: usize,
}

/// The labels of maps, in their order; names are those of the tensors.
fn labels(maps: &[Map]) -> Vec<Label<'_>> {
    maps.iter()
        .zip(tensor_names(maps))
        .map(|(map, name)| Label {
            name,
            title: map.title(),
            mechanism: &map.mechanism,
            kind: map.kind.name(),
            layer: map.layer,
            head: map.head,
            query: map.query,
            query_grid: (map.query_grid != map.grid).then_some(map.query_grid),
            grid: map.grid,
            prefix: map.prefix,
        })
        .collect()
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::BadInput(format!("the labels cannot be written as JSON: {error}")))
}
