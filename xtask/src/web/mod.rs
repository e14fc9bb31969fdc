//! `cargo xtask web`: the viewer as a page, in target/web; and `cargo xtask test --web`, which runs it in a browser.

#[cfg(feature = "web")]
mod browser;
#[cfg(feature = "web")]
mod bundle;
#[cfg(feature = "web")]
mod check;
#[cfg(feature = "web")]
mod compiler;
#[cfg(feature = "web")]
mod serve;
mod toolchain;

use clap::Args;

use crate::Result;
use crate::shell::{self, Task};

/// Browsers whose DevTools protocol the test speaks.
const BROWSERS: [&str; 5] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/// Options of `web`.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Serves the page on this machine when it is built.
    #[arg(long)]
    serve: bool,
    /// The port to serve on; 0 takes a free one.
    #[arg(long, value_name = "N", default_value_t = 8080, requires = "serve")]
    port: u16,
    /// Builds in less time; the page is larger and slower.
    #[arg(long)]
    fast: bool,
    /// Optimized, which the page is anyway.
    #[arg(long, conflicts_with = "fast")]
    release: bool,
}

/// What is done with the page by a build of xtask that has wasm-bindgen, a server and a browser's protocol in it.
#[derive(Args, Clone)]
pub(crate) struct Inside {
    #[command(flatten)]
    options: Options,
    /// Also builds the golden cases, and runs both pages in a browser.
    #[arg(long)]
    test: bool,
}

/// Builds the page.
pub(crate) fn run(options: &Options) -> Result<()> {
    // Whatever is missing is said, or installed, before minutes go by.
    toolchain::install_if_missing()?;
    let mut task = again()?.words("web-inside");
    if options.serve {
        task = task.args(["--serve".to_owned(), format!("--port={}", options.port)]);
    }
    if options.fast {
        task = task.words("--fast");
    }
    task.run_unannounced()
}

/// Builds the page and the golden cases, and runs them in a browser.
pub(crate) fn test() -> Result<()> {
    toolchain::install_if_missing()?;
    find_browser().ok_or("no Chromium or Chrome was found on the path; on Debian: apt-get install chromium")?;
    again()?.words("web-inside --test --fast").run_unannounced()
}

/// The stage of `cargo xtask test`, or why it cannot be run here: only what is there already is used.
pub(crate) fn stage() -> Result<Task> {
    find_browser().ok_or("no Chromium or Chrome was found on the path")?;
    if !toolchain::is_there() {
        return Err("no toolchain for wasm32-unknown-unknown was found; `cargo xtask web` says how to get one".into());
    }
    let us = std::env::current_exe().map_err(|e| format!("cannot tell where xtask itself is: {e}"))?;
    Ok(Task::new(us.to_string_lossy().trim_end_matches(" (deleted)")).words("test --web"))
}

fn find_browser() -> Option<std::path::PathBuf> {
    BROWSERS.iter().find_map(|name| shell::find(name))
}

/// Ourselves, built once more with what only this chore needs: `cargo xtask demo` on a fresh clone does not wait for it.
fn again() -> Result<Task> {
    Task::cargo("build --quiet --workspace --all-features --bin xtask").run_unannounced()?;
    let us = std::env::current_exe().map_err(|e| format!("cannot tell where xtask itself is: {e}"))?;
    // A program that was replaced while it ran is shown with this ending by Linux.
    Ok(Task::new(us.to_string_lossy().trim_end_matches(" (deleted)")))
}

/// See [`Inside`].
#[cfg(feature = "web")]
pub(crate) fn run_inside(inside: &Inside) -> Result<()> {
    bundle::build(inside.options.fast, inside.test)?;
    if inside.test {
        let browser = find_browser().ok_or("no Chromium or Chrome was found on the path")?;
        return check::run(&browser);
    }
    if inside.options.serve {
        let server = serve::Server::start(inside.options.port)?;
        println!("web: http://localhost:{}/ (Ctrl-C ends it)", server.port());
        server.wait();
    }
    Ok(())
}
