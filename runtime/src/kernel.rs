//! A kernel is an entry point of a shader module; its signature is read from the WGSL itself, so that steps bind by name.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use lara_shaders::Module;
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// An entry point of a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// The WGSL file.
    pub module: &'static Module,
    /// The entry point.
    pub entry: &'static str,
}

/// What an entry point declares.
#[derive(Debug, Default)]
pub struct Signature {
    /// Storage buffers it uses, in order of declaration.
    pub storage: Vec<Storage>,
    /// Its uniform `params`, if it has one.
    pub params: Option<Params>,
    /// Binding of the step header, if it reads it.
    pub header: Option<u32>,
    /// Names of the pipeline-overridable constants of the module.
    pub overrides: Vec<String>,
    /// Invocations of a workgroup.
    pub workgroup_size: usize,
}

/// A storage buffer of a [`Signature`].
#[derive(Debug)]
pub struct Storage {
    /// Variable name.
    pub name: String,
    /// Binding index in group 0.
    pub binding: u32,
    /// Whether the kernel may write to it.
    pub writes: bool,
}

/// The uniform `params` of a [`Signature`].
#[derive(Debug)]
pub struct Params {
    /// Binding index in group 0.
    pub binding: u32,
    /// Size in bytes, a multiple of 16.
    pub size: usize,
    /// Members in order.
    pub fields: Vec<Field>,
}

/// A member of [`Params`], always four bytes wide.
#[derive(Debug)]
pub struct Field {
    /// Member name.
    pub name: String,
    /// Offset in bytes.
    pub offset: usize,
    /// `true` for f32, `false` for u32 and i32.
    pub float: bool,
}

/// What was read once, good or bad, by name.
type Cache<K, V> = LazyLock<Mutex<HashMap<K, Result<Arc<V>, String>>>>;
static SIGNATURES: Cache<(&str, &str), Signature> = LazyLock::new(Mutex::default);
static PARSED: Cache<&str, Parsed> = LazyLock::new(Mutex::default);

struct Parsed {
    module: naga::Module,
    info: naga::valid::ModuleInfo,
}

impl Kernel {
    /// The kernel `entry` of `module`.
    pub const fn new(module: &'static Module, entry: &'static str) -> Self {
        Kernel { module, entry }
    }

    /// Reads (once) what the entry point declares.
    ///
    /// # Errors
    /// A sentence if the WGSL does not validate or has no such entry point; both are bugs that the house tests catch.
    pub fn signature(&self) -> Result<Arc<Signature>, String> {
        let mut cache = SIGNATURES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cache
            .entry((self.module.name, self.entry))
            .or_insert_with(|| parse(self.module).and_then(|p| read(&p, self.module.name, self.entry)).map(Arc::new))
            .clone()
    }

    /// `layernorm.forward`
    pub fn label(&self) -> String {
        format!("{}.{}", self.module.basename(), self.entry)
    }
}

fn parse(module: &'static Module) -> Result<Arc<Parsed>, String> {
    let mut cache = PARSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    cache
        .entry(module.name)
        .or_insert_with(|| {
            let source = module.source();
            let parsed = naga::front::wgsl::parse_str(&source)
                .map_err(|e| format!("shader {}: {}", module.name, e.emit_to_string(&source)))?;
            let subgroups = if module.has_subgroups() { Capabilities::SUBGROUP } else { Capabilities::empty() };
            let info = Validator::new(ValidationFlags::all(), subgroups)
                .validate(&parsed)
                .map_err(|e| format!("shader {}: {}", module.name, e.emit_to_string(&source)))?;
            Ok(Arc::new(Parsed { module: parsed, info }))
        })
        .clone()
}

fn read(parsed: &Parsed, name: &str, entry: &str) -> Result<Signature, String> {
    let Parsed { module, info } = parsed;
    let index = module
        .entry_points
        .iter()
        .position(|e| e.name == entry)
        .ok_or_else(|| format!("shader {name} has no entry point `{entry}`"))?;
    if module.entry_points[index].workgroup_size_overrides.is_some() {
        return Err(format!(
            "shader {name}: the workgroup size of `{entry}` is an override; dispatches are counted by it"
        ));
    }
    let used = info.get_entry_point(index);
    let mut signature = Signature {
        overrides: module.overrides.iter().filter_map(|(_, o)| o.name.clone()).collect(),
        workgroup_size: module.entry_points[index].workgroup_size.iter().product::<u32>() as usize,
        ..Signature::default()
    };
    for (handle, variable) in module.global_variables.iter() {
        let (Some(binding), Some(variable_name)) = (&variable.binding, &variable.name) else { continue };
        if used[handle].is_empty() {
            continue;
        }
        match variable.space {
            naga::AddressSpace::Uniform if variable_name == "header" => signature.header = Some(binding.binding),
            naga::AddressSpace::Uniform => signature.params = Some(params(module, variable.ty, binding.binding)),
            naga::AddressSpace::Storage { access } => signature.storage.push(Storage {
                name: variable_name.clone(),
                binding: binding.binding,
                writes: access.contains(naga::StorageAccess::STORE),
            }),
            _ => {}
        }
    }
    Ok(signature)
}

fn params(module: &naga::Module, ty: naga::Handle<naga::Type>, binding: u32) -> Params {
    let mut fields = Vec::new();
    let mut size = 0;
    if let naga::TypeInner::Struct { members, span } = &module.types[ty].inner {
        size = (*span as usize).next_multiple_of(16);
        for member in members {
            let float = matches!(module.types[member.ty].inner,
                naga::TypeInner::Scalar(s) if s.kind == naga::ScalarKind::Float);
            fields.push(Field { name: member.name.clone().unwrap_or_default(), offset: member.offset as usize, float });
        }
    }
    Params { binding, size, fields }
}
