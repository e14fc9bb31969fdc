//! What lara promises, tried by the thousand: hostile files, killed runs, full disks, lost devices, long runs.
//!
//! `cargo xtask fuzz` starts it. A case is decided by a seed and its number and nothing else, so it can be repeated.
#![expect(clippy::print_stdout, reason = "a command line tool: what it prints is what it is for")]

mod case;
mod device;
mod kill;
mod kinds;
mod long;
mod source;
mod train;
mod verdict;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Tries what lara promises.
#[derive(Parser)]
#[command(name = "cargo xtask fuzz", bin_name = "cargo xtask fuzz")]
struct Arguments {
    /// Decides every case.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many hostile inputs to try.
    #[arg(long, default_value_t = 20_000)]
    cases: u64,
    /// Processes side by side.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Repeats one case.
    #[arg(long, value_name = "N")]
    case: Option<u64>,
    /// Tries one reader only, in this process, and prints what it says.
    #[arg(long, value_name = "NAME")]
    kind: Option<String>,
    /// Where the inputs of failed cases go.
    #[arg(long, value_name = "FOLDER", default_value = "target/fuzz")]
    dump: PathBuf,
    /// Kills runs so many times, then fills disks and starts a second process; every run must end as if nothing had been.
    #[arg(long, value_name = "TIMES")]
    kill: Option<u64>,
    /// Trains with so many limits of device memory and so many moments at which the device is lost.
    #[arg(long, value_name = "TRIALS")]
    device: Option<u64>,
    /// Trains so many steps and compares the memory after a tenth of them with that at the end.
    #[arg(long, value_name = "STEPS", num_args = 0..=1, default_missing_value = "100000")]
    long: Option<u64>,
    /// Does the cases of one process, from this number on.
    #[arg(long, hide = true)]
    first: Option<u64>,
    /// Trains here: new or resume.
    #[arg(long, hide = true)]
    train: Option<String>,
    /// What the hidden training sets.
    #[arg(long, hide = true)]
    set: Vec<String>,
    /// How long its files may become, bytes.
    #[arg(long, hide = true)]
    file_limit: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("fuzz: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), String> {
    let Arguments { seed, cases, jobs, dump, .. } = arguments;
    let plan = workers::Plan { seed: *seed, cases: *cases, jobs: (*jobs).max(1) };
    if let Some(way) = &arguments.train {
        let Arguments { set, file_limit, .. } = arguments;
        return train::child(&train::Options { resumes: way == "resume", sets: set.clone(), file_limit: *file_limit });
    }
    if let Some(first) = arguments.first {
        return workers::work(&plan, first, dump);
    }
    if let Some(case) = arguments.case {
        return workers::one(*seed, case, dump);
    }
    if let Some(kind) = &arguments.kind {
        return workers::of_kind(kind, *seed, *cases, dump);
    }
    let campaigns = [
        arguments.kill.map(|kills| kill::campaign(*seed, kills)),
        arguments.device.map(device::campaign),
        arguments.long.map(long::campaign),
    ];
    if campaigns.iter().all(Option::is_none) {
        return workers::campaign(&plan, dump);
    }
    campaigns.into_iter().flatten().collect()
}
