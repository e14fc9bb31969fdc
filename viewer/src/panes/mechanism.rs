//! Sliders for the settings of a mechanism, under the names that configurations use.

use egui::{ComboBox, Slider, Ui};
use lara_runtime::attention::{AttentionConfig, FeatureMap, MechanismKind, MisType, NoiseScale, ProposalGen};

/// Draws the settings that this mechanism has. True when one was changed and released, so that a compile is worth it;
/// `learned` says whether the weights of LARA's landmark generators are there.
pub(crate) fn settings(ui: &mut Ui, attention: &mut AttentionConfig, patches: usize, learned: bool) -> bool {
    let before = attention.clone();
    match attention.mechanism {
        MechanismKind::Softmax => {
            ui.weak("exact; nothing to set");
        }
        MechanismKind::Ra => {
            number(ui, "num_samples", &mut attention.num_samples, -1..=16);
            choice(ui, "noise", &mut attention.noise, &NOISES);
        }
        MechanismKind::Rfa => {
            size(ui, "features", &mut attention.features, 512);
        }
        MechanismKind::Performer => {
            size(ui, "features", &mut attention.features, 512);
            choice(ui, "kernel", &mut attention.kernel, &KERNELS);
        }
        MechanismKind::Lara => {
            size(ui, "num_landmarks", &mut attention.num_landmarks, patches);
            decimal(ui, "alpha_coeff", &mut attention.alpha_coeff);
            choice(ui, "mis_type", &mut attention.mis_type, &MIS_TYPES);
            let proposals: &[_] = if learned { &PROPOSALS } else { &PROPOSALS[3..] };
            choice(ui, "proposal_gen", &mut attention.proposal_gen, proposals);
            choice(ui, "noise", &mut attention.noise, &NOISES);
        }
    }
    *attention != before
}

const NOISES: [(&str, NoiseScale); 3] =
    [("released", NoiseScale::Released), ("exact", NoiseScale::Exact), ("none", NoiseScale::None)];
const MIS_TYPES: [(&str, MisType); 3] =
    [("mis-opt", MisType::MisOpt), ("mis-bh", MisType::MisBh), ("mis-biased", MisType::MisBiased)];
/// Those that need learned weights first.
const PROPOSALS: [(&str, ProposalGen); 5] = [
    ("pool", ProposalGen::Pool),
    ("pool-mixed", ProposalGen::PoolMixed),
    ("pool-vmixed", ProposalGen::PoolVmixed),
    ("no-param-pool", ProposalGen::NoParamPool),
    ("no-param-pool-mixed", ProposalGen::NoParamPoolMixed),
];
const KERNELS: [(&str, FeatureMap); 5] = [
    ("favorp", FeatureMap::Favorp),
    ("fourier", FeatureMap::Fourier),
    ("relu", FeatureMap::Relu),
    ("relu-only", FeatureMap::ReluOnly),
    ("sigmoid-only", FeatureMap::SigmoidOnly),
];

fn choice<T: Copy + PartialEq>(ui: &mut Ui, name: &str, value: &mut T, all: &[(&str, T)]) {
    let selected = all.iter().find(|(_, v)| v == value).map_or("?", |(name, _)| name);
    ComboBox::from_label(name).selected_text(selected).width(100.0).show_ui(ui, |ui| {
        for (text, option) in all {
            ui.selectable_value(value, *option, *text);
        }
    });
}

/// A slider whose value counts when it is released: until then it is kept aside, since every change means a compile.
fn held<N: egui::emath::Numeric + Send + Sync>(
    ui: &mut Ui,
    name: &str,
    value: &mut N,
    slider: impl Fn(&mut N) -> Slider<'_>,
) {
    let id = ui.scope_id().with(name);
    let mut shown = ui.data(|data| data.get_temp::<N>(id)).unwrap_or(*value);
    let response = ui.add(slider(&mut shown));
    if response.dragged() {
        ui.data_mut(|data| data.insert_temp(id, shown));
        return;
    }
    ui.data_mut(|data| data.remove::<N>(id));
    *value = shown;
}

fn size(ui: &mut Ui, name: &str, value: &mut usize, most: usize) {
    ui.spacing_mut().slider_width = 70.0;
    held(ui, name, value, |shown| Slider::new(shown, 1..=most.max(2)).logarithmic(true).text(name));
}

fn number(ui: &mut Ui, name: &str, value: &mut i32, range: std::ops::RangeInclusive<i32>) {
    ui.spacing_mut().slider_width = 70.0;
    held(ui, name, value, |shown| Slider::new(shown, range.clone()).text(name));
}

fn decimal(ui: &mut Ui, name: &str, value: &mut f32) {
    ui.spacing_mut().slider_width = 70.0;
    held(ui, name, value, |shown| Slider::new(shown, 0.0..=4.0).step_by(0.25).text(name));
}
