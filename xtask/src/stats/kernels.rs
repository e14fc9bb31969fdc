//! Every entry point of every shader module as SPIR-V, with its overrides at their defaults, and once more for each
//! line `// Variant: NAME=VALUE …` of the shader.

use std::borrow::Cow;

use lara_shaders::MODULES;
use naga::back::pipeline_constants::process_overrides;
use naga::back::{PipelineConstants, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage};

/// One entry point, ready for a driver.
pub(crate) struct Kernel {
    pub(crate) module: &'static str,
    pub(crate) entry: String,
    /// The overrides that are not at their defaults, as the shader's line gives them.
    pub(crate) variant: String,
    pub(crate) workgroup: [u32; 3],
    pub(crate) spirv: Vec<u32>,
    pub(crate) bindings: Vec<Binding>,
}

/// A buffer that the entry point's module declares.
pub(crate) struct Binding {
    pub(crate) group: u32,
    pub(crate) binding: u32,
    pub(crate) uniform: bool,
}

impl Kernel {
    /// `attention/attend_vector.forward CHANNELS=32`
    pub(crate) fn name(&self) -> String {
        format!("{}.{} {}", self.module, self.entry, self.variant).trim_end().to_owned()
    }

    /// Kernels for CPU-like adapters (a row a lane) say so in their name and are not judged by a GPU's compiler.
    pub(crate) fn gpu_shaped(&self) -> bool {
        !self.entry.contains("_rows")
    }
}

/// The kernels of the modules whose name contains `part`, and a sentence for each that could not be made.
pub(crate) fn all(part: &str) -> (Vec<Kernel>, Vec<String>) {
    let (mut kernels, mut errors) = (Vec::new(), Vec::new());
    // Kernels with subgroups of 8 lanes are for CPU-like adapters and run on no GPU.
    for module in MODULES.iter().filter(|module| module.name.contains(part) && !module.has_subgroups()) {
        let source = module.source();
        match validated(&source, module.name) {
            Err(why) => errors.push(why),
            Ok((ir, info)) => {
                let variants = source.lines().filter_map(|line| line.strip_prefix("// Variant:")).map(str::trim);
                for variant in std::iter::once("").chain(variants) {
                    for entry in &ir.entry_points {
                        match kernel(module.name, (&ir, &info), &entry.name, variant) {
                            Ok(kernel) => kernels.push(kernel),
                            Err(why) => errors.push(format!("{}.{} with [{variant}]: {why}", module.name, entry.name)),
                        }
                    }
                }
            }
        }
    }
    (kernels, errors)
}

/// The overrides of a `Variant` line; `true` and `false` are 1 and 0.
fn constants(variant: &str) -> Result<PipelineConstants, String> {
    let number = |text: &str| match text {
        "true" => Ok(1.0),
        "false" => Ok(0.0),
        _ => text.trim_end_matches(['u', 'i', 'f']).parse(),
    };
    let pair = |word: &str| {
        let (name, value) = word.split_once('=').ok_or(format!("`{word}` is not NAME=VALUE"))?;
        Ok((name.to_owned(), number(value).map_err(|e| format!("`{word}`: {e}"))?))
    };
    variant.split_whitespace().map(pair).collect()
}

fn validated(source: &str, name: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string_with_path(source, name))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    let info = validator.validate(&module).map_err(|e| e.emit_to_string_with_path(source, name))?;
    Ok((module, info))
}

fn kernel(
    module: &'static str,
    (ir, info): (&Module, &ModuleInfo),
    entry: &str,
    variant: &str,
) -> Result<Kernel, String> {
    let stage = ShaderStage::Compute;
    let resolved = process_overrides(ir, info, Some((stage, entry)), &constants(variant)?);
    let (ir, info): (Cow<'_, Module>, _) = resolved.map_err(|e| e.to_string())?;
    // As the runtime creates its shaders: trusted, so without the checks that naga can add.
    let unchecked = BoundsCheckPolicies {
        index: BoundsCheckPolicy::Unchecked,
        buffer: BoundsCheckPolicy::Unchecked,
        image_load: BoundsCheckPolicy::Unchecked,
        binding_array: BoundsCheckPolicy::Unchecked,
    };
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        bounds_check_policies: unchecked,
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: entry.into() };
    let spirv = spv::write_vec(&ir, &info, &options, Some(&pipeline)).map_err(|e| e.to_string())?;
    let bindings = ir.global_variables.iter().filter_map(|(_, variable)| {
        let at = variable.binding.as_ref()?;
        let uniform = variable.space == AddressSpace::Uniform;
        Some(Binding { group: at.group, binding: at.binding, uniform })
    });
    let bindings = bindings.collect();
    let point = ir.entry_points.iter().find(|point| point.name == entry);
    let workgroup = point.ok_or("the entry point is gone after its overrides were resolved")?.workgroup_size;
    Ok(Kernel { module, entry: entry.into(), variant: variant.into(), workgroup, spirv, bindings })
}
