//! What every shader has to be: core WebGPU, within the default limits, and documented where it meets its caller.

use std::borrow::Cow;

use crate::{assert_none, files_below, name, translate, with_extension};
use lara_shaders::MODULES;
use naga::back::pipeline_constants::process_overrides;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage};

/// WebGPU's default limits: what an adapter may be asked for without asking.
const STORAGE_BINDINGS: usize = 8;
const WORKGROUP_BYTES: u32 = 16 * 1024;
const INVOCATIONS: u32 = 256;

/// The module as naga reads it, valid without any capability beyond core WebGPU but for the one given.
fn validated(source: &str, name: &str, beyond: Capabilities) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string_with_path(source, name))?;
    let mut validator = Validator::new(ValidationFlags::all(), beyond);
    let info = validator.validate(&module).map_err(|e| e.emit_to_string_with_path(source, name))?;
    Ok((module, info))
}

/// Calls `rule` with each entry point of each module, its overrides at their defaults, and collects what it says.
fn each_entry_point(mut rule: impl FnMut(&Module, &ModuleInfo, &str) -> Vec<String>) -> Vec<String> {
    let (mut breaches, mut seen) = (Vec::new(), 0);
    for module in MODULES {
        // The one exception is a variant for CPU-like adapters, which says so in its name and is never the only way.
        let beyond = if module.name.ends_with("_lanes") { Capabilities::SUBGROUP } else { Capabilities::empty() };
        let (ir, info) = match validated(&module.source(), module.name, beyond) {
            Ok(valid) => valid,
            Err(why) => {
                breaches.push(why);
                continue;
            }
        };
        for entry in &ir.entry_points {
            seen += 1;
            let stage = Some((ShaderStage::Compute, entry.name.as_str()));
            let resolved = process_overrides(&ir, &info, stage, &naga::back::PipelineConstants::default());
            let found = match &resolved {
                Ok((ir, info)) => rule(ir, info, &entry.name),
                Err(why) => vec![format!("{why}")],
            };
            breaches.extend(found.into_iter().map(|breach| format!("{}.{}: {breach}", module.name, entry.name)));
        }
    }
    assert!(seen > 0, "the modules have no entry point at all");
    breaches
}

#[test]
fn shaders_keep_within_the_default_limits() {
    let breaches = each_entry_point(|ir, info, entry| {
        let Some(index) = ir.entry_points.iter().position(|point| point.name == entry) else {
            return vec!["the entry point is lost once its overrides are resolved".into()];
        };
        let used = |space: AddressSpace| {
            let uses = info.get_entry_point(index);
            let is_storage = matches!(space, AddressSpace::Storage { .. });
            ir.global_variables.iter().filter(move |(handle, variable)| {
                let same = if is_storage {
                    matches!(variable.space, AddressSpace::Storage { .. })
                } else {
                    variable.space == space
                };
                same && !uses[*handle].is_empty()
            })
        };
        let storage = used(AddressSpace::Storage { access: naga::StorageAccess::LOAD }).count();
        let bytes: u32 = used(AddressSpace::WorkGroup).map(|(_, v)| ir.types[v.ty].inner.size(ir.to_ctx())).sum();
        let invocations = ir.entry_points[index].workgroup_size.iter().product::<u32>();
        let mut breaches = Vec::new();
        if storage > STORAGE_BINDINGS {
            breaches.push(format!("{storage} storage bindings, {STORAGE_BINDINGS} are allowed"));
        }
        if bytes > WORKGROUP_BYTES {
            breaches.push(format!("{bytes} bytes of workgroup memory, {WORKGROUP_BYTES} are allowed"));
        }
        if invocations == 0 || invocations > INVOCATIONS {
            breaches.push(format!("{invocations} invocations a workgroup, 1 to {INVOCATIONS} are allowed"));
        }
        breaches
    });
    assert_none("a shader runs wherever WebGPU does", &breaches);
}

#[test]
fn shaders_translate_to_every_language() {
    let breaches = each_entry_point(|ir, info, entry| {
        let written = [
            ("SPIR-V", translate::spirv(ir, info, entry)),
            ("MSL", translate::msl(ir, info, entry)),
            ("HLSL", translate::hlsl(ir, info, entry)),
            ("GLSL ES 3.1", translate::glsl(ir, info, entry)),
        ];
        written.into_iter().filter_map(|(language, done)| done.err().map(|why| format!("{language}: {why}"))).collect()
    });
    assert_none("a shader can be written for Vulkan, Metal, DirectX and OpenGL", &breaches);
}

/// Lines that declare a storage buffer, numbered from 0.
fn storage_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter(|(_, line)| line.contains("var<storage"))
}

#[test]
fn storage_bindings_carry_their_shape_and_files_open_with_a_comment() {
    let mut breaches = Vec::new();
    for path in with_extension(files_below("shaders"), &["wgsl"]) {
        let text = Cow::from(std::fs::read_to_string(&path).unwrap_or_default());
        if !text.starts_with("//") {
            breaches.push(format!(
                "{}: does not open with a comment: formula, dispatch contract, write policy",
                name(&path)
            ));
        }
        for (number, line) in storage_lines(&text) {
            let shape = line.split_once("//").map_or("", |(_, comment)| comment);
            if !(shape.contains('[') && shape.contains(']')) {
                breaches.push(format!("{}:{}: no shape, such as `// [rows, channels]`", name(&path), number + 1));
            }
        }
    }
    assert_none("a shader says what it computes and what its buffers hold", &breaches);
}

/// A workgroup size that a line spells as a number, if any: in the attribute, or where an invocation finds its place.
fn spelled_size(line: &str) -> Option<&str> {
    let code = line.split("//").next().unwrap_or_default();
    let arguments = |call: &str| Some(code.split_once(call)?.1.split_once(')')?.0);
    let place = arguments("= flat_index(").and_then(|list| list.split(',').nth(2));
    // A single invocation is none among others.
    let size = arguments("@workgroup_size(").filter(|size| *size != "1").or(place)?.trim();
    size.starts_with(|c: char| c.is_ascii_digit()).then_some(size)
}

#[test]
fn workgroup_sizes_have_a_name() {
    let mut breaches = Vec::new();
    for path in with_extension(files_below("shaders"), &["wgsl"]) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let found = text.lines().enumerate().filter_map(|(number, line)| Some((number, spelled_size(line)?)));
        breaches.extend(found.map(|(number, size)| format!("{}:{}: {size}", name(&path), number + 1)));
    }
    assert_none("a workgroup size is a constant, so that it stands once (WORKGROUP in common/index.wgsl)", &breaches);
}

#[test]
fn a_spelled_size_is_recognised() {
    assert_eq!(spelled_size("@compute @workgroup_size(64)"), Some("64"));
    assert_eq!(spelled_size("    let i = flat_index(workgroup, workgroups, 64u, local);"), Some("64u"));
    assert_eq!(spelled_size("@compute @workgroup_size(WORKGROUP) // 64"), None);
}

#[test]
fn every_file_is_registered() {
    let library = std::fs::read_to_string(crate::root().join("shaders/lib.rs")).unwrap_or_default();
    let unknown = with_extension(files_below("shaders"), &["wgsl"]).into_iter().filter(|path| {
        let path = name(path);
        let file = path.trim_start_matches("shaders/");
        let module = file.trim_end_matches(".wgsl");
        ![file, module].iter().any(|known| library.contains(&format!("\"{known}\"")))
    });
    let unknown: Vec<String> =
        unknown.map(|path| format!("{}: shaders/lib.rs does not name it", name(&path))).collect();
    assert_none("no shader lies about unused", &unknown);
}

/// What a line asks of IEEE arithmetic that fast math need not keep, if anything.
fn leans_on_ieee(line: &str) -> Option<String> {
    let code = line.split("//").next().unwrap_or_default();
    let is_word = |c: char| c.is_alphanumeric() || "_.[]".contains(c);
    for operator in ["==", "!="] {
        let sides = code.match_indices(operator).map(|(at, _)| code.split_at(at));
        for (left, right) in sides.map(|(left, right)| (left.trim_end(), right[operator.len()..].trim_start())) {
            let left = left.rsplit(|c| !is_word(c)).next().unwrap_or_default();
            let right = right.split(|c| !is_word(c)).next().unwrap_or_default();
            if left == right && !left.is_empty() {
                return Some(format!("compares {left} with itself"));
            }
        }
    }
    let words = || code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
    if let Some(number) = words().find(|w| w.trim_end_matches('f').parse().is_ok_and(|x: f64| x >= 1e37)) {
        return Some(format!("{number} is as good as infinity"));
    }
    words().find(|word| ["isnan", "isinf", "isNan", "isInf", "0x7f800000u"].contains(word)).map(str::to_owned)
}

#[test]
fn no_shader_leans_on_nan_or_infinity() {
    let mut breaches = Vec::new();
    let shaders = [files_below("shaders"), files_below("viewer")].concat();
    for path in with_extension(shaders, &["wgsl"]) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let found = text.lines().enumerate().filter_map(|(number, line)| Some((number, leans_on_ieee(line)?)));
        breaches.extend(found.map(|(number, what)| format!("{}:{}: {what}", name(&path), number + 1)));
    }
    assert_none("fast math may assume that every number is finite: ask common/finite.wgsl", &breaches);
}

#[test]
fn leaning_on_ieee_is_recognised() {
    for line in
        ["if x == x {", "y = select(0.0, y, a[i].x != a[i].x);", "length <= 3.0e38", "min(x, 3.4e38f)", "isInf(x)"]
    {
        assert!(leans_on_ieee(line).is_some(), "{line}");
    }
    for line in ["const MASKED: f32 = -1e30;", "if x == y.x {", "// x == x", "max(l, -1e30) == 2.0", "a != b && b != a"]
    {
        assert_eq!(leans_on_ieee(line), None, "{line}");
    }
}
