//! The painting shader is core WebGPU and is written in every language that a backend speaks.

use lara_viewer::paint::SHADER;
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{Module, ShaderStage, valid::ModuleInfo};

const ENTRIES: [(ShaderStage, &str); 2] = [(ShaderStage::Vertex, "cover"), (ShaderStage::Fragment, "colour")];

fn validated() -> (Module, ModuleInfo) {
    let ir = naga::front::wgsl::parse_str(SHADER).expect("the shader parses");
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&ir);
    let info = info.expect("the shader needs no capability beyond core WebGPU");
    (ir, info)
}

#[test]
fn the_map_shader_translates_to_every_language() {
    let (ir, info) = validated();
    for (stage, entry) in ENTRIES {
        let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: entry.into() };
        let words = spv::write_vec(&ir, &info, &spv::Options::default(), Some(&pipeline)).expect("SPIR-V");
        assert!(words.len() > 100);
        let pipeline = msl::PipelineOptions { entry_point: Some((stage, entry.into())), ..Default::default() };
        let options = msl::Options { lang_version: (2, 0), ..msl::Options::default() };
        assert!(msl::write_string(&ir, &info, &options, &pipeline).expect("MSL").0.contains("metal"));
        let pipeline = hlsl::PipelineOptions { entry_point: Some((stage, entry.into())) };
        let (mut text, options) = (String::new(), hlsl::Options::default());
        hlsl::Writer::new(&mut text, &options, &pipeline).write(&ir, &info, None).expect("HLSL");
        assert!(!text.is_empty());
        let pipeline = glsl::PipelineOptions { shader_stage: stage, entry_point: entry.into(), multiview: None };
        let options = glsl::Options { version: glsl::Version::new_gles(310), ..glsl::Options::default() };
        let (mut text, policies) = (String::new(), BoundsCheckPolicies::default());
        let mut writer = glsl::Writer::new(&mut text, &ir, &info, &options, &pipeline, policies).expect("GLSL");
        writer.write().expect("GLSL");
        assert!(text.contains("void main"));
    }
}

#[test]
fn the_map_shader_stays_within_the_limits_of_core_webgpu() {
    let (ir, _) = validated();
    let storage = ir.global_variables.iter().filter(|(_, v)| matches!(v.space, naga::AddressSpace::Storage { .. }));
    assert!(storage.count() <= 8);
}
