//! Names of files and tensors that say which map it is.

use std::collections::BTreeSet;

use crate::map::{Kind, Map, Query};

/// Letters of the mechanism and of the kind that go into a name; file systems allow 255 in all.
const LONGEST: usize = 48;

/// Names of the maps' files without ending, of `a-z`, `0-9`, `-`, `_` and `.`, each once:
/// `softmax-layer2-head1-patch_3_4`.
pub fn file_stems(maps: &[Map]) -> Vec<String> {
    let stem = |map: &Map| {
        let mut parts = vec![slug(&map.mechanism)];
        if map.kind != Kind::Attention {
            parts.push(map.kind.name().into());
        }
        parts.extend(map.layer.map(|layer| format!("layer{layer}")));
        parts.push(head(map));
        parts.push(query(map));
        parts.join("-")
    };
    unique(maps.iter().map(stem))
}

/// Names of the maps as tensors, each once: `lara.blocks.2.head1.patch_3_4`.
pub fn tensor_names(maps: &[Map]) -> Vec<String> {
    let name = |map: &Map| {
        let mut parts = vec![slug(&map.mechanism)];
        if map.kind != Kind::Attention {
            parts.push(map.kind.name().into());
        }
        parts.extend(map.layer.map(|layer| format!("blocks.{layer}")));
        parts.push(head(map));
        parts.push(query(map));
        parts.join(".")
    };
    unique(maps.iter().map(name))
}

/// Names of folders for `texts` (names of images, say), of the same letters, each once.
pub fn folder_names(texts: &[String]) -> Vec<String> {
    unique(texts.iter().map(|text| slug(text)))
}

fn head(map: &Map) -> String {
    map.head.map_or_else(|| "allheads".into(), |head| format!("head{head}"))
}

fn query(map: &Map) -> String {
    match map.query {
        Query::Class => "class".into(),
        Query::Mean => "mean".into(),
        Query::Patch(at) => {
            let columns = map.query_grid[1].max(1);
            format!("patch_{}_{}", at / columns, at % columns)
        }
    }
}

/// `text` in small letters and figures, everything else as single hyphens: `LARA, 16 landmarks` is `lara-16-landmarks`.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().take(LONGEST) {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() || c == '_' || c == '.' => slug.push(c),
            _ if slug.ends_with('-') => (),
            _ => slug.push('-'),
        }
    }
    let slug = slug.trim_matches(['-', '.']);
    if slug.is_empty() { "map".into() } else { slug.into() }
}

/// The names, with `-2`, `-3` .. behind those that are taken.
fn unique(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let pick = |name: String| {
        let numbered = (2u64..).map(|number| format!("{name}-{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name));
        let free = free.unwrap_or(name);
        taken.insert(free.clone());
        free
    };
    names.map(pick).collect()
}
