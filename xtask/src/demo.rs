//! `cargo xtask demo`: from a fresh clone to a trained model and a page to look at.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use crate::adapters::Adapter;
use crate::report::{Report, Section};
use crate::shell::{self, Keep, Task};
use crate::{Result, adapters, setup};

/// Where everything goes.
const OUT: &str = "runs/demo";
/// The demo before this one is kept, one deep, so that running it twice loses nothing.
const BEFORE: &str = "runs/demo.before";
const IMAGES: &str = "runs/demo/images";
const ATTENTION: &str = "runs/demo/attention";

/// One call of `lara`.
struct Step {
    /// Heading in the report, and what is said when it fails.
    title: &'static str,
    /// The arguments of `lara`; `IMAGES` at the end of a line stands for the exported pictures.
    line: &'static str,
    /// What becomes of the output.
    shows: Shows,
}

enum Shows {
    /// The terminal's business alone (the progress bar).
    Live,
    /// Goes into the report as text.
    Text,
    /// Goes into the report as the PNG files of this folder and of those in it.
    Pictures(&'static str),
}

/// The whole demo. Every flag of `lara` that this crate knows is in this table.
const STEPS: [Step; 6] = [
    Step { title: "Adapter", line: "devices", shows: Shows::Text },
    Step {
        title: "Training",
        line: "train --preset digits --attention lara --output-dir runs/demo",
        shows: Shows::Live,
    },
    Step { title: "Evaluation on the test set", line: "eval runs/demo", shows: Shows::Text },
    Step {
        title: "Held-out images",
        line: "data digits --split test --count 6 --export runs/demo/images",
        shows: Shows::Pictures(IMAGES),
    },
    Step { title: "Predictions", line: "predict runs/demo IMAGES", shows: Shows::Text },
    Step {
        title: "Attention maps",
        line: "export-maps runs/demo IMAGES --query mean --query center --overview --format html --out runs/demo/attention",
        shows: Shows::Pictures(ATTENTION),
    },
];

/// Options of `demo`.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// The adapter to use: lavapipe, gl, swiftshader, or a part of a name, or an index (see `lara devices`).
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

/// Sets up, builds, runs every step, and writes the report.
pub(crate) fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    setup::run(&setup::Options::default())?;
    let env = match &options.adapter {
        Some(name) => Adapter::parse(name).environment()?,
        None => Vec::new(),
    };
    println!("\n== building lara (the first time takes a few minutes)");
    // Without the window, which is more than half of the crates and which nothing here opens.
    Task::cargo("build --package lara --no-default-features").run()?;
    let lara = shell::beside_us("lara")?;
    let built = Instant::now();
    make_room()?;

    let mut report = Report::new("lara: a demo on handwritten digits");
    for step in &STEPS {
        println!("\n== {}", step.title);
        let at = Instant::now();
        let task = Task::new(&lara).args(arguments(step)?);
        let line = task.line();
        let section =
            perform(step, &task.envs(&env)).map_err(|why| format!("the demo stopped at \"{}\": {why}", step.title))?;
        report.push(step.title, &line, section, at.elapsed());
    }
    let page = report.write(Path::new(OUT), built.elapsed())?;
    println!("\n== done: {}", page.display());
    println!(
        "{:.1} s for the run, {:.1} s with set-up and build",
        built.elapsed().as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn perform(step: &Step, task: &Task) -> Result<Section> {
    match step.shows {
        Shows::Live => task.run().map(|()| Section::Nothing),
        Shows::Text => {
            let (result, text) = task.run_and_keep(Keep::Stdout);
            result.map(|()| Section::Text(text))
        }
        Shows::Pictures(folder) => {
            task.run()?;
            Ok(Section::Pictures(pictures(folder)?))
        }
    }
}

fn arguments(step: &Step) -> Result<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    for word in step.line.split_whitespace() {
        match word {
            "IMAGES" => words.extend(pictures(IMAGES)?.iter().map(|path| path.to_string_lossy().into_owned())),
            _ => words.push(word.into()),
        }
    }
    Ok(words)
}

fn pictures(folder: &str) -> Result<Vec<PathBuf>> {
    let mut found = adapters::files(Path::new(folder), "png");
    // Maps have a folder for each image.
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    folders.sort();
    found.extend(folders.iter().flat_map(|folder| adapters::files(folder, "png")));
    if found.is_empty() { Err(format!("there is no PNG file in {folder}")) } else { Ok(found) }
}

fn make_room() -> Result<()> {
    if !Path::new(OUT).exists() {
        return Ok(());
    }
    println!("the earlier demo is kept in {BEFORE}");
    if Path::new(BEFORE).exists() {
        std::fs::remove_dir_all(BEFORE).map_err(|e| format!("cannot remove {BEFORE}: {e}"))?;
    }
    std::fs::rename(OUT, BEFORE).map_err(|e| format!("cannot rename {OUT} to {BEFORE}: {e}"))
}
