//! Debian's package sources: where the backports suite is found, derived from the entry that is already there.
//!
//! No mirror's name is written here: a machine's own entry is copied and only its suite changes.

use std::path::{Path, PathBuf};

use crate::Result;

const FOLDER: &str = "/etc/apt/sources.list.d";

/// The entry to add for `<release>-backports`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The file to write, in /etc/apt/sources.list.d.
    pub(crate) file: PathBuf,
    /// Its whole content.
    pub(crate) text: String,
}

/// The entry to add, or nothing if backports is configured already.
pub(crate) fn backports_entry(release: &str) -> Result<Option<Entry>> {
    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let stanzas: String =
        crate::adapters::files(Path::new(FOLDER), "sources").iter().map(|p| read(p) + "\n\n").collect();
    let mut lines = read(&PathBuf::from("/etc/apt/sources.list")) + "\n";
    lines.extend(crate::adapters::files(Path::new(FOLDER), "list").iter().map(|p| read(p) + "\n"));
    let suite = format!("{release}-backports");
    if stanza_with(&stanzas, &suite).is_some() || line_with(&lines, &suite).is_some() {
        return Ok(None);
    }
    let entry = |name: &str, text: String| Some(Entry { file: Path::new(FOLDER).join(name), text });
    if let Some(stanza) = stanza_with(&stanzas, release) {
        return Ok(entry("lara-backports.sources", with_suite(&stanza, &suite)));
    }
    if let Some(line) = line_with(&lines, release) {
        return Ok(entry("lara-backports.list", line_with_suite(&line, release, &suite)));
    }
    Err(format!("the package sources under /etc/apt name no suite `{release}` to copy: add `{suite}` by hand"))
}

/// The first enabled binary stanza (deb822) that offers `suite`, without its comments.
fn stanza_with(text: &str, suite: &str) -> Option<String> {
    let plain: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let stanzas = plain.split(|line| line.trim().is_empty());
    let field = |stanza: &[&str], name: &str| {
        let wanted = |line: &&&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        stanza
            .iter()
            .find(wanted)
            .and_then(|line| line.split_once(':'))
            .map_or("", |(_, value)| value.trim())
            .to_owned()
    };
    let offers = |stanza: &&[&str]| {
        field(stanza, "Suites").split_whitespace().any(|word| word == suite)
            && field(stanza, "Types").split_whitespace().any(|word| word == "deb")
            && !field(stanza, "Enabled").eq_ignore_ascii_case("no")
    };
    stanzas.into_iter().find(offers).map(|stanza| stanza.join("\n"))
}

fn with_suite(stanza: &str, suite: &str) -> String {
    let is_suites = |line: &str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case("Suites"));
    let change = |line: &str| if is_suites(line) { format!("Suites: {suite}\n") } else { format!("{line}\n") };
    stanza.lines().map(change).collect()
}

/// The first one-line entry (`deb [options] address suite component…`) that offers `suite`.
fn line_with(text: &str, suite: &str) -> Option<String> {
    let offers = |line: &&str| line.starts_with("deb ") && suite_of(line) == Some(suite);
    text.lines().map(str::trim).find(offers).map(str::to_owned)
}

/// The suite is the second word after the options in brackets.
fn suite_of(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("deb ")?.trim_start();
    let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
    rest.split_whitespace().nth(1)
}

fn line_with_suite(line: &str, release: &str, suite: &str) -> String {
    // The address may hold the release's name as well, so the suite is the first such word of its own.
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == release).unwrap_or(words.len());
    let change = |(i, word): (usize, &&str)| if i == at { suite.to_owned() } else { (*word).to_owned() };
    words.iter().enumerate().map(change).collect::<Vec<_>>().join(" ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::{line_with, line_with_suite, stanza_with, with_suite};

    const STANZAS: &str = "Types: deb\n# a note\nURIs: http://mirror.invalid/security\nSuites: bookworm-security\n\n\
        Types: deb-src\nURIs: http://mirror.invalid/src\nSuites: bookworm\n\n\
        Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n";

    #[test]
    fn the_binary_stanza_of_the_release_is_copied_with_another_suite() {
        let stanza = stanza_with(STANZAS, "bookworm").expect("there is one");
        let expected = "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm-backports\nComponents: main\nSigned-By: /k.gpg\n";
        assert_eq!(with_suite(&stanza, "bookworm-backports"), expected);
        assert_eq!(stanza_with(STANZAS, "bookworm-backports"), None);
        let off = STANZAS.replace("Components", "Enabled: no\nComponents");
        assert_eq!(stanza_with(&off, "bookworm"), None, "a disabled stanza is no source");
    }

    #[test]
    fn the_line_of_the_release_is_copied_with_another_suite() {
        let text = "# deb http://mirror.invalid/bookworm bookworm main\n\
            deb [arch=amd64 signed-by=/k.gpg] http://mirror.invalid/bookworm bookworm main contrib\n";
        let line = line_with(text, "bookworm").expect("there is one");
        let expected =
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.invalid/bookworm bookworm-backports main contrib\n";
        assert_eq!(line_with_suite(&line, "bookworm", "bookworm-backports"), expected);
        assert_eq!(line_with(text, "bookworm-backports"), None);
    }
}
