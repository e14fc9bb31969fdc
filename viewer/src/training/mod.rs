//! stub
use crate::inspect::Subject;
/// stub
#[derive(Default)] pub struct Training;
/// stub
pub struct History;
impl History { /// s
 pub fn steps(&self)->u64{0} }
impl Training { /// s
pub fn poll(&mut self){} /// s
pub fn history(&self)->History{History} /// s
pub fn take_subject(&mut self)->Option<Subject>{None} }
