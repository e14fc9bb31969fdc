//! How a dispatch is cut, so that none is long enough for a driver to think the GPU hangs (Windows resets it after 2 s), and none
//! has more workgroups in a dimension than there may be.
//!
//! A kernel that can be cut says so by its parameters: `first_x`, `first_y` or `first_z` is what its workgroup's index in that
//! dimension counts from. Every workgroup does what it would do in one dispatch, so the bits are the same.

use crate::kernel::Signature;

/// Workgroups that a dispatch may have in a dimension.
pub(crate) const MOST_GROUPS: usize = 65_535;

/// The parameters that a cut sets.
pub(crate) const FIRST: [&str; 3] = ["first_x", "first_y", "first_z"];

/// A part of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its first workgroup in x, y and z.
    pub(crate) first: [usize; 3],
    /// Its workgroups in x, y and z.
    pub(crate) groups: [usize; 3],
}

/// Cuts `groups`, which take `flops` together, into pieces of at most `most` where the kernel allows it: in z first.
pub(crate) fn pieces(signature: &Signature, groups: [usize; 3], flops: f64, most: f64) -> Vec<Piece> {
    let fields = signature.params.iter().flat_map(|params| &params.fields);
    let names: Vec<&str> = fields.map(|field| field.name.as_str()).collect();
    let mut size = groups;
    let mut share = flops;
    for dimension in [2, 1, 0].into_iter().filter(|&d| names.contains(&FIRST[d])) {
        let wanted = (size[dimension] as f64 * (most / share).min(1.0)) as usize;
        let cut = wanted.clamp(1, MOST_GROUPS).min(size[dimension].max(1));
        share *= cut as f64 / size[dimension].max(1) as f64;
        size[dimension] = cut;
    }
    let starts = |d: usize| (0..groups[d].max(1)).step_by(size[d].max(1));
    let piece = |first: [usize; 3]| Piece { first, groups: [0, 1, 2].map(|d| size[d].min(groups[d] - first[d])) };
    starts(2).flat_map(|z| starts(1).flat_map(move |y| starts(0).map(move |x| piece([x, y, z])))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Piece, pieces};
    use crate::kernel::{Field, Params, Signature};

    fn signature(names: &[&str]) -> Signature {
        let field = |(i, name): (usize, &&str)| Field { name: (*name).to_owned(), offset: 4 * i, float: false };
        let fields = names.iter().enumerate().map(field).collect();
        Signature { params: Some(Params { binding: 0, size: 16, fields }), ..Signature::default() }
    }

    fn assert_covers(groups: [usize; 3], pieces: &[Piece]) {
        let mut next = vec![];
        for z in 0..groups[2] {
            for y in 0..groups[1] {
                for x in 0..groups[0] {
                    let holds = |p: &&Piece| {
                        [x, y, z].iter().enumerate().all(|(d, &i)| (p.first[d]..p.first[d] + p.groups[d]).contains(&i))
                    };
                    next.push(pieces.iter().filter(holds).count());
                }
            }
        }
        assert!(next.iter().all(|&count| count == 1), "{groups:?} are not covered once: {pieces:?}");
    }

    #[test]
    fn what_is_short_stays_whole_and_what_is_long_is_cut_in_z_then_y() {
        let both = signature(&["m", "first_y", "first_z"]);
        let whole = Piece { first: [0; 3], groups: [3, 5, 7] };
        assert_eq!(pieces(&both, [3, 5, 7], 100.0, 100.0), [whole]);
        assert_eq!(pieces(&signature(&["m"]), [3, 5, 7], 100.0, 1.0), [whole]);
        for most in [99.0, 50.0, 14.0, 3.0, 0.1] {
            let cut = pieces(&both, [3, 5, 7], 100.0, most);
            assert_covers([3, 5, 7], &cut);
            let largest = cut.iter().map(|p| p.groups.iter().product::<usize>()).max().unwrap_or_default();
            // A row of workgroups in x is the least.
            assert!(largest as f64 * 100.0 / 105.0 <= most.max(3.0), "{most}: {cut:?}");
        }
        assert!(pieces(&both, [3, 5, 7], 100.0, 20.0).iter().all(|p| p.groups[1] == 5), "z was enough");
    }

    #[test]
    fn no_piece_has_too_many_workgroups() {
        let cut = pieces(&signature(&["first_y"]), [1, 200_000, 1], 0.0, f64::INFINITY);
        assert_eq!(cut.iter().map(|p| p.groups[1]).collect::<Vec<_>>(), [65_535, 65_535, 65_535, 3_395]);
        assert_eq!(cut[3].first, [0, 196_605, 0]);
    }
}
