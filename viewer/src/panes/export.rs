use crate::app::App;
#[derive(Default)] pub(crate) struct Export{pub(crate) open: bool}
pub(crate) fn show(_a:&mut App,_u:&mut egui::Ui){}
pub(crate) fn pick_file(_a:&mut App){}
