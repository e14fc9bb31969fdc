//! Where a map lies on the device: what a window paints it from, without reading anything back.

/// What a map is drawn from: a tensor's buffer, and where in it the patches begin.
#[derive(Clone, Debug)]
pub struct MapSource {
    /// The tensor's buffer.
    pub buffer: lara_runtime::Buffer,
    /// Index of the first patch's value.
    pub at: usize,
}

/// The upper end of a colour scale: the largest value, second of the pair number `index` in a buffer of (smallest, largest)
/// pairs.
#[derive(Clone, Debug)]
pub struct ScaleEnd {
    /// The buffer of pairs.
    pub buffer: lara_runtime::Buffer,
    /// Which pair.
    pub index: usize,
}
