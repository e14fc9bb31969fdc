//! A tensor as it lies in a file.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype;

/// A tensor of a file: its type, its sizes, and where its bytes lie. Parts of it, and tensors put together of several, share
/// these bytes.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) pieces: Vec<(Arc<Vec<u8>>, Range<usize>)>,
}

impl Stored {
    /// New values.
    pub(crate) fn of(shape: Vec<usize>, values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let all = 0..bytes.len();
        Stored { dtype: Dtype::F32, shape, pieces: vec![(Arc::new(bytes), all)] }
    }

    /// Numbers of a type as they lie in a file.
    pub(crate) fn within(dtype: Dtype, shape: Vec<usize>, bytes: Arc<Vec<u8>>, range: Range<usize>) -> Self {
        Stored { dtype, shape, pieces: vec![(bytes, range)] }
    }

    /// Its sizes.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The same numbers under other sizes, as many.
    pub(crate) fn reshaped(mut self, shape: Vec<usize>) -> Self {
        debug_assert_eq!(self.shape.iter().product::<usize>(), shape.iter().product::<usize>());
        self.shape = shape;
        self
    }

    /// Some of the rows (the first dimension), which must be there.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Self {
        let mut part = Stored { dtype: self.dtype, shape: self.shape.clone(), pieces: Vec::new() };
        let count = part.shape.first_mut().map_or(1, |count| std::mem::replace(count, rows.len()));
        let all: usize = self.pieces.iter().map(|(_, range)| range.len()).sum();
        let row = all / count.max(1);
        let (begin, end, mut at) = (rows.start * row, rows.end * row, 0);
        for (bytes, range) in &self.pieces {
            // Where the wanted bytes lie within this piece.
            let [from, to] = [begin, end].map(|place| place.clamp(at, at + range.len()) - at);
            if from < to {
                part.pieces.push((bytes.clone(), range.start + from..range.start + to));
            }
            at += range.len();
        }
        part
    }

    /// Rows of zeros as wide as these, and of the same type.
    pub(crate) fn zeros(&self, rows: usize) -> Self {
        let row = self.rows(0..1);
        let len = rows * row.bytes().len();
        let shape = [&[rows], row.shape.get(1..).unwrap_or_default()].concat();
        Stored { dtype: self.dtype, shape, pieces: vec![(Arc::new(vec![0; len]), 0..len)] }
    }

    /// Tensors one below the other, if they are of one type and their rows of one size.
    pub(crate) fn stacked(parts: &[Self]) -> Option<Self> {
        let (first, rest) = parts.split_first()?;
        let mut whole = first.clone();
        for part in rest {
            if part.dtype != first.dtype || part.shape.get(1..) != first.shape.get(1..) {
                return None;
            }
            *whole.shape.first_mut()? += part.shape.first()?;
            whole.pieces.extend(part.pieces.iter().cloned());
        }
        Some(whole)
    }

    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.pieces[..] {
            [(bytes, range)] => Cow::Borrowed(&bytes[range.clone()]),
            pieces => Cow::Owned(pieces.iter().flat_map(|(bytes, range)| &bytes[range.clone()]).copied().collect()),
        }
    }
}
