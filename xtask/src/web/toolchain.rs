//! A compiler for wasm32-unknown-unknown: the toolchain in use where it has that target, otherwise Debian's packages.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::setup::{System, as_root};
use crate::shell::Task;

const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's compiler for the web carries no built standard library, so that comes as source, and a linker for wasm.
const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];

/// How to build for the browser here.
#[derive(Debug)]
pub(crate) enum Toolchain {
    /// `rustup target add` was done, or the distribution's compiler has the target.
    Own,
    /// Debian's packages; the standard library is built from source.
    Debian { rustc: PathBuf, cargo: PathBuf, linker: PathBuf },
}

impl Toolchain {
    /// What is there.
    pub(crate) fn find() -> Option<Toolchain> {
        if has_target() { Some(Toolchain::Own) } else { debian() }
    }

    /// What is there; on Debian without it, the packages are installed.
    pub(crate) fn find_or_install() -> Result<Toolchain> {
        if let Some(found) = Self::find() {
            return Ok(found);
        }
        let advice = format!(
            "Rust cannot compile for {TARGET} here: run `rustup target add {TARGET}` (or install that target from where \
             Rust was installed from), then run this again."
        );
        if !System::read().debian_like() {
            return Err(advice);
        }
        println!("web: Rust cannot compile for {TARGET} here; installing Debian's packages: {}", PACKAGES.join(" "));
        as_root("apt-get", &PACKAGES)?.words("update").run()?;
        as_root("apt-get", &PACKAGES)?.words("install -y --no-install-recommends").args(PACKAGES).run()?;
        debian().ok_or_else(|| format!("the packages are installed, yet they hold no compiler for {TARGET}. {advice}"))
    }

    /// `cargo build` for the browser, with a target folder of its own: it never waits for, or spoils, the native one.
    pub(crate) fn build(&self, profile: &str) -> Task {
        let words = format!("build --target {TARGET} --profile {profile} --target-dir target/wasm");
        // Flags for this machine's processor mean nothing to wasm.
        let task =
            |task: Task| task.env("RUSTFLAGS", "").env("CARGO_ENCODED_RUSTFLAGS", "").env("CARGO_BUILD_TARGET", "");
        match self {
            Toolchain::Own => task(Task::cargo(&words)),
            Toolchain::Debian { rustc, cargo, linker } => task(Task::new(cargo.to_string_lossy()).words(&words))
                .words("-Zbuild-std=std,panic_abort")
                .env("RUSTC", rustc.to_string_lossy())
                // The one unstable option is -Zbuild-std.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker.to_string_lossy())
                // rustup's cargo, which may run us, points these at its own toolchain.
                .env("LD_LIBRARY_PATH", "")
                .env("RUSTUP_TOOLCHAIN", "")
                .env("CARGO", ""),
        }
    }

    /// Where [`Toolchain::build`] leaves what it built.
    pub(crate) fn folder(profile: &str) -> PathBuf {
        Path::new("target/wasm").join(TARGET).join(profile)
    }
}

/// Whether the compiler in use has a standard library for the target.
fn has_target() -> bool {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let libraries = Task::new(rustc).words("--print target-libdir --target").words(TARGET).quiet();
    let entries = libraries.and_then(|folder| std::fs::read_dir(folder.trim()).ok());
    entries.is_some_and(|mut all| {
        all.any(|entry| entry.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("libstd")))
    })
}

fn debian() -> Option<Toolchain> {
    let listed = |package: &str, file: &str| {
        let list = Task::new("dpkg").words("-L").words(package).quiet()?;
        let found = |path: &&str| path.ends_with(&format!("/{file}")) && Path::new(path).is_file();
        list.lines().find(found).map(PathBuf::from)
    };
    // Packages of these names hold the files; `rust-web-src` only has to be there.
    listed("rust-web-src", "library/std/Cargo.toml")?;
    Some(Toolchain::Debian {
        rustc: listed("rustc-web", "bin/rustc").or_else(|| listed("rustc", "bin/rustc"))?,
        cargo: listed("cargo-web", "bin/cargo").or_else(|| listed("cargo", "bin/cargo"))?,
        linker: listed("lld-19", "bin/wasm-ld-19").or_else(|| listed("lld-19", "bin/wasm-ld"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::Toolchain;

    #[test]
    fn debians_compiler_builds_its_own_standard_library() {
        let debian = Toolchain::Debian { rustc: "rustc".into(), cargo: "cargo".into(), linker: "wasm-ld".into() };
        let line = debian.build("web").line();
        assert!(line.contains("cargo build --target wasm32-unknown-unknown --profile web"), "{line}");
        assert!(line.contains("RUSTC_BOOTSTRAP=1") && line.contains("-Zbuild-std=std,panic_abort"), "{line}");
        assert!(!Toolchain::Own.build("web").line().contains("-Z"), "a stable compiler takes no -Z");
    }
}
