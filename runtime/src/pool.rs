//! Which pooled tensors share a buffer: two may when no step lies in both lifetimes.

use std::collections::BTreeMap;

use crate::recorder::{Place, Recorder};

/// Buffers for the scratch tensors of a recording.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// Size in bytes of each shared buffer.
    pub(crate) slots: Vec<u64>,
    /// Buffer of each tensor, if it is pooled and used.
    pub(crate) slot_of: Vec<Option<usize>>,
    /// What the tensors would take without sharing, in bytes.
    pub(crate) unshared: u64,
}

/// First and last step that binds each tensor.
pub(crate) fn lifetimes(rec: &Recorder) -> Vec<Option<(usize, usize)>> {
    let mut lives = vec![None; rec.tensors.len()];
    for (at, step) in rec.steps.iter().enumerate() {
        for tensor in &step.binds {
            let life = lives[tensor.id].get_or_insert((at, at));
            life.1 = at;
        }
    }
    lives
}

/// Places tensors from the largest to the smallest, each in the first buffer that is free for its whole life. A later,
/// smaller tensor always fits in size, so only lifetimes have to be compared.
pub(crate) fn assign(rec: &Recorder) -> Layout {
    let lives = lifetimes(rec);
    let bytes = |id: usize| rec.tensors[id].bytes().next_multiple_of(16);
    let mut order: Vec<(usize, (usize, usize))> = (0..rec.tensors.len())
        .filter(|&id| rec.tensors[id].place == Place::Scratch)
        .filter_map(|id| lives[id].map(|life| (id, life)))
        .collect();
    order.sort_by_key(|&(id, life)| (std::cmp::Reverse(bytes(id)), life.0));
    let mut layout = Layout { slot_of: vec![None; rec.tensors.len()], ..Layout::default() };
    // Lives in a buffer, from first to last step: they do not overlap, so that only the last one to begin before a life ends
    // can be in its way.
    let mut taken: Vec<BTreeMap<usize, usize>> = Vec::new();
    for (id, life) in order {
        layout.unshared += bytes(id);
        let free =
            |lives: &BTreeMap<usize, usize>| lives.range(..=life.1).next_back().is_none_or(|(_, &end)| end < life.0);
        let slot = taken.iter().position(free).unwrap_or_else(|| {
            taken.push(BTreeMap::new());
            layout.slots.push(bytes(id));
            taken.len() - 1
        });
        taken[slot].insert(life.0, life.1);
        layout.slot_of[id] = Some(slot);
    }
    layout
}
