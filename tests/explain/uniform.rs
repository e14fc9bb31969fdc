//! The scale that counts in uniform weights.

use lara_explain::export::{Ends, Scale, Style, html, svg};
use lara_explain::{Colormap, Kind, Map, Query};

use crate::export::{map, sheet};

#[test]
fn a_flat_map_is_flat_on_the_scale_of_uniform_weights() {
    // Behind a class token six patches of a seventh each, but for a trace.
    let flat = map([2, 3], 1, Query::Mean, vec![1.0 / 7.0, 0.142, 0.143, 0.142, 0.143, 0.142, 0.143]);
    let around = Style { uniform: Some(4.0), ..Style::default() };
    let places = |style: &Style| {
        let scale = Scale::of(&flat, style);
        flat.patches().iter().map(|&value| scale.place(value).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(places(&Style::default()), [0.0, 1.0, 0.0, 1.0, 0.0, 1.0], "its own scale stretches the trace");
    // A trace of six thousandths of the uniform weight is a few thousandths of the scale.
    assert!(places(&around).iter().all(|place| (place - 0.25).abs() < 0.003), "{:?}", places(&around));
    let log = Style { log_scale: true, ..around };
    assert!(places(&log).iter().all(|place| (place - 0.5).abs() < 0.003), "{:?}", places(&log));
    let scale = Scale::of(&flat, &around);
    let ticks: Vec<String> = scale.ticks().into_iter().map(|(_, text)| text).collect();
    assert_eq!(ticks, ["0×", "1.00×", "2.00×", "3.00×", "4.00×"]);
    assert_eq!(scale.times(3.2 / 7.0).as_deref(), Some("3.2× uniform"));
    // Gradients are no weights, and negative values are shown around zero.
    assert_eq!(Scale::of(&Map { kind: Kind::Gradient, ..flat.clone() }, &around).unit, None);
    let signed = Scale::of(&map([1, 2], 0, Query::Mean, vec![-0.5, 1.5]), &around);
    assert_eq!((signed.colormap, signed.low, signed.high), (Colormap::Diverging, -2.0, 2.0));
    for (text, ends) in [("own", Ends::Own), ("shared", Ends::Shared), ("uniform", Ends::Uniform(4.0))] {
        assert_eq!(text.parse::<Ends>().unwrap(), ends);
    }
    assert_eq!("uniform:8".parse::<Ends>().unwrap(), Ends::Uniform(8.0));
    for bad in ["", "uniform:1", "uniform:x", "uniform:inf", "max"] {
        let said = bad.parse::<Ends>().unwrap_err().to_string();
        assert!(said.contains("own, shared and uniform"), "{said}");
    }
    let mut sheet = sheet(vec![flat]);
    sheet.style.uniform = Some(0.5);
    assert!(sheet.check().unwrap_err().to_string().contains("0.5 times the uniform weight"));
    sheet.style = around;
    let text = svg::encode(&sheet, 0).unwrap();
    assert!(text.contains("0.1430, 1.0× uniform") && text.contains("above the scale: 0"), "{text}");
    assert!(html::encode(&sheet).unwrap().contains("id=\"uniform\" checked"));
}
