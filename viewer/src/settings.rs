//! What a user has chosen and finds again at the next start.

use lara_explain::{Colormap, Head, Query};
use serde::{Deserialize, Serialize};

/// Which page is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Page {
    /// Image, heads and layers.
    #[default]
    Look,
    /// Mechanisms side by side.
    Compare,
    /// Rollout and gradient-weighted attention.
    Rollout,
    /// A training run.
    Train,
    /// Adapter, memory, times.
    Performance,
}

impl Page {
    /// All of them, in the order of the tabs.
    pub const ALL: [Page; 5] = [Page::Look, Page::Compare, Page::Rollout, Page::Train, Page::Performance];

    /// The name on the tab.
    pub fn title(self) -> &'static str {
        match self {
            Page::Look => "Look",
            Page::Compare => "Compare",
            Page::Rollout => "Rollout",
            Page::Train => "Train",
            Page::Performance => "Performance",
        }
    }
}

/// What is remembered between starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The open page.
    pub page: Page,
    /// The block that is looked at.
    pub layer: usize,
    /// The head that is looked at.
    pub head: Head,
    /// Colours.
    pub colormap: Colormap,
    /// Opacity of the map over the image.
    pub opacity: f32,
    /// A logarithmic scale instead of a linear one.
    pub log_scale: bool,
    /// Weights are shown as times the uniform one, on the same scale for all maps.
    pub uniform: bool,
    /// The upper end of that scale.
    pub times: f32,
    /// Dark, light, or as the system.
    pub theme: egui::ThemePreference,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            page: Page::Look,
            layer: 0,
            head: Head::Mean,
            colormap: Colormap::Viridis,
            opacity: 0.75,
            log_scale: false,
            uniform: false,
            times: 4.0,
            theme: egui::ThemePreference::System,
        }
    }
}

impl Settings {
    /// How many times the lowest colour's value the highest colour's is, on a logarithmic scale: three decades, or as far
    /// below the uniform weight as above it.
    pub(crate) fn span(&self) -> f32 {
        if self.uniform { self.times * self.times } else { 1000.0 }
    }
}

/// Pins at most: the slots but one.
pub(crate) const MOST_PINS: usize = lara_explain::SLOTS - 1;

/// Whose attention is shown: the query under the pointer, else the one that was chosen, and those that are pinned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Focus {
    /// Under the pointer.
    pub hovered: Option<Query>,
    /// Chosen by a click, the keyboard or a button; shown while nothing is hovered.
    pub chosen: Option<Query>,
    /// Kept in sight.
    pub pinned: Vec<Query>,
}

impl Focus {
    /// The query whose map is in front.
    pub fn current(&self, has_class: bool) -> Query {
        let fallback = if has_class { Query::Class } else { Query::Mean };
        self.hovered.or(self.chosen).unwrap_or(fallback)
    }

    /// All queries that are shown, the current one first, no more than `most`.
    pub fn queries(&self, has_class: bool, most: usize) -> Vec<Query> {
        let mut queries = vec![self.current(has_class)];
        queries.extend(&self.pinned);
        queries.truncate(most);
        queries
    }

    /// Pins a query, or releases it if it is pinned. False if there is no room for another.
    pub fn toggle_pin(&mut self, query: Query, most: usize) -> bool {
        if let Some(at) = self.pinned.iter().position(|&pinned| pinned == query) {
            self.pinned.remove(at);
            return true;
        }
        if self.pinned.len() >= most {
            return false;
        }
        self.pinned.push(query);
        true
    }

    /// Moves the chosen patch by rows and columns, staying inside the grid; starts in the middle.
    pub fn step(&mut self, grid: [usize; 2], rows: isize, columns: isize) {
        let [height, width] = grid.map(|side| side.max(1));
        let from = match self.chosen {
            Some(Query::Patch(at)) => (at / width, at % width),
            _ => {
                self.chosen = Some(Query::Patch((height / 2) * width + width / 2));
                return;
            }
        };
        let moved = |at: usize, by: isize, end: usize| at.saturating_add_signed(by).min(end - 1);
        let (row, column) = (moved(from.0, rows, height), moved(from.1, columns, width));
        self.chosen = Some(Query::Patch(row * width + column));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hovered_query_comes_before_the_chosen_one_and_pins_follow() {
        let mut focus = Focus::default();
        assert_eq!(focus.current(true), Query::Class);
        assert_eq!(focus.current(false), Query::Mean);
        focus.chosen = Some(Query::Patch(3));
        assert!(focus.toggle_pin(Query::Patch(5), 1));
        assert!(!focus.toggle_pin(Query::Patch(6), 1));
        focus.hovered = Some(Query::Patch(9));
        assert_eq!(focus.queries(true, 8), [Query::Patch(9), Query::Patch(5)]);
        assert_eq!(focus.queries(true, 1), [Query::Patch(9)]);
        assert!(focus.toggle_pin(Query::Patch(5), 1) && focus.pinned.is_empty());
    }

    #[test]
    fn arrows_stay_inside_the_grid() {
        let mut focus = Focus::default();
        focus.step([3, 4], 0, 1);
        assert_eq!(focus.chosen, Some(Query::Patch(6)), "the first press chooses the middle");
        for _ in 0..9 {
            focus.step([3, 4], 1, 1);
        }
        assert_eq!(focus.chosen, Some(Query::Patch(11)));
        for _ in 0..9 {
            focus.step([3, 4], -1, -1);
        }
        assert_eq!(focus.chosen, Some(Query::Patch(0)));
    }

    #[test]
    fn settings_survive_a_start_and_unknown_files_fall_back() {
        let settings = Settings { layer: 3, head: Head::One(1), colormap: Colormap::Cividis, ..Settings::default() };
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
    }
}
