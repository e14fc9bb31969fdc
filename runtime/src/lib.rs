//! When and where: the runtime of lara.
//!
//! Model code is written forward only against a [`Tape`]; operations append steps to a [`Recorder`]; [`Plan::compile`]
//! turns the recording into pipelines, bind groups and pooled buffers once; [`Plan::run`] replays it with one submit.

mod adapter;
pub mod attention;
mod buffer;
mod cost;
mod error;
mod failures;
mod gpu;
mod header;
mod kernel;
mod listing;
pub mod maps;
pub mod ops;
mod parameters;
mod parts;
mod pieces;
mod plan;
mod pool;
pub mod profile;
pub mod random;
mod readback;
mod recorder;
mod run;
mod tape;
mod tensor;
mod tune;
mod variant;

pub use adapter::{AdapterReport, GpuOptions, bytes_from};
pub use buffer::Buffer;
pub use cost::{LONGEST_DISPATCH, LONGEST_SUBMIT, Speed};
pub use error::{Error, Result, human_bytes};
pub use gpu::Gpu;
pub use header::{Header, Redraw};
pub use parameters::{Entry, Init, Keep, Parameters, Role};
pub use plan::{Memory, Plan};
pub use readback::Ring;
pub use recorder::{Aside, Place, Recorder, Step, StepBuilder, TensorInfo};
pub use run::Run;
pub use tape::{Backward, Forward, Mode, Op, Slot, Tape};
pub use tensor::{Dtype, MOST_ELEMENTS, Shape, Tensor};
pub use tune::Tune;
pub use variant::Variant;
