//! The demo's report, as Markdown and as one HTML page beside its pictures.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Result;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    pre{background:#f4f4f6;padding:.8rem;overflow-x:auto}figure{display:inline-block;margin:.4rem;text-align:center}\
    img{min-width:96px;max-width:100%;image-rendering:pixelated;border:1px solid #ccc}figcaption{font-size:.8rem}";

/// What one step has to show.
pub(crate) enum Section {
    /// Its command and time.
    Nothing,
    /// Its output.
    Text(String),
    /// PNG files below the report's folder.
    Pictures(Vec<PathBuf>),
}

struct Entry {
    title: String,
    command: String,
    section: Section,
    time: Duration,
}

/// Steps in the order in which they ran.
pub(crate) struct Report {
    title: String,
    entries: Vec<Entry>,
}

impl Report {
    pub(crate) fn new(title: &str) -> Self {
        Report { title: title.into(), entries: Vec::new() }
    }

    pub(crate) fn push(&mut self, title: &str, command: &str, section: Section, time: Duration) {
        self.entries.push(Entry { title: title.into(), command: command.into(), section, time });
    }

    /// Writes report.md and report.html into `folder` and returns the latter's path.
    pub(crate) fn write(&self, folder: &Path, total: Duration) -> Result<PathBuf> {
        let save = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            Ok::<_, String>(path)
        };
        save("report.md", self.markdown(folder, total))?;
        save("report.html", self.html(folder, total))
    }

    fn markdown(&self, folder: &Path, total: Duration) -> String {
        let mut text = format!("# {}\n\nWritten by `cargo xtask demo` in {:.1} s.\n", self.title, total.as_secs_f64());
        for entry in &self.entries {
            let time = entry.time.as_secs_f64();
            let _ = write!(text, "\n## {}\n\n`{}` ({time:.1} s)\n", entry.title, entry.command);
            match &entry.section {
                Section::Nothing => {}
                Section::Text(output) => {
                    let _ = write!(text, "\n```text\n{}\n```\n", plain(output).trim_end());
                }
                Section::Pictures(paths) => {
                    let images =
                        paths.iter().map(|path| below(folder, path)).map(|(link, name)| format!("![{name}]({link})"));
                    let _ = write!(text, "\n{}\n", images.collect::<Vec<_>>().join("\n"));
                }
            }
        }
        text
    }

    fn html(&self, folder: &Path, total: Duration) -> String {
        let title = escaped(&self.title);
        let mut text = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\n\
             <h1>{title}</h1>\n<p>Written by <code>cargo xtask demo</code> in {:.1} s.</p>\n",
            total.as_secs_f64()
        );
        for entry in &self.entries {
            let (title, command, time) = (escaped(&entry.title), escaped(&entry.command), entry.time.as_secs_f64());
            let _ = write!(text, "<h2>{title}</h2>\n<p><code>{command}</code> ({time:.1} s)</p>\n");
            match &entry.section {
                Section::Nothing => {}
                Section::Text(output) => {
                    let _ = writeln!(text, "<pre>{}</pre>", escaped(plain(output).trim_end()));
                }
                Section::Pictures(paths) => {
                    for (link, name) in paths.iter().map(|path| below(folder, path)) {
                        let (link, name) = (escaped(&link), escaped(&name));
                        let _ = writeln!(
                            text,
                            "<figure><img src=\"{link}\" alt=\"{name}\"><figcaption>{name}</figcaption></figure>"
                        );
                    }
                }
            }
        }
        text + "</html>\n"
    }
}

/// A picture's link from the report, and its name: an overview has that of its image, which is its folder's.
fn below(folder: &Path, path: &Path) -> (String, String) {
    let link = path.strip_prefix(folder).unwrap_or(path).to_string_lossy().replace('\\', "/");
    let named_by = if path.ends_with("overview.png") { path.parent().unwrap_or(path) } else { path };
    (link, named_by.file_stem().unwrap_or_default().to_string_lossy().into_owned())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Without the terminal's colours, and of a line that was drawn over itself only the last state.
fn plain(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let line = line.trim_end_matches('\r');
        let mut rest = line.rsplit('\r').next().unwrap_or(line);
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            kept.push_str(before);
            rest =
                after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';' || c == '?').get(1..).unwrap_or("");
        }
        kept.push_str(rest);
        kept.push('\n');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{below, escaped, plain};
    use std::path::Path;

    #[test]
    fn terminal_control_is_taken_out() {
        assert_eq!(plain("\u{1b}[1;32mok\u{1b}[0m 97 %\n1/2\r2/2\r\n"), "ok 97 %\n2/2\n");
    }

    #[test]
    fn links_are_relative_to_the_report_and_names_cannot_become_tags() {
        let (link, name) = below(Path::new("runs/demo"), Path::new("runs/demo/attention/3.png"));
        assert_eq!((link.as_str(), name.as_str()), ("attention/3.png", "3"));
        let (_, name) = below(Path::new("runs/demo"), Path::new("runs/demo/attention/000-is-0/overview.png"));
        assert_eq!(name, "000-is-0");
        assert_eq!(escaped("<b>&\""), "&lt;b&gt;&amp;&quot;");
    }
}
