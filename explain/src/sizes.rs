//! Sizes of the attention that is looked at, as its queries, keys and context say, and which of its heads is meant.

use std::ops::Range;

use lara_models::Site;
use lara_runtime::attention::Grid;

use crate::map::Query;

/// Most rows that are worked out at once: the hovered query and the pinned ones.
pub const SLOTS: usize = 8;

/// One head, or the mean over all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// Mean over the heads.
    #[default]
    Mean,
    /// One of them, from 0.
    One(usize),
}

/// Sizes of one block's attention. Queries and keys may lie on grids of their own, and every block on others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows and columns of the queries' places.
    pub query_grid: [usize; 2],
    /// Rows and columns of the keys' places: those of a map.
    pub grid: [usize; 2],
    /// Tokens in front of both: 1 with a class token.
    pub prefix: usize,
    /// Heads of the block.
    pub heads: usize,
    /// Blocks of the model.
    pub layers: usize,
    /// Rows that can be worked out at once, in any block.
    pub slots: usize,
}

impl Sizes {
    /// All keys: the numbers of a map.
    pub fn tokens(&self) -> usize {
        self.prefix + self.grid[0] * self.grid[1]
    }

    /// All queries.
    pub fn queries(&self) -> usize {
        self.prefix + self.query_grid[0] * self.query_grid[1]
    }

    /// Whether every token is a query and a key.
    pub fn is_square(&self) -> bool {
        self.query_grid == self.grid
    }

    /// Of what is being recorded.
    pub(crate) fn of_site(site: &Site<'_>) -> Self {
        let (q, k, context) = (site.qkv.q.dims(), site.qkv.k.dims(), site.context);
        let count = |dims: &[usize]| dims.len().checked_sub(2).map_or(0, |at| dims[at]);
        let places = |dims: &[usize]| count(dims).saturating_sub(context.prefix);
        let query_grid = plane(context.grid, places(q));
        let own = if count(q) == count(k) { context.grid } else { Grid::Sequence };
        let grid = plane(context.key_grid.unwrap_or(own), places(k));
        let heads = q.len().checked_sub(3).map_or(1, |at| q[at]);
        Sizes { query_grid, grid, prefix: context.prefix, heads, layers: 1, slots: SLOTS.min(site.qkv.v.last()) }
    }

    /// The blocks of one model: their number, and the slots that all of them have.
    pub(crate) fn agree(all: &mut [Self]) {
        let (layers, slots) = (all.len(), all.iter().map(|sizes| sizes.slots).min().unwrap_or(0));
        all.iter_mut().for_each(|sizes| (sizes.layers, sizes.slots) = (layers, slots));
    }

    /// The weights of the outputs whose mean row a query of this block stands for; None for a query that is not there.
    pub fn selection(&self, query: Query) -> Option<Vec<f32>> {
        let mut row = vec![0.0; self.queries()];
        match query {
            Query::Class if self.prefix > 0 => row[0] = 1.0,
            Query::Mean => row.fill(1.0 / self.queries() as f32),
            Query::Patch(at) if at < self.query_grid[0] * self.query_grid[1] => row[self.prefix + at] = 1.0,
            _ => return None,
        }
        Some(row)
    }

    /// The query of this block that lies where `query` lies on another grid: the patch in which its centre is.
    pub fn project(&self, query: Query, from: [usize; 2]) -> Query {
        carry(query, from, self.query_grid)
    }

    /// The key of this block under the centre of one of its queries: its place on the map.
    pub fn key_under(&self, query: Query) -> Option<usize> {
        match carry(query, self.query_grid, self.grid) {
            Query::Patch(key) => Some(key),
            Query::Class | Query::Mean => None,
        }
    }

    /// Blocks that follow each other with the same queries and heads: the stages of a pyramid, and all blocks of most models.
    pub fn stages(blocks: &[Self]) -> Vec<Range<usize>> {
        let mut stages: Vec<Range<usize>> = Vec::new();
        for (at, block) in blocks.iter().enumerate() {
            let is_like = |before: &Self| (before.query_grid, before.heads) == (block.query_grid, block.heads);
            match stages.last_mut() {
                Some(stage) if is_like(&blocks[stage.start]) => stage.end = at + 1,
                _ => stages.push(at..at + 1),
            }
        }
        stages
    }

    /// Number of a row among [slots, heads + 1].
    pub fn row(&self, head: Head, slot: usize) -> Option<usize> {
        let head = match head {
            Head::Mean => self.heads,
            Head::One(head) if head < self.heads => head,
            Head::One(_) => return None,
        };
        (slot < self.slots).then_some(slot * (self.heads + 1) + head)
    }
}

/// The patch of the grid `to` in which the centre of a patch of the grid `from` lies.
pub fn carry(query: Query, from: [usize; 2], to: [usize; 2]) -> Query {
    let Query::Patch(at) = query else { return query };
    let columns = from[1].max(1);
    // In halves of a patch, so that the centre is a whole number.
    let place = |at: usize, from: usize, to: usize| (2 * at + 1) * to / (2 * from.max(1));
    let (row, column) = (place(at / columns, from[0], to[0]), place(at % columns, columns, to[1]));
    Query::Patch(row * to[1] + column)
}

/// A grid as rows and columns; what is no plane lies in rows: the frames of a video below each other, text in one row.
fn plane(grid: Grid, places: usize) -> [usize; 2] {
    match grid {
        Grid::Plane(sides) => sides,
        Grid::Volume([frames, rows, columns]) => [frames * rows, columns],
        Grid::Sequence => [1, places],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(query_grid: [usize; 2], grid: [usize; 2], prefix: usize) -> Sizes {
        Sizes { query_grid, grid, prefix, heads: 2, layers: 1, slots: 4 }
    }

    #[test]
    fn a_query_is_found_at_the_same_place_on_another_grid() {
        let fine = sizes([8, 8], [8, 8], 0);
        let coarse = sizes([4, 2], [4, 4], 0);
        assert_eq!(
            (0..64).map(|at| fine.project(Query::Patch(at), [8, 8])).collect::<Vec<_>>(),
            (0..64).map(Query::Patch).collect::<Vec<_>>()
        );
        // Row 5 of 8 is row 2 of 4, column 3 of 8 is column 0 of 2.
        assert_eq!(coarse.project(Query::Patch(5 * 8 + 3), [8, 8]), Query::Patch(2 * 2));
        assert_eq!(coarse.project(Query::Patch(63), [8, 8]), Query::Patch(7));
        assert_eq!(fine.project(Query::Patch(7), [4, 2]), Query::Patch(7 * 8 + 6));
        assert_eq!(fine.project(Query::Mean, [4, 2]), Query::Mean);
    }

    #[test]
    fn there_and_back_is_the_same_place_from_a_finer_grid() {
        for (coarse, fine) in [([7, 7], [56, 56]), ([1, 5], [3, 14]), ([29, 28], [57, 55])] {
            for at in (0..coarse[0] * coarse[1]).map(Query::Patch) {
                assert_eq!(carry(carry(at, coarse, fine), fine, coarse), at, "{coarse:?} in {fine:?}");
            }
        }
        assert_eq!(sizes([56, 56], [7, 7], 0).key_under(Query::Patch(20 * 56 + 55)), Some(2 * 7 + 6));
        assert_eq!(sizes([56, 56], [7, 7], 1).key_under(Query::Class), None);
    }

    #[test]
    fn stages_are_blocks_with_the_same_queries_and_heads() {
        let (fine, coarse) = (sizes([8, 8], [2, 2], 0), sizes([4, 4], [2, 2], 0));
        let wider = Sizes { heads: 4, ..coarse };
        assert_eq!(Sizes::stages(&[fine, fine, coarse, wider, wider]), [0..2, 2..3, 3..5]);
        assert_eq!(Sizes::stages(&[fine; 3]), [0..3; 1]);
        assert!(Sizes::stages(&[]).is_empty());
    }

    #[test]
    fn selections_count_queries_and_maps_count_keys() {
        let sizes = sizes([2, 3], [1, 2], 1);
        assert_eq!((sizes.queries(), sizes.tokens(), sizes.is_square()), (7, 3, false));
        assert_eq!(sizes.selection(Query::Patch(5)), Some(vec![0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]));
        assert_eq!(sizes.selection(Query::Mean), Some(vec![1.0 / 7.0; 7]));
        assert_eq!(sizes.selection(Query::Patch(6)), None);
        assert_eq!(
            (sizes.row(Head::One(1), 3), sizes.row(Head::Mean, 0), sizes.row(Head::One(2), 0)),
            (Some(10), Some(2), None)
        );
    }
}
