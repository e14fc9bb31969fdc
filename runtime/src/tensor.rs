//! A tensor is a name for a buffer-to-be: an identity within one recording and a shape.

use std::fmt;

/// Most elements of a tensor: kernels count in u32. Lengths saturate at it where `usize` has 32 bits, as in a browser, so
/// that no product of sizes wraps into something small.
pub const MOST_ELEMENTS: usize = u32::MAX as usize - 1;

/// What the elements of a tensor are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Single precision.
    #[default]
    F32,
}

impl Dtype {
    /// Bytes of an element.
    pub fn size(self) -> u64 {
        match self {
            Dtype::F32 => 4,
        }
    }

    /// Bytes of so many elements.
    pub fn bytes(self, elements: usize) -> u64 {
        (elements as u64).saturating_mul(self.size())
    }
}

/// Up to five dimensions, row-major and contiguous.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 5],
    rank: usize,
}

impl Shape {
    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Number of elements; the largest number where there are more. What is longer than [`MOST_ELEMENTS`] is refused when
    /// it is recorded.
    pub fn len(&self) -> usize {
        self.dims().iter().fold(1, |product: usize, &dim| product.saturating_mul(dim))
    }

    /// Whether a dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of that many elements.
    pub fn bytes(&self, dtype: Dtype) -> u64 {
        dtype.bytes(self.len())
    }

    /// Size of the last dimension (1 for a scalar).
    pub fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// Number of rows when all dimensions but the last are joined.
    pub fn rows(&self) -> usize {
        self.len() / self.last().max(1)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(from: [usize; N]) -> Self {
        Shape::from(&from[..])
    }
}

impl From<&[usize]> for Shape {
    /// Dimensions beyond the fifth are folded into the fifth; no tensor of this project has more.
    fn from(from: &[usize]) -> Self {
        let mut dims = [1_usize; 5];
        for (i, &d) in from.iter().enumerate() {
            dims[i.min(4)] = dims[i.min(4)].saturating_mul(d);
        }
        Shape { dims, rank: from.len().min(5) }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.dims().iter().map(usize::to_string).collect();
        write!(f, "[{}]", dims.join(", "))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A tensor of one recording. Copying it copies the name, not the data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tensor {
    pub(crate) id: usize,
    pub(crate) shape: Shape,
    pub(crate) dtype: Dtype,
}

impl Tensor {
    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.shape.dims[..self.shape.rank]
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.len()
    }

    /// What its elements are.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> u64 {
        self.shape.bytes(self.dtype)
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.is_empty()
    }

    /// Size of the last dimension.
    pub fn last(&self) -> usize {
        self.shape.last()
    }

    /// Number of rows when all dimensions but the last are joined.
    pub fn rows(&self) -> usize {
        self.shape.rows()
    }

    /// The same elements under another shape.
    ///
    /// # Panics
    /// If the number of elements differs: a bug in the model, never a user's input.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        assert_eq!(shape.len(), self.len(), "cannot view {} as {shape}", self.shape);
        Tensor { shape, ..*self }
    }
}
