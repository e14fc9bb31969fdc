//! What other libraries call tensors. A table goes both ways.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::weights::{Stored, TensorFile};

/// One of our names and what another library calls it. `#` stands for a number. A tensor that the other library keeps in
/// several is made of these, one below the other.
pub(super) type Pair = (&'static str, &'static [&'static str]);

/// The names of a library.
pub(super) struct Names {
    /// What may stand in front of names in a file that is read.
    pub(super) prefixes: &'static [&'static str],
    /// What stands in front of names in a file that is written, but for those in `bare`.
    pub(super) prefix: &'static str,
    pub(super) bare: &'static [&'static str],
    pub(super) pairs: &'static [Pair],
}

/// Endings that a layer's tensors have on either side.
const LEAVES: [&str; 2] = [".weight", ".bias"];

/// A name without its ending, and the ending.
fn split(name: &str) -> (&str, &str) {
    let leaf = LEAVES.into_iter().find_map(|leaf| Some((name.strip_suffix(leaf)?, leaf)));
    leaf.unwrap_or((name, ""))
}

/// The numbers that a name has where the pattern has `#`, if it is like the pattern.
fn numbers<'n>(pattern: &str, name: &'n str) -> Option<Vec<&'n str>> {
    let (mut parts, mut found) = (name.split('.'), Vec::new());
    for wanted in pattern.split('.') {
        let part = parts.next()?;
        match wanted {
            "#" if part.bytes().all(|byte| byte.is_ascii_digit()) => found.push(part),
            _ if wanted == part => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(found)
}

/// A pattern with numbers in it.
fn fill(pattern: &str, numbers: &[&str]) -> String {
    let mut numbers = numbers.iter();
    let part = |part| if part == "#" { numbers.next().copied().unwrap_or(part) } else { part };
    pattern.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// What PyTorch puts in front of the names of a model that it wraps: data parallelism, compilation.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// A file without what wrappers put in front of names, however many there were.
///
/// # Errors
/// A tensor that is there with and without.
pub(crate) fn unwrapped(file: &TensorFile) -> Result<TensorFile> {
    renamed(file, |mut name| {
        while let Some(bare) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
            name = bare;
        }
        name.to_owned()
    })
}

/// A file under other names.
///
/// # Errors
/// Two tensors that would have one name.
pub(super) fn renamed(file: &TensorFile, rename: impl Fn(&str) -> String) -> Result<TensorFile> {
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for name in file.names() {
        let new = rename(name);
        if let Some(other) = names.insert(new.clone(), name) {
            let what = format!("has both {other} and {name}, which are two names of {new}; leave one of them out");
            return Err(file.problem(what));
        }
    }
    let tensors = names.into_iter().filter_map(|(new, name)| Some((new, file.stored(name)?.clone()))).collect();
    Ok(file.with_tensors(tensors))
}

/// Our name for one of theirs, and which part of our tensor it is, of how many.
struct Found {
    ours: String,
    part: usize,
    parts: usize,
}

impl Names {
    fn ours(&self, theirs: &str) -> Option<Found> {
        let (stem, leaf) = split(theirs);
        let stems = self.prefixes.iter().filter_map(|prefix| stem.strip_prefix(prefix)).chain([stem]);
        stems.into_iter().find_map(|stem| {
            self.pairs.iter().find_map(|(ours, theirs)| {
                theirs.iter().enumerate().find_map(|(part, pattern)| {
                    let numbers = numbers(pattern, stem)?;
                    Some(Found { ours: fill(ours, &numbers) + leaf, part, parts: theirs.len() })
                })
            })
        })
    }

    /// What they call a tensor of ours: the parts from top to bottom; itself where they have no other name for it.
    pub(super) fn theirs(&self, ours: &str) -> Vec<String> {
        let (stem, leaf) = split(ours);
        let found = self.pairs.iter().find_map(|(pattern, theirs)| Some((numbers(pattern, stem)?, theirs)));
        let Some((numbers, theirs)) = found else { return vec![ours.to_owned()] };
        let prefix = if self.bare.contains(&stem) { "" } else { self.prefix };
        theirs.iter().map(|pattern| format!("{prefix}{}{leaf}", fill(pattern, &numbers))).collect()
    }

    /// A file of theirs under our names; what has no other name here keeps its own.
    ///
    /// # Errors
    /// A tensor of which a part is missing, or parts that do not go together.
    pub(super) fn import(&self, file: &TensorFile) -> Result<TensorFile> {
        let mut made: BTreeMap<String, Vec<Option<&str>>> = BTreeMap::new();
        for name in file.names() {
            let Found { ours, part, parts } =
                self.ours(name).unwrap_or(Found { ours: name.to_owned(), part: 0, parts: 1 });
            let slots = made.entry(ours.clone()).or_insert_with(|| vec![None; parts]);
            match slots.get_mut(part) {
                Some(slot @ None) => *slot = Some(name),
                _ => return Err(file.problem(format!("has {ours} twice, under the names of two libraries"))),
            }
        }
        let mut tensors = BTreeMap::new();
        for (ours, parts) in made {
            let there: Vec<Stored> = parts.iter().flatten().filter_map(|name| file.stored(name).cloned()).collect();
            let whole = Stored::stacked(&there).filter(|_| there.len() == parts.len()).ok_or_else(|| {
                let names: Vec<&str> = parts.iter().flatten().copied().collect();
                let (count, names) = (parts.len(), names.join(", "));
                file.problem(format!(
                    "should have {count} tensors of one type and width that make up {ours}, but has {names}"
                ))
            })?;
            tensors.insert(ours, whole);
        }
        Ok(file.with_tensors(tensors))
    }

    /// A file of ours under their names.
    ///
    /// # Errors
    /// A tensor that cannot be cut into as many parts as they have.
    pub(super) fn export(&self, file: &TensorFile) -> Result<TensorFile> {
        let mut tensors = BTreeMap::new();
        for (ours, stored) in file.clone().into_tensors() {
            let theirs = self.theirs(&ours);
            if let [name] = &theirs[..] {
                tensors.insert(name.clone(), stored);
                continue;
            }
            let (rows, parts) = (stored.shape().first().copied().unwrap_or(1), theirs.len());
            if !rows.is_multiple_of(parts) {
                return Err(file.problem(format!("has {ours} with {rows} rows, which are not {parts} equal parts")));
            }
            let height = rows / parts;
            let part = |(at, name)| (name, stored.rows(at * height..(at + 1) * height));
            tensors.extend(theirs.into_iter().enumerate().map(part));
        }
        Ok(file.with_tensors(tensors))
    }
}
