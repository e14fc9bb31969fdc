//! What attention looks like: the interactive viewer of lara, on the desktop and in a browser.

pub mod colormap;
pub mod maps;

pub use colormap::Colormap;
pub use maps::{Map, Query};
