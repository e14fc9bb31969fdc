//! The compiler of the page: how cargo is called for wasm32-unknown-unknown, and where it leaves what it built.

use std::path::{Path, PathBuf};

use super::toolchain::{TARGET, debian, has_target};
use crate::Result;
use crate::shell::Task;

/// `cargo build` for the browser, with a target folder of its own: it never waits for, or spoils, the native one.
pub(super) fn build(profile: &str) -> Result<Task> {
    if has_target() {
        return Ok(with(Task::cargo(""), profile));
    }
    let paths = debian().ok_or_else(|| format!("no toolchain for {TARGET} was found"))?;
    Ok(of_debian(paths, profile))
}

/// Debian's compiler brings no built standard library.
fn of_debian([rustc, cargo, linker]: [PathBuf; 3], profile: &str) -> Task {
    with(Task::new(cargo.to_string_lossy()), profile)
        .words("-Zbuild-std=std,panic_abort")
        .env("RUSTC", rustc.to_string_lossy())
        // The one unstable option is -Zbuild-std.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker.to_string_lossy())
        // rustup's cargo, which may run us, points these at its own toolchain.
        .env("LD_LIBRARY_PATH", "")
        .env("RUSTUP_TOOLCHAIN", "")
        .env("CARGO", "")
}

fn with(cargo: Task, profile: &str) -> Task {
    cargo
        .words(&format!("build --target {TARGET} --profile {profile} --target-dir target/wasm"))
        // Flags for this machine's processor mean nothing to wasm.
        .env("RUSTFLAGS", "")
        .env("CARGO_ENCODED_RUSTFLAGS", "")
        .env("CARGO_BUILD_TARGET", "")
}

/// Where [`build`] leaves what it built.
pub(super) fn folder(profile: &str) -> PathBuf {
    Path::new("target/wasm").join(TARGET).join(profile)
}

#[cfg(test)]
mod tests {
    use super::{Task, of_debian, with};

    #[test]
    fn debians_compiler_builds_its_own_standard_library() {
        let line = of_debian(["rustc", "cargo", "wasm-ld"].map(Into::into), "web").line();
        assert!(line.contains("cargo build --target wasm32-unknown-unknown --profile web"), "{line}");
        assert!(line.contains("RUSTC_BOOTSTRAP=1") && line.contains("-Zbuild-std=std,panic_abort"), "{line}");
        assert!(!with(Task::cargo(""), "web").line().contains("-Z"), "a stable compiler takes no -Z");
    }
}
