//! From a recording to a plan: the one way that everything takes which runs a model.

use lara_runtime::{Gpu, Mode, Parameters, Plan, Role, Tape, Tune};

use crate::error::Error;

/// Records on a tape over `parameters`, gives them buffers for `roles` where they have none, and compiles. Returns the plan
/// and what `record` returned: the tensors that are written before a run and read after it.
///
/// # Errors
/// What `record` fails with, the first mistake of the recording, or an adapter that is too small for it.
pub async fn compile<R, E: From<Error>>(
    gpu: &Gpu,
    tune: &Tune,
    parameters: &mut Parameters,
    mode: Mode,
    roles: &[Role],
    record: impl FnOnce(&mut Tape<'_>) -> Result<R, E>,
) -> Result<(Plan, R), E> {
    let mut tape = Tape::new(parameters, tune, mode);
    let recorded = record(&mut tape)?;
    let recording = tape.finish().map_err(Error::from)?;
    parameters.allocate(gpu, roles).await.map_err(Error::from)?;
    let plan = Plan::compile(gpu, recording, parameters).await.map_err(Error::from)?;
    Ok((plan, recorded))
}
