use crate::app::App;
#[derive(Default)] pub(crate) struct RolloutPane;
impl RolloutPane { pub(crate) fn is_busy(&self)->bool{false}  pub(crate) fn reset(&mut self){} pub(crate) fn image_changed(&mut self){} }
pub(crate) fn show(_a:&mut App,_u:&mut egui::Ui){}
