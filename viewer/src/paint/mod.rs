//! Maps on the screen: a render pipeline that colours patches straight from the tensor's own buffer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use eframe::egui_wgpu::{self, CallbackResources, CallbackTrait, ScreenDescriptor};
use egui::{PaintCallbackInfo, Rect, Shape};
use lara_explain::{Colormap, MapSource, ScaleEnd};
use lara_runtime::Gpu;

/// The shader that paints a map: entry points `cover` and `colour`.
pub const SHADER: &str = include_str!("map.wgsl");

/// Uniforms lie this far apart: core WebGPU's offset alignment.
const STRIDE: u64 = 256;
/// Maps that may be painted in one frame.
const SLOTS: u32 = 2048;

/// One map to paint.
#[derive(Clone, Debug)]
pub struct MapPaint {
    /// The values.
    pub values: MapSource,
    /// What is subtracted from them, for a difference.
    pub minus: Option<MapSource>,
    /// The value of the highest colour.
    pub high: High,
    /// Rows and columns of patches.
    pub grid: [usize; 2],
    /// Colours.
    pub colormap: Colormap,
    /// 0 shows what lies below, 1 hides it.
    pub opacity: f32,
    /// How many times the lowest colour's value the highest colour's is, on a logarithmic scale; None: linear, from 0.
    pub log_span: Option<f32>,
}

/// The upper end of a scale.
#[derive(Clone, Debug)]
pub enum High {
    /// The largest value of the map, on the device.
    Of(ScaleEnd),
    /// This one, above 0.
    Is(f32),
}

/// The pipeline and what all maps share. Clones share it.
#[derive(Clone)]
pub struct Painter {
    shared: Arc<Shared>,
}

struct Shared {
    pipeline: wgpu::RenderPipeline,
    layout: wgpu::BindGroupLayout,
    uniforms: lara_runtime::Buffer,
    scales: HashMap<Colormap, lara_runtime::Buffer>,
    next: AtomicU32,
    is_linear: bool,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rect: [f32; 4],
    rows: u32,
    columns: u32,
    at: u32,
    other_at: u32,
    range: u32,
    opacity: f32,
    is_log: u32,
    is_difference: u32,
    is_linear: u32,
    high: f32,
    depth: f32,
    pad: u32,
}

impl Painter {
    /// Compiles the pipeline for a window of this format.
    pub fn new(gpu: &Gpu, target: wgpu::TextureFormat) -> Self {
        let device = gpu.device();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("map"),
            entries: &layout_entries(),
        });
        let uniform = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = gpu.buffer("map uniforms", STRIDE * u64::from(SLOTS), uniform);
        let scales = Colormap::SEQUENTIAL.into_iter().chain([Colormap::Diverging]).map(|map| {
            let buffer = gpu.buffer(map.name(), 1024, uniform);
            let colours: Vec<u32> = map.table().iter().map(|&[r, g, b]| u32::from_le_bytes([r, g, b, 255])).collect();
            gpu.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(&colours));
            (map, buffer)
        });
        let scales = scales.collect();
        let pipeline = pipeline(device, &layout, target);
        let is_linear = target.is_srgb();
        Painter { shared: Arc::new(Shared { pipeline, layout, uniforms, scales, next: AtomicU32::new(0), is_linear }) }
    }

    /// The shape that paints a map into `rect`.
    pub fn shape(&self, rect: Rect, map: MapPaint) -> Shape {
        let callback = Callback { shared: self.shared.clone(), rect, map, prepared: OnceLock::new() };
        egui_wgpu::Callback::new_paint_callback(rect, callback).into()
    }
}

fn layout_entries() -> [wgpu::BindGroupLayoutEntry; 5] {
    let storage = wgpu::BufferBindingType::Storage { read_only: true };
    let uniform = wgpu::BufferBindingType::Uniform;
    [(0, uniform, true), (1, storage, false), (2, storage, false), (3, storage, false), (4, uniform, false)].map(
        |(binding, ty, has_dynamic_offset)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::FRAGMENT,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
            count: None,
        },
    )
}

fn pipeline(
    device: &wgpu::Device,
    layout: &wgpu::BindGroupLayout,
    target: wgpu::TextureFormat,
) -> wgpu::RenderPipeline {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("map"),
        source: wgpu::ShaderSource::Wgsl(SHADER.into()),
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("map"),
        bind_group_layouts: &[Some(layout)],
        immediate_size: 0,
    });
    device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: Some("map"),
        layout: Some(&pipeline_layout),
        vertex: wgpu::VertexState {
            module: &module,
            entry_point: Some("cover"),
            compilation_options: Default::default(),
            buffers: &[],
        },
        fragment: Some(wgpu::FragmentState {
            module: &module,
            entry_point: Some("colour"),
            compilation_options: Default::default(),
            targets: &[Some(wgpu::ColorTargetState {
                format: target,
                blend: Some(wgpu::BlendState::PREMULTIPLIED_ALPHA_BLENDING),
                write_mask: wgpu::ColorWrites::ALL,
            })],
        }),
        primitive: wgpu::PrimitiveState::default(),
        depth_stencil: None,
        multisample: wgpu::MultisampleState::default(),
        multiview_mask: None,
        cache: None,
    })
}

struct Callback {
    shared: Arc<Shared>,
    rect: Rect,
    map: MapPaint,
    prepared: OnceLock<(wgpu::BindGroup, u32)>,
}

impl Callback {
    fn params(&self, pixels_per_point: f32) -> Params {
        let map = &self.map;
        let [left, top] = [self.rect.min.x, self.rect.min.y].map(|x| x * pixels_per_point);
        let [width, height] = [self.rect.width(), self.rect.height()].map(|x| (x * pixels_per_point).max(1.0));
        Params {
            rect: [left, top, width, height],
            rows: map.grid[0].max(1) as u32,
            columns: map.grid[1].max(1) as u32,
            at: map.values.at as u32,
            other_at: map.minus.as_ref().map_or(map.values.at, |m| m.at) as u32,
            range: if let High::Of(end) = &map.high { end.index as u32 } else { 0 },
            opacity: map.opacity.clamp(0.0, 1.0),
            is_log: u32::from(map.log_span.is_some()),
            is_difference: u32::from(map.minus.is_some()),
            is_linear: u32::from(self.shared.is_linear),
            high: if let High::Is(high) = map.high { high } else { 0.0 },
            depth: map.log_span.map_or(1.0, |span| span.max(1.001).ln()),
            pad: 0,
        }
    }

    fn bind_group(&self, device: &wgpu::Device) -> wgpu::BindGroup {
        let (shared, map) = (&*self.shared, &self.map);
        let others = map.minus.as_ref().map_or(&map.values.buffer, |m| &m.buffer);
        // A scale that ends elsewhere reads no range.
        let ranges = if let High::Of(end) = &map.high { &end.buffer } else { &map.values.buffer };
        let entry = |binding, resource| wgpu::BindGroupEntry { binding, resource };
        let params = wgpu::BufferBinding {
            buffer: &shared.uniforms,
            offset: 0,
            size: std::num::NonZeroU64::new(size_of::<Params>() as u64),
        };
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("map"),
            layout: &shared.layout,
            entries: &[
                entry(0, wgpu::BindingResource::Buffer(params)),
                entry(1, map.values.buffer.as_entire_binding()),
                entry(2, others.as_entire_binding()),
                entry(3, ranges.as_entire_binding()),
                entry(4, shared.scales[&map.colormap].as_entire_binding()),
            ],
        })
    }
}

impl CallbackTrait for Callback {
    fn prepare(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        screen: &ScreenDescriptor,
        _: &mut wgpu::CommandEncoder,
        _: &mut CallbackResources,
    ) -> Vec<wgpu::CommandBuffer> {
        let take_slot = || (self.bind_group(device), self.shared.next.fetch_add(1, Ordering::Relaxed) % SLOTS);
        let (_, slot) = self.prepared.get_or_init(take_slot);
        let params = self.params(screen.pixels_per_point);
        queue.write_buffer(&self.shared.uniforms, u64::from(*slot) * STRIDE, bytemuck::bytes_of(&params));
        Vec::new()
    }

    fn paint(&self, _: PaintCallbackInfo, pass: &mut wgpu::RenderPass<'static>, _: &CallbackResources) {
        if let Some((bind_group, slot)) = self.prepared.get() {
            pass.set_pipeline(&self.shared.pipeline);
            pass.set_bind_group(0, bind_group, &[slot * STRIDE as u32]);
            pass.draw(0..3, 0..1);
        }
    }
}
