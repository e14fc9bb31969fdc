//! The ways in which an operation may be computed, for adapters of different kinds.

use std::fmt;

use crate::error::{Error, Result};

/// A way to compute the same thing. Its name is the kernel's entry point or the last word of its module, and what tuning
/// caches and checkpoints store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Variant {
    name: &'static str,
}

impl Variant {
    /// A workgroup a row, with barriers: GPUs.
    pub const FORWARD: Variant = Variant::new("forward");
    /// An invocation a row, without barriers: CPU-like adapters.
    pub const FORWARD_ROWS: Variant = Variant::new("forward_rows");
    /// An invocation a row of whole vec4s, with the division left to the output.
    pub const FORWARD_ROWS4: Variant = Variant::new("forward_rows4");
    /// A matrix product in tiles of workgroup memory: GPUs.
    pub const TILES: Variant = Variant::new("tiles");
    /// Those tiles with long sums split over workgroups.
    pub const TILES_SPLIT: Variant = Variant::new("tiles_split");
    /// A matrix product in rows of registers: CPU-like adapters.
    pub const ROWS: Variant = Variant::new("rows");
    /// Those rows, read and written as whole vec4s.
    pub const ROWS4: Variant = Variant::new("rows4");
    /// A matrix product that broadcasts between the 8 lanes of a subgroup: lavapipe.
    pub const LANES: Variant = Variant::new("lanes");
    /// Attention that streams over tiles of keys: GPUs.
    pub const STREAMED: Variant = Variant::new("streamed");
    /// Attention by slabs of queries, as two products and a row softmax: CPU-like adapters.
    pub const SLABS: Variant = Variant::new("slabs");
    /// Gram-Schmidt with a workgroup a block: GPUs.
    pub const ORTHOGONALISE: Variant = Variant::new("orthogonalise");
    /// Gram-Schmidt with an invocation a block: CPU-like adapters.
    pub const ORTHOGONALISE_ROWS: Variant = Variant::new("orthogonalise_rows");

    /// Every variant that an operation offers.
    pub const ALL: [Variant; 12] = [
        Variant::FORWARD,
        Variant::FORWARD_ROWS,
        Variant::FORWARD_ROWS4,
        Variant::TILES,
        Variant::TILES_SPLIT,
        Variant::ROWS,
        Variant::ROWS4,
        Variant::LANES,
        Variant::STREAMED,
        Variant::SLABS,
        Variant::ORTHOGONALISE,
        Variant::ORTHOGONALISE_ROWS,
    ];

    const fn new(name: &'static str) -> Self {
        Variant { name }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The variant of this name.
    ///
    /// # Errors
    /// [`Error::Setting`] with the names that there are, if nothing offers it.
    pub fn named(name: &str) -> Result<Self> {
        let names = || Variant::ALL.map(Variant::name).join(", ");
        let found = Variant::ALL.into_iter().find(|variant| variant.name == name);
        found.ok_or_else(|| Error::Setting(format!("no operation has a variant `{name}`; there are {}", names())))
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::Variant;

    #[test]
    fn a_name_that_nothing_offers_is_refused() {
        assert_eq!(Variant::named("rows4").unwrap(), Variant::ROWS4);
        let said = Variant::named("row4").unwrap_err().to_string();
        assert!(said.starts_with("no operation has a variant `row4`; there are forward, forward_rows, "), "{said}");
    }
}
