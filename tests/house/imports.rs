//! No import runs up: the files of a crate form layers. A file may use what lies below it, and nothing that it uses may use it.
//!
//! Read from the text: `use crate::..`, `use super::..` and paths in code. A name that a module passes on (`pub use`) counts
//! for the file that it comes from. A module's own file and the files below it are one thing seen from outside: what the
//! former uses of the latter is no arrow.

use std::collections::{BTreeMap, BTreeSet};

use crate::{assert_none, files_below, name, root, with_extension};

/// Circles that are still there, each with what it waits for. One that is gone is taken off the list.
const KNOWN: &[(&[&str], &str)] = &[
    (
        &["plan", "pool", "recorder", "tune"],
        "a measured choice runs the candidates, and a recorder asks for the choice",
    ),
    (&["ops/residual", "tape"], "a gradient that is passed on is added by an operation"),
    (&["folder ops", "tape"], "the same"),
];

/// One crate: its files, keyed by module path (`panes::compare`; empty for the root).
struct Crate {
    files: BTreeMap<Vec<String>, (String, String)>,
}

impl Crate {
    /// The crate whose sources lie in `folder`.
    fn read(folder: &str) -> Self {
        let mut files = BTreeMap::new();
        for path in with_extension(files_below(folder), &["rs"]) {
            let name = name(&path);
            let inside = name.trim_start_matches(folder).trim_start_matches('/').trim_end_matches(".rs");
            let mut module: Vec<String> = inside.split('/').map(str::to_owned).collect();
            if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
                module.pop();
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            files.insert(module, (name, code(&text)));
        }
        Crate { files }
    }

    /// The file that a path means: the deepest module on its way, or the one that a module passes the name on from.
    fn resolve(&self, path: &[String], depth: usize) -> Vec<String> {
        let deepest = (0..=path.len()).rev().find(|&end| self.files.contains_key(&path[..end]));
        let (module, rest) = path.split_at(deepest.unwrap_or(0));
        let Some(wanted) = rest.first().filter(|_| depth < 8) else { return module.to_vec() };
        let Some((_, text)) = self.files.get(module) else { return module.to_vec() };
        let passed_on = uses(text).into_iter().filter(|(is_public, _)| *is_public).find_map(|(_, used)| {
            let from = absolute(&used, module, |path| self.files.contains_key(path))?;
            (from.last() == Some(wanted) && from.len() > module.len() && from[..module.len()] == *module)
                .then_some(from)
        });
        match passed_on {
            Some(from) => self.resolve(&from, depth + 1),
            None => module.to_vec(),
        }
    }

    /// The files that each file uses, itself and what lies below it left out.
    fn arrows(&self) -> Arrows<'_> {
        let mut arrows = BTreeMap::new();
        for (module, (_, text)) in &self.files {
            let used = uses(text).into_iter().map(|(_, path)| path).chain(paths(text));
            let used = used.filter_map(|path| absolute(&path, module, |path| self.files.contains_key(path)));
            let targets: BTreeSet<&Vec<String>> = used
                .filter_map(|path| self.files.get_key_value(&self.resolve(&path, 0)).map(|(key, _)| key))
                .filter(|target| !target.starts_with(module))
                .collect();
            arrows.insert(module, targets);
        }
        arrows
    }

    /// Files that use each other in a circle, and the same of the rooms: what lies directly in the crate, a folder as one.
    fn circles(&self) -> Vec<Vec<String>> {
        let arrows = self.arrows();
        let file = |module: &Vec<String>| self.files[module].0.clone();
        // A module's own file is part of its folder.
        let folders: BTreeSet<&String> = self.files.keys().filter(|module| module.len() > 1).map(|m| &m[0]).collect();
        let room = |module: &Vec<String>| match module.first().filter(|first| folders.contains(first)) {
            Some(first) => format!("folder {first}"),
            None => file(module),
        };
        let mut found = circles_of(&arrows, file);
        let rooms = circles_of(&arrows, room);
        found.extend(rooms.into_iter().filter(|circle| circle.iter().any(|name| name.starts_with("folder "))));
        found
    }
}

type Arrows<'a> = BTreeMap<&'a Vec<String>, BTreeSet<&'a Vec<String>>>;

/// Names that reach themselves, in groups; modules of the same name are one.
fn circles_of(arrows: &Arrows<'_>, name: impl Fn(&Vec<String>) -> String) -> Vec<Vec<String>> {
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, targets) in arrows {
        let own = name(module);
        let targets: Vec<String> = targets.iter().map(|target| name(target)).filter(|target| *target != own).collect();
        named.entry(own).or_default().extend(targets);
    }
    let reach = |from: &String| {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(at) = waiting.pop() {
            waiting.extend(named[&at].iter().filter(|next| seen.insert((*next).clone())).cloned());
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = named.keys().map(|name| (name, reach(name))).collect();
    let mut circles = BTreeSet::new();
    for (name, reaches) in reached.iter().filter(|(name, reaches)| reaches.contains(**name)) {
        let others = named.keys().filter(|other| reaches.contains(*other) && reached[other].contains(*name));
        circles.insert(others.cloned().collect::<Vec<_>>());
    }
    circles.into_iter().collect()
}

/// The text without comments and without its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = text.lines().map(|line| match line.split_once("//") {
        // A web address is no comment; neither matters here.
        Some((before, _)) => before,
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Every path of every `use` in a text, and whether it is passed on.
fn uses(text: &str) -> Vec<(bool, Vec<String>)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("use ") {
        let (before, behind) = rest.split_at(at);
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        let Some((tree, after)) = behind[4..].split_once(';') else { break };
        if line.is_empty() || line.starts_with("pub") {
            let mut paths = Vec::new();
            expand(tree, &mut Vec::new(), &mut paths);
            found.extend(paths.into_iter().map(|path| (line.starts_with("pub"), path)));
            rest = after;
        } else {
            rest = &behind[4..];
        }
    }
    found
}

/// Writes the braces of a use tree out.
fn expand(tree: &str, before: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let Some((start, inner)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default();
        let segments = name.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
        let path: Vec<String> = before.iter().cloned().chain(segments).filter(|part| part != "self").collect();
        if !path.is_empty() {
            paths.push(path);
        }
        return;
    };
    let count = before.len();
    before.extend(start.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()));
    let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
    let (mut depth, mut begin) = (0, 0);
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&inner[begin..at], before, paths);
                begin = at + 1;
            }
            _ => (),
        }
    }
    expand(&inner[begin..], before, paths);
    before.truncate(count);
}

/// `crate::a::b` in code.
fn paths(text: &str) -> Vec<Vec<String>> {
    let starts = text
        .match_indices("crate::")
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
    let path = |(at, _): (usize, &str)| {
        let end =
            text[at..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).map_or(text.len(), |n| at + n);
        text[at..end].split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    starts.map(path).collect()
}

/// A path from the crate's root; None if it leads out of the crate.
fn absolute(path: &[String], module: &[String], is_module: impl Fn(&[String]) -> bool) -> Option<Vec<String>> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "super" => Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat()),
        first => {
            let child = [module, &[first.to_owned()]].concat();
            is_module(&child).then(|| [module, path].concat())
        }
    }
}

#[test]
fn no_import_runs_up() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap_or_default();
    let members =
        manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    let (mut breaches, mut gone): (Vec<String>, Vec<usize>) = (Vec::new(), (0..KNOWN.len()).collect());
    for member in members.split('"').skip(1).step_by(2) {
        let folder = format!("{member}/src");
        if !root().join(&folder).is_dir() {
            continue;
        }
        let sources = Crate::read(&folder);
        assert!(sources.files.len() > 3, "{folder} holds {} files: is it read?", sources.files.len());
        for circle in sources.circles() {
            let short: Vec<&str> = circle
                .iter()
                .map(|file| file.trim_start_matches(&folder).trim_start_matches('/').trim_end_matches(".rs"))
                .collect();
            match KNOWN.iter().position(|(files, _)| *files == short) {
                Some(at) => gone.retain(|known| *known != at),
                None => breaches.push(format!("{folder}: {}", short.join(", "))),
            }
        }
    }
    breaches.extend(gone.into_iter().map(|at| format!("{} is gone: take it off KNOWN", KNOWN[at].0.join(", "))));
    assert_none("files of a crate form layers, but these use each other in a circle", &breaches);
}

#[test]
fn a_circle_is_found_through_braces_re_exports_and_paths() {
    let files = |list: &[(&str, &str)]| {
        let module = |name: &str| name.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let file = |(name, text): &(&str, &str)| (module(name), ((*name).to_owned(), code(text)));
        Crate { files: list.iter().map(file).collect() }
    };
    let root = ("", "mod a;\nmod b;\npub use b::{B, C};\n");
    let open = files(&[
        root,
        ("a", "use crate::{\n    B,\n    other::X,\n};\n"),
        ("b", "// use crate::a::A;\nuse std::fs;\n"),
    ]);
    assert_eq!(open.circles(), Vec::<Vec<String>>::new());
    for back in ["use crate::a::A;", "use super::a::{A};", "fn f() { crate::a::g() }", "pub(crate) use crate::a as z;"]
    {
        let closed = files(&[root, ("a", "use crate::{\n    B,\n    other::X,\n};\n"), ("b", back)]);
        assert_eq!(closed.circles(), [["a", "b"]], "{back}");
    }
    // What a module's face uses of its parts is no arrow; what they use of it, with another in between, is a circle.
    let parts = ("m::part", "use super::Face;\n");
    let face = ("m", "mod part;\nuse part::Part;\npub struct Face;\n");
    assert_eq!(files(&[("", ""), face, parts]).circles(), Vec::<Vec<String>>::new());
    let around = files(&[("", ""), ("m", "use crate::n::N;\n"), parts, ("n", "use crate::m::part::Part;\n")]);
    assert_eq!(around.circles(), [vec!["m", "m::part", "n"], vec!["folder m", "n"]]);
}
