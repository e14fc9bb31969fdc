//! Running other programs: the line is shown before it runs, and a failure is a sentence.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Result;

/// One program to run, with its arguments and what it finds in its environment besides ours.
#[derive(Clone)]
pub(crate) struct Task {
    program: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// Which outputs [`Task::run_and_keep`] shows on stdout and returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The results; messages go to our stderr.
    Stdout,
    /// Both in the order written: nextest prints its totals to stderr, and CI reads stdout.
    Both,
}

impl Task {
    pub(crate) fn new(program: impl Into<String>) -> Self {
        Task { program: program.into(), args: Vec::new(), env: Vec::new() }
    }

    /// The cargo that runs us.
    pub(crate) fn cargo(line: &str) -> Self {
        Task::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())).words(line)
    }

    /// Appends the arguments of `line`, which are separated by blanks.
    pub(crate) fn words(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    pub(crate) fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets `name` for the program; an empty value takes an inherited one away.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn envs(mut self, pairs: &[(String, String)]) -> Self {
        self.env.extend_from_slice(pairs);
        self
    }

    /// The line as a person would type it.
    pub(crate) fn line(&self) -> String {
        let program = PathBuf::from(&self.program);
        let program = if program.is_absolute() {
            program.file_stem().unwrap_or(OsStr::new("")).to_string_lossy().into_owned()
        } else {
            self.program.clone()
        };
        let env = self.env.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        env.chain([program]).chain(self.args.iter().map(|a| quoted(a))).collect::<Vec<_>>().join(" ")
    }

    /// Runs with our own stdin, stdout and stderr.
    pub(crate) fn run(&self) -> Result<()> {
        self.announce();
        self.run_unannounced()
    }

    /// [`Task::run`] without the line, where stdout is meant for a program.
    pub(crate) fn run_unannounced(&self) -> Result<()> {
        let status = self.command().status().map_err(|e| self.not_started(&e))?;
        self.verdict(status)
    }

    /// Runs, shows the output on our stdout as it comes, and returns it whole.
    pub(crate) fn run_and_keep(&self, keep: Keep) -> (Result<()>, String) {
        self.announce();
        let mut kept = String::new();
        (self.stream(keep, |line| kept.push_str(line)), kept)
    }

    /// Runs silently and returns stdout, or nothing if the program is missing or fails.
    pub(crate) fn quiet(&self) -> Option<String> {
        let output = self.command().stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn stream(&self, keep: Keep, mut each: impl FnMut(&str)) -> Result<()> {
        let (reader, writer) = std::io::pipe().map_err(|e| self.not_started(&e))?;
        let mut command = self.command();
        if keep == Keep::Both {
            command.stderr(writer.try_clone().map_err(|e| self.not_started(&e))?);
        }
        command.stdin(Stdio::null()).stdout(writer);
        if std::io::stdout().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always"); // the pipe hides the terminal from cargo
        }
        let mut child = command.spawn().map_err(|e| self.not_started(&e))?;
        drop(command); // it holds our ends of the pipe, and the loop below ends when the last is closed
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line);
            print!("{text}");
            each(&text);
            line.clear();
        }
        let status = child.wait().map_err(|e| format!("lost sight of `{}`: {e}", self.line()))?;
        self.verdict(status)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        // Cargo describes *us* in these; a build script that reads them would be run again for nothing.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        for (name, value) in &self.env {
            match value.as_str() {
                "" => command.env_remove(name),
                _ => command.env(name, value),
            };
        }
        command
    }

    fn announce(&self) {
        println!("$ {}", self.line());
        // The child writes to the same stdout: what we hold back would come after it.
        let _ = std::io::stdout().flush();
    }

    fn not_started(&self, error: &std::io::Error) -> String {
        format!("`{}` could not be started: {error}", self.program)
    }

    fn verdict(&self, status: std::process::ExitStatus) -> Result<()> {
        if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", self.line())) }
    }
}

/// Whether `program` is found on the path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let name = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(&name)).find(|path| path.is_file())
}

/// Every binary of the workspace lands in the folder that we were started from.
pub(crate) fn beside_us(program: &str) -> Result<String> {
    let us = std::env::current_exe().map_err(|e| format!("cannot tell where xtask itself is: {e}"))?;
    Ok(us.with_file_name(format!("{program}{}", std::env::consts::EXE_SUFFIX)).to_string_lossy().into_owned())
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { format!("'{text}'") }
}
