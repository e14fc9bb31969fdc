//! `cargo xtask test`: what CI runs, stage by stage. A failed stage does not hide what the later ones would say.

use std::time::{Duration, Instant};

use clap::Args;

use crate::Result;
use crate::adapters::{Adapter, Vulkan};
use crate::shell::{self, Keep, Task};
use crate::web;

/// The same packages and features in every stage, so that cargo builds each dependency once for all of them.
const WHOLE: &str = "--workspace --all-features";

/// Options of `test`.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Runs only the kernel tests and the models of other libraries, on this adapter: lavapipe, gl, swiftshader, or a part of
    /// a name, or an index.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Leaves out the docs, the doctests, the other adapters and the browser.
    #[arg(long)]
    quick: bool,
    /// Also what takes long and rarely tells more: the statistical sweeps on the other adapters, all kernel tests once more
    /// with bounds and loop checks, and models at full size.
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Once so many minutes are gone, what looks at the same code in another way (documentation, hostile files, other drivers,
    /// a browser) no longer begins: a slow machine then says so, instead of running out of its time.
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["adapter", "web"])]
    within: Option<f64>,
    /// Runs only the page, in a browser: the golden cases and the viewer.
    #[arg(long, conflicts_with_all = ["adapter", "quick", "full"])]
    web: bool,
}

struct Stage {
    name: String,
    /// What to run, or why it cannot be run here.
    task: std::result::Result<Task, String>,
    /// Whether it runs however late it is.
    essential: bool,
}

impl Stage {
    fn new(name: impl Into<String>, task: std::result::Result<Task, String>) -> Self {
        Self { name: name.into(), task, essential: false }
    }

    fn essential(name: &str, task: Task) -> Self {
        Self { essential: true, ..Self::new(name, Ok(task)) }
    }
}

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// Runs every stage, prints a summary, and fails if one of them did.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.web {
        return web::test();
    }
    let stages = match &options.adapter {
        // Asked for by name, an adapter that is missing is an error, not something to leave out.
        Some(name) => {
            let adapter = Adapter::parse(name);
            vec![kernels_on(&adapter, true)?, models_on(&adapter)?]
        }
        None => all(options),
    };
    let start = Instant::now();
    let mut summary = Vec::new();
    for mut stage in stages {
        let gone = start.elapsed().as_secs_f64() / 60.0;
        if let Some(within) = options.within.filter(|within| !stage.essential && gone > *within) {
            stage.task = Err(format!("{gone:.0} minutes are gone, and after {within} nothing of this kind begins"));
        }
        summary.push(run_stage(stage));
    }
    println!("\n== summary");
    for (name, outcome, time, closing) in &summary {
        let verdict = match outcome {
            Outcome::Passed => "ok",
            Outcome::Failed(_) => "FAILED",
            Outcome::Skipped(_) => "skipped",
        };
        println!("{name:<28} {verdict:<8} {:>7.1} s", time.as_secs_f64());
        if let Outcome::Failed(why) | Outcome::Skipped(why) = outcome {
            println!("    {why}");
        }
        closing.iter().for_each(|line| println!("    {line}"));
    }
    println!("total {:.1} s", start.elapsed().as_secs_f64());
    let failed: Vec<&str> = summary
        .iter()
        .filter(|(_, outcome, ..)| matches!(outcome, Outcome::Failed(_)))
        .map(|(name, ..)| &**name)
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

fn run_stage(stage: Stage) -> (String, Outcome, Duration, Vec<String>) {
    println!("\n== {}", stage.name);
    let start = Instant::now();
    let (outcome, output) = match stage.task {
        Err(why) => (Outcome::Skipped(why), String::new()),
        Ok(task) => {
            let (result, output) = task.run_and_keep(Keep::Both);
            (result.map_or_else(Outcome::Failed, |()| Outcome::Passed), output)
        }
    };
    let time = start.elapsed();
    match &outcome {
        Outcome::Passed => println!("-- {} ok in {:.1} s", stage.name, time.as_secs_f64()),
        Outcome::Failed(_) => println!("-- {} FAILED after {:.1} s", stage.name, time.as_secs_f64()),
        Outcome::Skipped(why) => println!("-- {} skipped: {why}", stage.name),
    }
    (stage.name, outcome, time, closing_lines(&output))
}

/// The test runner's own totals, repeated in the summary: a log is read from its end.
fn closing_lines(output: &str) -> Vec<String> {
    let of_page = |line: &&str| line.starts_with("web: ") && !line.starts_with("web: target");
    if output.lines().any(|line| of_page(&line)) {
        return output.lines().filter(of_page).map(str::to_owned).collect();
    }
    // Under nextest each failed test's output holds a total of its own, which says nothing.
    if let Some(line) = output.lines().find(|line| line.contains("Summary") && line.contains("tests run:")) {
        return vec![line.trim().to_owned()];
    }
    let is_total = |line: &&str| line.contains("test result:") && !line.contains("0 passed; 0 failed; 0 ignored");
    output.lines().map(str::trim).filter(is_total).map(str::to_owned).collect()
}

fn all(options: &Options) -> Vec<Stage> {
    let clippy = Task::cargo("clippy").words(WHOLE).words("--all-targets -- -D warnings");
    // What a newcomer compiles first: xtask without its chores for developers, lara without the window.
    let plain = Task::cargo("clippy --workspace --no-default-features --all-targets -- -D warnings");
    let mut stages = vec![
        Stage::essential("format", Task::cargo("fmt --all --check")),
        Stage::essential("clippy", clippy),
        // Some tests start the binary, which a test build alone does not bring up to date.
        Stage::essential("build lara", Task::cargo("build --bin lara --bin fuzz").words(WHOLE)),
        Stage::essential("tests", runner("--tests")),
        Stage::essential("clippy without features", plain),
    ];
    if options.quick {
        return stages;
    }
    let fuzz = shell::beside_us("fuzz").map(|fuzz| Task::new(fuzz).words("--cases").args([cases(options.full)]));
    stages.push(Stage::new("hostile files", fuzz));
    let mut others = vec![Adapter::Gl, Adapter::SwiftShader];
    if cfg!(target_os = "linux") && !Vulkan::look().hardware.is_empty() {
        others.insert(0, Adapter::Lavapipe); // the tests above ran on the GPU
    }
    for adapter in &others {
        let skipped = |why| Stage::new(title("kernel tests", adapter), Err(why));
        stages.push(kernels_on(adapter, options.full).unwrap_or_else(skipped));
        // An adapter that is not there is said once.
        stages.extend(models_on(adapter));
    }
    let docs = Task::cargo("doc").words(WHOLE).words("--no-deps").env("RUSTDOCFLAGS", "-D warnings");
    stages.push(Stage::new("docs", Ok(docs)));
    stages.push(Stage::new("doctests", Ok(Task::cargo("test --doc").words(WHOLE))));
    stages.push(Stage::new("the page in a browser", web::stage()));
    if options.full {
        // Every dependency once more, with other features.
        let windowless = Task::cargo("test --workspace --no-default-features --bin lara");
        stages.push(Stage::new("lara without its window", Ok(windowless)));
        let checked = runner("--test kernels").env("LARA_CHECKED", "1");
        stages.push(Stage::new("kernel tests with checks", Ok(checked)));
        stages.push(Stage::new("models at full size", Ok(ignored("--test models"))));
    }
    stages
}

/// Hostile files tried: half a minute of them, or some minutes.
fn cases(full: bool) -> &'static str {
    if full { "100000" } else { "5000" }
}

/// Tests that look at means of many draws, at very many tokens or at one shape after another, by parts of their names: another
/// driver computes the same numbers, which all the other tests see, and takes minutes for these.
const SWEEPS: [&str; 7] =
    ["statistics", "invariants", "long_sums", "65536", "takes_every_number", "takes_arbitrary", "very_many"];

fn kernels_on(adapter: &Adapter, sweeps: bool) -> Result<Stage> {
    let task = runner("--test kernels").envs(&adapter.environment()?);
    let left_out = || SWEEPS.iter().flat_map(|name| ["--skip", name]);
    let task = if sweeps { task } else { task.words("--").args(left_out()) };
    Ok(Stage::new(title("kernel tests", adapter), Ok(task)))
}

/// The tests of `tests/models` with this in their names compute the small models of other libraries.
const OF_LIBRARIES: &str = "compute_what";

fn models_on(adapter: &Adapter) -> Result<Stage> {
    let task = runner("--test models").envs(&adapter.environment()?).words("--").words(OF_LIBRARIES);
    Ok(Stage::new(title("models of libraries", adapter), Ok(task)))
}

fn title(what: &str, adapter: &Adapter) -> String {
    format!("{what} on {}", adapter.name())
}

/// The tests that are marked `#[ignore]`, and no others.
fn ignored(targets: &str) -> Task {
    let only = if shell::find("cargo-nextest").is_some() { "--run-ignored only" } else { "-- --ignored" };
    runner(targets).words(only)
}

/// nextest where it is installed (a process a test, and a summary); plain cargo otherwise.
fn runner(targets: &str) -> Task {
    let task = if shell::find("cargo-nextest").is_some() { "nextest run" } else { "test --no-fail-fast" };
    Task::cargo(task).words(WHOLE).words(targets)
}

#[cfg(test)]
mod tests {
    use super::closing_lines;

    #[test]
    fn totals_of_both_runners_are_repeated_and_empty_ones_are_not() {
        let cargo = "running 0 tests\ntest result: ok. 0 passed; 0 failed; 0 ignored\ntest result: FAILED. 3 passed; 1 failed; 0 ignored\n";
        assert_eq!(closing_lines(cargo), ["test result: FAILED. 3 passed; 1 failed; 0 ignored"]);
        let nextest = format!("{cargo}     Summary [   0.5s] 12 tests run: 11 passed, 1 failed, 0 skipped\n");
        assert_eq!(closing_lines(&nextest), ["Summary [   0.5s] 12 tests run: 11 passed, 1 failed, 0 skipped"]);
    }
}
