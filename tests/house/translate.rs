//! One entry point written out in each language that wgpu's backends speak, with wgpu's own choice of options.

use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage};

type Written = Result<(), String>;

pub(crate) fn spirv(ir: &Module, info: &ModuleInfo, entry: &str) -> Written {
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.into() };
    let words = spv::write_vec(ir, info, &spv::Options::default(), Some(&pipeline)).map_err(|e| e.to_string())?;
    written(words.len() * 4)
}

pub(crate) fn msl(ir: &Module, info: &ModuleInfo, entry: &str) -> Written {
    let pipeline = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, entry.into())),
        ..msl::PipelineOptions::default()
    };
    // The array length of run-time sized buffers comes in through a buffer of sizes since Metal 2.0.
    let options = msl::Options { lang_version: (2, 0), ..msl::Options::default() };
    let (text, translation) = msl::write_string(ir, info, &options, &pipeline).map_err(|e| e.to_string())?;
    translation.entry_point_names.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    written(text.len())
}

pub(crate) fn hlsl(ir: &Module, info: &ModuleInfo, entry: &str) -> Written {
    let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.into())) };
    let (mut text, options) = (String::new(), hlsl::Options::default());
    let mut writer = hlsl::Writer::new(&mut text, &options, &pipeline);
    let reflection = writer.write(ir, info, None).map_err(|e| e.to_string())?;
    reflection.entry_point_names.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    written(text.len())
}

pub(crate) fn glsl(ir: &Module, info: &ModuleInfo, entry: &str) -> Written {
    let pipeline =
        glsl::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.into(), multiview: None };
    let options = glsl::Options { version: glsl::Version::new_gles(310), ..glsl::Options::default() };
    let mut text = String::new();
    let policies = BoundsCheckPolicies::default();
    let mut writer =
        glsl::Writer::new(&mut text, ir, info, &options, &pipeline, policies).map_err(|e| e.to_string())?;
    writer.write().map_err(|e| e.to_string())?;
    written(text.len())
}

/// A translation of nothing would be no evidence.
fn written(bytes: usize) -> Written {
    if bytes > 0 { Ok(()) } else { Err("the translation is empty".into()) }
}
