//! Letters for pictures. The font is in the binary: a browser gives none to WebAssembly, and a clean machine has none.

use ab_glyph::{Font, FontRef, PxScaleFont, ScaleFont, point};

use crate::error::{Error, Result};
use crate::export::Picture;

/// A font at a size.
pub(super) struct Face {
    font: PxScaleFont<FontRef<'static>>,
}

impl Face {
    /// The embedded font at `size` pixels an em, which is what `font-size` means in CSS and SVG.
    pub(super) fn new(size: f32) -> Result<Self> {
        let font = FontRef::try_from_slice(ttf_noto_sans::REGULAR)
            .map_err(|error| Error::BadInput(format!("the font in the binary cannot be read: {error}")))?;
        // The library scales by the height from ascent to descent.
        let height = font.units_per_em().map_or(1.0, |em| font.height_unscaled() / em);
        Ok(Face { font: font.into_scaled(size * height) })
    }

    /// Pixels from the first to behind the last letter.
    pub(super) fn width(&self, text: &str) -> f32 {
        text.chars().map(|c| self.font.h_advance(self.font.glyph_id(c))).sum()
    }

    /// Pixels from the top of a line to its baseline.
    pub(super) fn ascent(&self) -> f32 {
        self.font.ascent()
    }

    /// `text` in lines of at most `width` pixels, broken between words where that can be. At least one letter a line.
    pub(super) fn wrap(&self, text: &str, width: f32) -> Vec<String> {
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            let line = lines.last().cloned().unwrap_or_default();
            let joined = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if self.width(&joined) <= width {
                lines.pop();
                lines.push(joined);
                continue;
            }
            if line.is_empty() {
                lines.pop();
            }
            lines.extend(self.pieces(word, width));
        }
        lines
    }

    /// A word that may be longer than a line.
    fn pieces(&self, word: &str, width: f32) -> Vec<String> {
        let mut pieces = vec![String::new()];
        for c in word.chars() {
            let mut last = pieces.pop().unwrap_or_default();
            let fits = self.width(&last) + self.font.h_advance(self.font.glyph_id(c)) <= width;
            if !fits && !last.is_empty() {
                pieces.push(std::mem::take(&mut last));
            }
            last.push(c);
            pieces.push(last);
        }
        pieces
    }

    /// Draws one line with its baseline's left end at (x, y); what is outside the picture is cut off.
    pub(super) fn draw(&self, picture: &mut Picture, [x, y]: [f32; 2], text: &str, color: [u8; 3]) {
        let mut pen = x;
        for c in text.chars() {
            let id = self.font.glyph_id(c);
            let glyph = id.with_scale_and_position(self.font.scale(), point(pen, y));
            pen += self.font.h_advance(id);
            let Some(outline) = self.font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|dx, dy, coverage| {
                let (px, py) = (corner.x + dx as f32, corner.y + dy as f32);
                if px >= 0.0 && py >= 0.0 && (px as usize) < picture.width && (py as usize) < picture.height {
                    blend(picture, px as usize, py as usize, color, coverage);
                }
            });
        }
    }
}

/// Lays `color` over a pixel, which must be inside.
pub(super) fn blend(picture: &mut Picture, x: usize, y: usize, color: [u8; 3], opacity: f32) {
    let at = 3 * (y * picture.width + x);
    for (under, over) in picture.rgb[at..at + 3].iter_mut().zip(color) {
        let mixed = f32::from(*under) + (f32::from(over) - f32::from(*under)) * opacity.clamp(0.0, 1.0);
        *under = mixed.round() as u8;
    }
}
