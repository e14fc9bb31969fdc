//! `cargo xtask shader-stats`: what a real GPU's compiler makes of the kernels, on a machine without that GPU.
//!
//! Mesa's AMD driver has a null device for every architecture that it knows. It runs nothing, yet it compiles, and
//! reports registers, spills and occupancy.

#[cfg(feature = "shader-stats")]
mod kernels;
#[cfg(feature = "shader-stats")]
mod null_device;
#[cfg(feature = "shader-stats")]
mod table;

use clap::Args;

use crate::Result;
use crate::adapters;
use crate::shell::Task;

/// Options of `shader-stats`.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// AMD architectures by Mesa's names, in capitals: NAVI31, NAVI21, VEGA10, …
    #[arg(long, value_name = "NAME", num_args = 1.., default_value = "NAVI31")]
    family: Vec<String>,
    /// Only modules whose name contains this.
    #[arg(long, value_name = "PART")]
    module: Option<String>,
    /// One JSON object a kernel, a line each, instead of the table.
    #[arg(long)]
    json: bool,
}

/// Builds us once more with the shader compiler in, and starts that once a family.
///
/// A new process each time, because the driver reads its family from the environment when it is loaded.
pub(crate) fn run(options: &Options) -> Result<()> {
    let missing = "Mesa's AMD driver is not installed, which has the null device (Debian: mesa-vulkan-drivers, \
        `cargo xtask setup`; Fedora: mesa-vulkan-drivers; Arch: vulkan-radeon)";
    let manifest = adapters::manifest("radeon_icd").ok_or(missing)?;
    Task::cargo("build --quiet --workspace --all-features --bin xtask").run_unannounced()?;
    let us = std::env::current_exe().map_err(|e| format!("cannot tell where xtask itself is: {e}"))?;
    // A program that was replaced while it ran is shown with this ending by Linux.
    let us = us.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
    let mut failed = Vec::new();
    for family in options.family.iter().map(|name| name.to_ascii_uppercase()) {
        let mut task = Task::new(&us)
            .args(["shader-stats-of-null-device", "--family", family.as_str()])
            .args(options.module.iter().flat_map(|part| ["--module", part]))
            .env("RADV_FORCE_FAMILY", family.as_str())
            .env("VK_DRIVER_FILES", manifest.to_string_lossy());
        if options.json {
            task = task.words("--json");
        }
        if task.run_unannounced().is_err() {
            failed.push(family);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("shader-stats failed for {}: see above", failed.join(", "))) }
}

/// The table of one family; fails if a kernel does not compile, or if one that is shaped for GPUs spills.
#[cfg(feature = "shader-stats")]
pub(crate) fn run_on_null_device(options: &Options) -> Result<()> {
    let family = options.family.first().map_or("", String::as_str);
    let device = null_device::NullDevice::open(family)?;
    let (kernels, mut errors) = kernels::all(options.module.as_deref().unwrap_or(""));
    let mut rows = Vec::new();
    for kernel in &kernels {
        match device.statistics(kernel) {
            Ok(statistics) => rows.push(table::Row { kernel, statistics }),
            Err(why) => errors.push(format!("{}: {why}", kernel.name())),
        }
    }
    if options.json {
        rows.iter().for_each(|row| show(&row.json(family)));
    } else {
        show(&format!("{}\n{}", device.name, table::text(&rows)));
    }
    errors.extend(rows.iter().filter_map(table::Row::complaint));
    if errors.is_empty() { Ok(()) } else { Err(format!("{} problems\n{}", errors.len(), errors.join("\n"))) }
}

/// A line for stdout, whose reader may have seen enough and gone (`| head`).
#[cfg(feature = "shader-stats")]
fn show(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}
