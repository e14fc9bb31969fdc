//! `lara devices`

use clap::Args;
use lara_runtime::{AdapterReport, Gpu};

use crate::fail::{Failure, Outcome, print, print_json};

/// List the adapters, their drivers, limits and features.
#[derive(Args)]
#[command(after_help = "Examples:\n  lara devices\n  lara devices --json\n  WGPU_BACKEND=gl lara devices")]
pub(crate) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let reports = pollster::block_on(Gpu::list());
    if options.json {
        print_json(&reports)?;
    } else {
        reports.iter().for_each(show);
    }
    if reports.is_empty() {
        return Err(Failure::failed(
            "no adapter was found; install a Vulkan driver (on Debian `cargo xtask setup` installs a software one)",
        ));
    }
    Ok(())
}

fn show(report: &AdapterReport) {
    let AdapterReport { index, name, backend, kind, driver, limits, features, without } = report;
    print(format!("{index}: {name} ({backend}, {kind})\n   driver    {driver}"));
    for (name, value) in limits {
        print(format!("   {name:<38} {value}"));
    }
    let has: Vec<&str> = features.iter().filter(|f| *f.1).map(|f| *f.0).collect();
    print(format!("   features  {}", if has.is_empty() { "none".to_owned() } else { has.join(", ") }));
    if !without.is_empty() {
        print(format!("   lara will do without {}", without.join(", ")));
    }
}
