//! Sentences for the user that stay until they are dismissed. Nothing that goes wrong ends the program.

use std::collections::VecDeque;

/// Most messages that are kept; the oldest go first.
const MOST: usize = 6;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something that was done.
    Note,
    /// Something that was not done, and why.
    Problem,
}

/// What is shown.
#[derive(Debug, Default)]
pub struct Messages {
    shown: VecDeque<(Level, String)>,
}

impl Messages {
    /// Shows a sentence, once however often it is said.
    pub fn add(&mut self, level: Level, text: impl Into<String>) {
        let text = text.into();
        if self.shown.iter().any(|(_, known)| *known == text) {
            return;
        }
        if self.shown.len() == MOST {
            self.shown.pop_front();
        }
        self.shown.push_back((level, text));
    }

    /// Shows what went wrong.
    pub fn problem(&mut self, error: impl std::fmt::Display) {
        self.add(Level::Problem, error.to_string());
    }

    /// The value, or nothing and a message.
    pub fn keep<T>(&mut self, result: Result<T, impl std::fmt::Display>) -> Option<T> {
        result.map_err(|error| self.problem(error)).ok()
    }

    /// The sentences that are shown, oldest first.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.shown.iter().map(|(_, text)| text.as_str())
    }

    /// Draws the messages, each with a button that dismisses it.
    pub fn show(&mut self, ui: &mut egui::Ui) {
        let mut dismissed = None;
        for (at, (level, text)) in self.shown.iter().enumerate() {
            let (mark, color) = match level {
                Level::Note => ("Done:", ui.visuals().hyperlink_color),
                Level::Problem => ("Problem:", ui.visuals().error_fg_color),
            };
            ui.horizontal_top(|ui| {
                if ui.button("×").on_hover_text("Dismiss this message").clicked() {
                    dismissed = Some(at);
                }
                ui.colored_label(color, mark);
                ui.add(egui::Label::new(text).wrap());
            });
        }
        if let Some(at) = dismissed {
            self.shown.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_shown_once_and_the_oldest_go() {
        let mut messages = Messages::default();
        for i in 0..10 {
            messages.problem(format!("problem {i}"));
            messages.problem(format!("problem {i}"));
        }
        let texts: Vec<&str> = messages.texts().collect();
        assert_eq!(texts.len(), MOST);
        assert_eq!((texts[0], texts[MOST - 1]), ("problem 4", "problem 9"));
    }
}
