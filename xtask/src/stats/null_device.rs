//! Mesa's null device through plain Vulkan: wgpu submits work when it opens a device, which this one cannot take.
#![expect(
    unsafe_code,
    reason = "Vulkan is a C interface; this developer's tool is the only place that calls it directly"
)]

use std::ffi::{CStr, c_char};

use ash::{khr, vk};

use super::kernels::Kernel;
use crate::Result;

/// A device that compiles and runs nothing.
pub(crate) struct NullDevice {
    /// As the driver calls it.
    pub(crate) name: String,
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    instance: ash::Instance,
    // Last, because the library may only be unloaded after everything that came from it.
    _entry: ash::Entry,
}

impl NullDevice {
    /// Opens the null device; `family` (already in the environment) is only for the error's sentence.
    pub(crate) fn open(family: &str) -> Result<Self> {
        // SAFETY: the loader is the system's libvulkan; nothing else in this process uses it.
        let entry = unsafe { ash::Entry::load() }.map_err(|e| {
            format!("the Vulkan loader is missing ({e}): install libvulkan1, or run `cargo xtask setup`")
        })?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: `info` and what it points to outlive the call.
        let instance = unsafe { entry.create_instance(&info, None) }.map_err(|e| {
            format!("the AMD driver does not start for {family} ({e}): is that one of Mesa's names, such as NAVI31?")
        })?;
        // SAFETY: the instance is alive.
        let devices = unsafe { instance.enumerate_physical_devices() }.map_err(|e| format!("no Vulkan device: {e}"))?;
        let named = devices.into_iter().map(|device| {
            // SAFETY: `device` came from this instance.
            let properties = unsafe { instance.get_physical_device_properties(device) };
            (device, text(&properties.device_name))
        });
        let found: Vec<(vk::PhysicalDevice, String)> = named.collect();
        let Some((physical, name)) = found.iter().find(|(_, name)| name.starts_with("Null hardware")).cloned() else {
            let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
            return Err(format!(
                "Mesa knows no null device of the family {family} (found: [{}]); names are in capitals, such as NAVI31",
                names.join(", ")
            ));
        };
        let device = create(&instance, physical).map_err(|e| format!("{name} cannot be opened: {e}"))?;
        let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
        Ok(NullDevice { name, device, executables, instance, _entry: entry })
    }

    /// Compiles the kernel and returns the driver's statistics by name. Nothing is run.
    pub(crate) fn statistics(&self, kernel: &Kernel) -> Result<Vec<(String, u64)>> {
        let mut sets = Vec::new();
        let mut layout = vk::PipelineLayout::null();
        let mut module = vk::ShaderModule::null();
        let mut pipeline = vk::Pipeline::null();
        let outcome = (|| {
            sets = self.set_layouts(kernel)?;
            let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            // SAFETY: handles are of this device, and the infos outlive the calls they are passed to.
            unsafe {
                layout = self.device.create_pipeline_layout(&info, None)?;
                let code = vk::ShaderModuleCreateInfo::default().code(&kernel.spirv);
                module = self.device.create_shader_module(&code, None)?;
            }
            pipeline = self.pipeline(kernel, layout, module)?;
            self.read(pipeline)
        })();
        // SAFETY: no work was submitted, and a null handle is allowed in each of these.
        unsafe {
            self.device.destroy_pipeline(pipeline, None);
            self.device.destroy_shader_module(module, None);
            self.device.destroy_pipeline_layout(layout, None);
            sets.iter().for_each(|set| self.device.destroy_descriptor_set_layout(*set, None));
        }
        outcome.map_err(|e: vk::Result| format!("the driver refuses it: {e}"))
    }

    fn set_layouts(&self, kernel: &Kernel) -> std::result::Result<Vec<vk::DescriptorSetLayout>, vk::Result> {
        let groups = kernel.bindings.iter().map(|binding| binding.group + 1).max().unwrap_or(0);
        let layout = |group: u32| {
            let here = kernel.bindings.iter().filter(|binding| binding.group == group);
            let bindings: Vec<vk::DescriptorSetLayoutBinding<'_>> = here
                .map(|binding| {
                    let kind = if binding.uniform {
                        vk::DescriptorType::UNIFORM_BUFFER
                    } else {
                        vk::DescriptorType::STORAGE_BUFFER
                    };
                    vk::DescriptorSetLayoutBinding::default()
                        .binding(binding.binding)
                        .descriptor_type(kind)
                        .descriptor_count(1)
                        .stage_flags(vk::ShaderStageFlags::COMPUTE)
                })
                .collect();
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            // SAFETY: `info` points to `bindings`, which outlives the call.
            unsafe { self.device.create_descriptor_set_layout(&info, None) }
        };
        (0..groups).map(layout).collect()
    }

    fn pipeline(
        &self,
        kernel: &Kernel,
        layout: vk::PipelineLayout,
        module: vk::ShaderModule,
    ) -> std::result::Result<vk::Pipeline, vk::Result> {
        let entry = std::ffi::CString::new(kernel.entry.as_str()).map_err(|_| vk::Result::ERROR_UNKNOWN)?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(&entry);
        let info = vk::ComputePipelineCreateInfo::default()
            .flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR)
            .stage(stage)
            .layout(layout);
        // SAFETY: the handles are of this device; `entry` outlives the call.
        let created = unsafe { self.device.create_compute_pipelines(vk::PipelineCache::null(), &[info], None) };
        created.map(|pipelines| pipelines[0]).map_err(|(_, error)| error)
    }

    fn read(&self, pipeline: vk::Pipeline) -> std::result::Result<Vec<(String, u64)>, vk::Result> {
        // A compute pipeline is one executable.
        let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(0);
        // SAFETY: the pipeline was created with CAPTURE_STATISTICS on this device, where the extension is enabled.
        let statistics = unsafe { self.executables.get_pipeline_executable_statistics(&info) }?;
        let number = |s: &vk::PipelineExecutableStatisticKHR<'_>| {
            // SAFETY: `format` says which member of the union was written.
            let value = unsafe {
                match s.format {
                    vk::PipelineExecutableStatisticFormatKHR::UINT64 => s.value.u64,
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => u64::try_from(s.value.i64).unwrap_or(0),
                    vk::PipelineExecutableStatisticFormatKHR::BOOL32 => u64::from(s.value.b32),
                    _ => return None, // RADV counts; it reports no fractions
                }
            };
            Some((text(&s.name), value))
        };
        Ok(statistics.iter().filter_map(number).collect())
    }
}

impl Drop for NullDevice {
    fn drop(&mut self) {
        // SAFETY: `statistics` destroys what it makes, so nothing of the device is left.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

fn create(instance: &ash::Instance, physical: vk::PhysicalDevice) -> std::result::Result<ash::Device, vk::Result> {
    // SAFETY: `physical` came from `instance`; every info outlives the call it is passed to.
    unsafe {
        let families = instance.get_physical_device_queue_family_properties(physical);
        let computes = |family: &vk::QueueFamilyProperties| family.queue_flags.contains(vk::QueueFlags::COMPUTE);
        let family = families.iter().position(computes).and_then(|index| u32::try_from(index).ok());
        let queue = vk::DeviceQueueCreateInfo::default()
            .queue_family_index(family.ok_or(vk::Result::ERROR_FEATURE_NOT_PRESENT)?)
            .queue_priorities(&[1.0]);
        let queues = [queue];
        let extensions = [khr::pipeline_executable_properties::NAME.as_ptr()];
        let mut statistics =
            vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .push_next(&mut statistics);
        instance.create_device(physical, &info, None)
    }
}

/// A fixed array with a C string in it.
fn text(chars: &[c_char]) -> String {
    // c_char is i8 or u8, by platform.
    let bytes: Vec<u8> = chars.iter().map(|c| c.to_ne_bytes()[0]).collect();
    CStr::from_bytes_until_nul(&bytes).map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
}
