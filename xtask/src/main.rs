//! The chores of the workspace: `cargo xtask setup | demo | web | test | fuzz | shader-stats`.
#![expect(clippy::print_stdout, reason = "a command line tool: what it prints is what it is for")]

mod adapters;
mod checks;
mod debian;
mod demo;
mod fuzz;
mod report;
mod setup;
mod shell;
mod stats;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sentences for a person, not types for a program: nothing here is caught and acted upon.
type Result<T> = std::result::Result<T, String>;

/// Chores of the lara workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Makes sure that a graphics adapter is there; installs a software Vulkan driver on Debian-like systems without one.
    Setup(setup::Options),
    /// Trains a small Vision Transformer on the digits, evaluates it, and writes predictions and attention maps to runs/demo.
    Demo(demo::Options),
    /// Everything that CI runs: format, clippy, docs, tests, doctests, and the kernel tests on every other adapter.
    Test(checks::Options),
    /// Hostile files, killed runs, full disks, lost devices, long runs: tries what lara promises (--help of it says more).
    Fuzz(fuzz::Options),
    /// Builds the viewer for browsers (WebGPU) into target/web, and serves it on this machine if asked to.
    Web(web::Options),
    /// The same in a build of xtask that has what this chore needs.
    #[cfg(feature = "web")]
    #[command(hide = true)]
    WebInside(web::Inside),
    /// What AMD's compiler makes of every kernel (registers, spills, occupancy), without the card.
    ShaderStats(stats::Options),
    /// One architecture's table, in a process that was started with the null device in its environment.
    #[cfg(feature = "shader-stats")]
    #[command(hide = true)]
    ShaderStatsOfNullDevice(stats::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = enter_workspace().and_then(|()| match arguments.chore {
        Chore::Setup(options) => setup::run(&options),
        Chore::Demo(options) => demo::run(&options),
        Chore::Test(options) => checks::run(&options),
        Chore::Fuzz(options) => fuzz::run(options),
        Chore::Web(options) => web::run(&options),
        #[cfg(feature = "web")]
        Chore::WebInside(inside) => web::run_inside(&inside),
        Chore::ShaderStats(options) => stats::run(&options),
        #[cfg(feature = "shader-stats")]
        Chore::ShaderStatsOfNullDevice(options) => stats::run_on_null_device(&options),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("xtask: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Paths in this crate are relative to the workspace's root, wherever the chore was called from.
fn enter_workspace() -> Result<()> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let root = here.parent().ok_or("the xtask crate has no folder above it")?;
    std::env::set_current_dir(root).map_err(|e| format!("cannot enter the workspace at {}: {e}", root.display()))
}
