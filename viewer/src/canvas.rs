//! Pictures on the screen: how a photo and what the model sees of it lie to each other, and their textures.

use std::collections::HashMap;

use egui::{Color32, ColorImage, Pos2, Rect, Stroke, StrokeKind, TextureHandle, TextureOptions, Ui, Vec2, pos2, vec2};

use crate::error::Result;
use crate::job::{Job, Repaint, Stage};
use crate::pictures::{Entry, Gallery, Photo};

/// Pictures up to this many pixels a side are drawings, whose pixels are magnified as they are.
const DRAWING: usize = 128;
/// How much of the background covers what the model does not see.
const DIMMED: f32 = 0.68;

/// Where a picture lies on the screen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    /// The picture.
    pub(crate) photo: Rect,
    /// What the model sees: maps lie over it. It reaches beyond the picture where that gets a border.
    pub(crate) seen: Rect,
}

/// A picture in units of its own width and height: all of it and what the model sees.
fn extent(entry: &Entry) -> (Rect, Rect) {
    let unit = Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0));
    let seen = entry.photo.as_ref().map_or(unit, |photo| {
        let [[left, right], [top, bottom]] = photo.frame().map(|edges| edges.map(|edge| edge as f32));
        Rect::from_min_max(pos2(left, top), pos2(right, bottom))
    });
    (unit.union(seen), seen)
}

/// Width and height of what is shown of a picture, in its pixels.
fn proportions(gallery: &Gallery, index: usize) -> Vec2 {
    let shape = vec2(gallery.shape.width as f32, gallery.shape.height as f32);
    let Some(entry) = gallery.entries.get(index) else { return shape };
    let size = entry.photo.as_ref().map_or(shape, Photo::proportions);
    extent(entry).0.size() * size
}

/// The largest size of a picture's proportions inside of `space`; thin ones keep a point.
pub(crate) fn fit(gallery: &Gallery, index: usize, space: Vec2) -> Vec2 {
    inside(proportions(gallery, index), space)
}

fn inside(size: Vec2, space: Vec2) -> Vec2 {
    let aspect = size.x.max(1e-6) / size.y.max(1e-6);
    let fitted =
        if space.y * aspect <= space.x { vec2(space.y * aspect, space.y) } else { vec2(space.x, space.x / aspect) };
    fitted.max(Vec2::splat(1.0))
}

/// Where a picture lies in `rect`: as large as fits, in the middle.
pub(crate) fn place(gallery: &Gallery, index: usize, rect: Rect) -> Place {
    let Some(entry) = gallery.entries.get(index) else { return Place { photo: rect, seen: rect } };
    let whole = Rect::from_center_size(rect.center(), fit(gallery, index, rect.size()));
    let (all, seen) = extent(entry);
    let onto = |part: Rect| {
        let at = |point: Pos2| whole.min + (point - all.min) / all.size() * whole.size();
        Rect::from_min_max(at(part.min), at(part.max))
    };
    Place { photo: onto(Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0))), seen: onto(seen) }
}

/// The textures of what is shown: small ones of all pictures, and a large one of that which is looked at.
#[derive(Default)]
pub(crate) struct Textures {
    small: HashMap<usize, TextureHandle>,
    large: Large,
}

/// The picture that is looked at, as large as it is shown.
#[derive(Default)]
struct Large {
    /// Its number.
    of: Option<usize>,
    decoded: Stage<ColorImage>,
    texture: Option<TextureHandle>,
}

impl Textures {
    /// Other pictures.
    pub(crate) fn clear(&mut self) {
        *self = Textures::default();
    }

    /// Whether a picture is still being decoded.
    pub(crate) fn is_coming(&self) -> bool {
        self.large.decoded.is_coming()
    }

    /// Sees to it that the picture that is looked at comes in its full size, in a thread of its own.
    pub(crate) fn look_at(&mut self, gallery: &Gallery, index: usize, repaint: &Repaint) -> Result<()> {
        if self.large.of != Some(index) {
            self.large = Large { of: Some(index), ..Large::default() };
            let photo = gallery.entries.get(index).and_then(|entry| entry.photo.clone());
            if let Some(photo) = photo.filter(|photo| !photo.is_small()) {
                let decode = move || async move { photo.large() };
                self.large.decoded = Stage::Coming(Job::spawn(repaint.clone(), decode));
            }
        }
        self.large.decoded.settle()?;
        Ok(())
    }

    /// Draws the whole picture number `index` into `rect`, as large as fits, and nothing else.
    pub(crate) fn draw_small(&mut self, ui: &Ui, gallery: &Gallery, index: usize, rect: Rect) {
        let Some(entry) = gallery.entries.get(index) else { return };
        let size = entry.photo.as_ref().map_or_else(|| proportions(gallery, index), |photo| photo.proportions());
        let texture = self.texture(ui, gallery, entry, index);
        let all = Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0));
        let rect = Rect::from_center_size(rect.center(), inside(size, rect.size()));
        ui.painter().image(texture, rect, all, Color32::WHITE);
    }

    /// Draws picture number `index` into `rect`, as large as fits, with what the model does not see of it dimmed; None if
    /// there is none.
    pub(crate) fn draw(&mut self, ui: &Ui, gallery: &Gallery, index: usize, rect: Rect) -> Option<Place> {
        let entry = gallery.entries.get(index)?;
        let place = place(gallery, index, rect);
        let texture = self.texture(ui, gallery, entry, index);
        let painter = ui.painter();
        if let Some([red, green, blue]) = entry.photo.as_ref().map(|photo| photo.fill())
            && !place.photo.contains_rect(place.seen)
        {
            painter.rect_filled(place.seen, 0.0, Color32::from_rgb(red, green, blue));
        }
        let all = Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0));
        painter.image(texture, place.photo, all, Color32::WHITE);
        dim(ui, place);
        Some(place)
    }

    fn texture(&mut self, ui: &Ui, gallery: &Gallery, entry: &Entry, index: usize) -> egui::TextureId {
        if self.large.of == Some(index) {
            if let Some(image) = self.large.decoded.take_ready() {
                self.large.texture = Some(load(ui, format!("picture {index}"), image));
            }
            if let Some(texture) = &self.large.texture {
                return texture.id();
            }
        }
        let small = || load(ui, format!("image {index}"), gallery.color_image(entry));
        self.small.entry(index).or_insert_with(small).id()
    }
}

fn load(ui: &Ui, name: String, image: ColorImage) -> TextureHandle {
    let is_drawing = image.size.iter().all(|&side| side <= DRAWING);
    ui.ctx().load_texture(name, image, if is_drawing { TextureOptions::NEAREST } else { TextureOptions::LINEAR })
}

/// Dims what lies outside of what the model sees, and frames that.
fn dim(ui: &Ui, Place { photo, seen }: Place) {
    let inner = photo.intersect(seen);
    let strips = [
        Rect::from_min_max(photo.min, pos2(photo.max.x, inner.min.y)),
        Rect::from_min_max(pos2(photo.min.x, inner.max.y), photo.max),
        Rect::from_min_max(pos2(photo.min.x, inner.min.y), pos2(inner.min.x, inner.max.y)),
        Rect::from_min_max(pos2(inner.max.x, inner.min.y), pos2(photo.max.x, inner.max.y)),
    ];
    let color = ui.visuals().panel_fill.gamma_multiply(DIMMED);
    let mut is_cut = false;
    for strip in strips.into_iter().filter(|strip| strip.width() > 0.5 && strip.height() > 0.5) {
        ui.painter().rect_filled(strip, 0.0, color);
        is_cut = true;
    }
    if is_cut {
        let stroke = Stroke::new(1.0, ui.visuals().strong_text_color());
        ui.painter().rect_stroke(seen, 0.0, stroke, StrokeKind::Outside);
    }
}

#[cfg(test)]
mod tests {
    use lara_models::data::picture::{CropMode, Interpolation};
    use lara_models::data::{ImageShape, Preprocess};

    use super::*;

    /// A photo of 640 x 427 pixels for a model of 224.
    fn photo(mode: CropMode, crop_pct: f64) -> Gallery {
        let shape = ImageShape { channels: 3, height: 224, width: 224 };
        let mut bytes = Vec::new();
        let picture = image::RgbImage::from_fn(640, 427, |x, y| image::Rgb([x as u8, y as u8, 0]));
        picture.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).expect("it can be encoded");
        let mut gallery = Gallery::empty(shape);
        let preprocess = Preprocess::timm(shape, crop_pct, mode, Interpolation::Bicubic);
        gallery.add("photo.png", &bytes, &preprocess).expect("a picture");
        gallery
    }

    fn near(found: Rect, left: f32, top: f32, right: f32, bottom: f32) {
        let wanted = Rect::from_min_max(pos2(left, top), pos2(right, bottom));
        assert!((found.min - wanted.min).length() < 1.5 && (found.max - wanted.max).length() < 1.5, "{found} {wanted}");
    }

    #[test]
    fn a_photo_is_as_large_as_fits_and_the_model_sees_what_it_cuts_out() {
        let space = Rect::from_min_size(pos2(10.0, 20.0), vec2(640.0, 627.0));
        let place = |mode, crop_pct| place(&photo(mode, crop_pct), 0, space);
        let cut = place(CropMode::Center, 0.875);
        near(cut.photo, 10.0, 120.0, 650.0, 547.0);
        // 80 of 383 columns are cut off on the left, 16 of 256 rows above.
        near(cut.seen, 10.0 + 133.7, 120.0 + 26.7, 10.0 + 508.0, 120.0 + 400.3);
        let squashed = place(CropMode::Squash, 1.0);
        assert_eq!(squashed.photo, squashed.seen);
        near(squashed.photo, 10.0, 120.0, 650.0, 547.0);
        // With its border it is a square of 627 in the middle.
        let bordered = place(CropMode::Border, 1.0);
        near(bordered.seen, 16.5, 20.0, 643.5, 647.0);
        near(bordered.photo, 16.5, 20.0 + 37.0 / 224.0 * 627.0, 643.5, 20.0 + 186.0 / 224.0 * 627.0);
    }

    #[test]
    fn the_thinnest_picture_keeps_a_point() {
        assert_eq!(inside(vec2(1.0, 2e7), vec2(100.0, 100.0)), vec2(1.0, 100.0));
        assert_eq!(inside(vec2(0.0, 0.0), vec2(100.0, 50.0)), vec2(50.0, 50.0));
    }
}
