use crate::training::Training; /// s
pub fn show(_ui: &mut egui::Ui, _t: &mut Training) {}
