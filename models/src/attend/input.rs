//! Whether tensors go together and hold what they must, before a layer is recorded or run.

use lara_runtime::attention::{AttentionConfig, Need};

use super::{Array, Arrays, Shapes};
use crate::{Error, Result};

/// The widest head that the kernels hold in workgroup memory.
const MOST_CHANNELS: usize = 256;
/// From these integers on f32 skips some.
const EXACT_INTEGERS: usize = 1 << 24;

/// Sizes of q, k and v.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sequences.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// N.
    pub queries: usize,
    /// M.
    pub keys: usize,
    /// D, channels of a head.
    pub dim: usize,
}

impl Sizes {
    /// The sizes, if q [B, H, N, D], k and v [B, H, M, D] are there and go together.
    ///
    /// # Errors
    /// Names the tensor or the two that do not fit, with their shapes.
    pub fn of(shapes: &Shapes) -> Result<Sizes> {
        let mut found: [&[usize]; 3] = [&[]; 3];
        for (name, found) in ["q", "k", "v"].into_iter().zip(&mut found) {
            let Some(shape) = shapes.get(name) else {
                return bad(format!("there is no {name}; attention needs q [batch, heads, N, D], k and v [.., M, D]"));
            };
            if shape.len() != 4 || shape.contains(&0) {
                return bad(format!(
                    "{name} has shape {shape:?}; it must have four sizes of at least 1, [batch, heads, tokens, D]"
                ));
            }
            *found = shape;
        }
        let [q, k, v] = found;
        if [q[0], q[1], q[3]] != [k[0], k[1], k[3]] {
            return bad(format!("q {q:?} and k {k:?} do not go together; batch, heads and D must be the same"));
        }
        if k != v {
            return bad(format!("k {k:?} and v {v:?} do not go together; their shapes must be the same"));
        }
        if q[3] > MOST_CHANNELS {
            let dim = q[3];
            return bad(format!(
                "q {q:?} has heads of {dim} channels; {MOST_CHANNELS} are the most. Split them into more heads"
            ));
        }
        Ok(Sizes { batch: q[0], heads: q[1], queries: q[2], keys: k[2], dim: q[3] })
    }

    /// Shape of the queries and of the output.
    pub fn output(&self) -> [usize; 4] {
        [self.batch, self.heads, self.queries, self.dim]
    }

    /// Whether everything that the mechanism reads besides q, k and v has its shape, where that is known beforehand, and
    /// `dout` the output's.
    ///
    /// # Errors
    /// Names the tensor, its shape and the one that it must have.
    pub fn check_extras(&self, shapes: &Shapes, config: &AttentionConfig) -> Result<()> {
        let wrong = |name: &str, shape: &[usize], axes: &str| match shapes.get(name) {
            Some(found) if found != shape => bad(format!("{name} has shape {found:?} but must be {shape:?}, {axes}")),
            _ => Ok(()),
        };
        for extra in config.extras(self.output(), self.keys) {
            if let Some(shape) = extra.shape.filter(|_| extra.need != Need::Learned) {
                wrong(extra.name, &shape, extra.axes)?;
            }
        }
        wrong("dout", &self.output(), "q's shape")
    }

    /// Whether a mask holds zeros and ones, and drawn keys are keys.
    ///
    /// # Errors
    /// Names the first value that is something else, and its place.
    pub fn check_values(&self, given: &Arrays) -> Result<()> {
        let first = |name: &str, wrong: &dyn Fn(f32) -> bool| -> Option<(f32, Vec<usize>)> {
            let array: &Array = given.get(name)?;
            let at = array.values.iter().position(|&x| wrong(x))?;
            Some((array.values[at], array.place(at)))
        };
        if let Some((value, place)) = first("key_padding_mask", &|x| x != 0.0 && x != 1.0) {
            return bad(format!(
                "key_padding_mask is {value} at {place:?}; it must be 1 where a key is padding and 0 elsewhere"
            ));
        }
        let keys = self.keys.min(EXACT_INTEGERS) as f32;
        // Written so that NaN is wrong, too.
        let names_a_key = |x: f32| x.fract() == 0.0 && (0.0..keys).contains(&x);
        if let Some((value, place)) = first("index", &|x| !names_a_key(x)) {
            let last = self.keys - 1;
            return bad(format!("index is {value} at {place:?}; it must name a key, a whole number from 0 to {last}"));
        }
        Ok(())
    }
}

fn bad<T>(sentence: String) -> Result<T> {
    Err(Error::BadInput(sentence))
}
