//! What a step is predicted to take. Drivers reset a device that is busy for too long (Windows after 2 s, i915 after 2.5 s,
//! amdgpu after about 10 s), so nothing is submitted that is predicted to come near.

/// Longest predicted time of one submit, seconds.
pub const LONGEST_SUBMIT: f64 = 0.5;
/// Longest predicted time of one dispatch, seconds; operations cut what takes longer.
pub const LONGEST_DISPATCH: f64 = 0.1;

/// What an adapter is sure to reach. A prediction, and a cautious one: about a tenth of the peak of a slow device of its
/// kind, so that a submit ends early rather than late.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Floating-point operations a second.
    pub flops: f64,
    /// Bytes read and written a second.
    pub bytes: f64,
}

impl Speed {
    /// That of an adapter of this kind (as in [`crate::AdapterReport`]).
    pub(crate) fn of_kind(kind: &str) -> Self {
        match kind {
            "DiscreteGpu" => Speed { flops: 1e12, bytes: 5e10 },
            "IntegratedGpu" | "Other" | "VirtualGpu" => Speed { flops: 1e11, bytes: 1e10 },
            _ => Speed { flops: 1e10, bytes: 2e9 },
        }
    }

    /// Predicted seconds: arithmetic and memory overlap, so the longer of the two counts.
    pub fn seconds(self, flops: f64, bytes: f64) -> f64 {
        (flops / self.flops).max(bytes / self.bytes)
    }
}

/// Cuts steps into submits: a new one begins where the next step would make the current one too long. `pending` is the
/// predicted time of what the first of them holds already, and afterwards that of the last.
pub(crate) fn submits(seconds: impl Iterator<Item = f64>, pending: &mut f64) -> Vec<usize> {
    let mut sizes = vec![0];
    for next in seconds {
        if *pending > 0.0 && *pending + next > LONGEST_SUBMIT {
            sizes.push(0);
            *pending = 0.0;
        }
        *pending += next;
        if let Some(size) = sizes.last_mut() {
            *size += 1;
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::submits;

    #[test]
    fn a_submit_ends_before_it_gets_too_long() {
        let cut = |seconds: &[f64], mut pending: f64| (submits(seconds.iter().copied(), &mut pending), pending);
        assert_eq!(cut(&[], 0.0), (vec![0], 0.0));
        assert_eq!(cut(&[0.25, 0.25, 0.25], 0.0), (vec![2, 1], 0.25));
        assert_eq!(cut(&[0.25, 0.25], 0.5), (vec![0, 2], 0.5), "what was encoded before is submitted first");
        assert_eq!(cut(&[3.0, 0.125, 4.0], 0.0), (vec![1, 1, 1], 4.0), "a step that is too long is alone");
    }
}
