//! Exported maps, read back: pixels, vectors, arrays, tensors, the page; and inputs that nobody should have.

use std::collections::BTreeSet;
use std::fs;

use lara_explain::export::layout::{Area, Layout};
use lara_explain::export::{
    self, Format, Picture, Scale, Sheet, Style, files, html, npy, overview, png, safetensors, svg, write,
};
use lara_explain::{Colormap, Error, Kind, Map, Query};
use lara_models::random::{Draws, Purpose};
use lara_models::weights::TensorFile;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

/// Markup, quotes, a slash, letters beyond ASCII, and a control character that XML cannot hold.
const BAD_NAME: &str = "a<b> & \"c\"/'d'\u{1}é日本.png";

pub(crate) fn map(grid: [usize; 2], prefix: usize, query: Query, values: Vec<f32>) -> Map {
    let (mechanism, kind) = ("lara".to_owned(), Kind::Attention);
    Map { mechanism, kind, layer: Some(2), head: Some(1), query, query_grid: grid, grid, prefix, values }
}

fn picture(width: usize, height: usize) -> Picture {
    let rgb = (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect();
    Picture { width, height, rgb }
}

pub(crate) fn sheet(maps: Vec<Map>) -> Sheet {
    let notes = vec![("checkpoint".to_owned(), "runs/digits".to_owned())];
    let (title, image_name) = ("Attention maps".to_owned(), "seven.png".to_owned());
    Sheet { title, image_name, picture: picture(4, 4), maps, style: Style::default(), notes }
}

/// Two rows of three patches behind a class token.
fn six() -> Map {
    map([2, 3], 1, Query::Patch(4), vec![0.4, 0.0, 0.1, 0.2, 0.05, 0.15, 0.1])
}

fn decode(bytes: &[u8]) -> image::RgbImage {
    image::load_from_memory_with_format(bytes, image::ImageFormat::Png).unwrap().into_rgb8()
}

#[test]
fn png_has_the_map_over_the_picture_and_a_bar_beside_it() {
    let mut sheet = sheet(vec![six()]);
    sheet.style = Style { colormap: Colormap::Magma, opacity: 0.25, ..Style::default() };
    let layout = Layout::of(&sheet, 0).unwrap();
    let image = decode(&png::encode(&sheet, 0).unwrap());
    assert_eq!(image.dimensions(), (layout.width as u32, layout.height as u32));
    let Area { x: left, y: top, width, height } = layout.picture;
    assert_eq!((width, height), (512, 512));
    for y in (0..512).step_by(10) {
        for x in (0..512).step_by(10) {
            let (row, column) = (y * 2 / 512, x * 3 / 512);
            let area = layout.patch(row, column);
            let inside = |at: usize, from: usize, size: usize| at >= from && at < from + size;
            assert!(inside(left + x, area.x, area.width) && inside(top + y, area.y, area.height), "{x} {y}");
            let edge = (left + x - area.x).min(top + y - area.y);
            let edge = edge.min(area.x + area.width - 1 - left - x).min(area.y + area.height - 1 - top - y);
            if (row, column) == (1, 1) && edge < 6 {
                continue; // The query's frame.
            }
            // The values go from 0 to 0.2.
            let over = Colormap::Magma.color(sheet.maps[0].patches()[row * 3 + column] / 0.2);
            let under = 3 * ((y * 4 / 512) * 4 + x * 4 / 512);
            let under = &sheet.picture.rgb[under..under + 3];
            let found = image.get_pixel((left + x) as u32, (top + y) as u32).0;
            for c in 0..3 {
                let expected = 0.75 * f32::from(under[c]) + 0.25 * f32::from(over[c]);
                assert!((f32::from(found[c]) - expected).abs() <= 1.0, "{found:?} at {x} {y}, channel {c}: {expected}");
            }
        }
    }
    let frame = layout.query().unwrap();
    assert_eq!(frame, layout.patch(1, 1));
    assert_eq!(image.get_pixel(frame.x as u32, frame.y as u32).0, [24; 3]);
    assert_eq!(image.get_pixel(frame.x as u32 + 4, frame.y as u32 + 4).0, [255; 3]);
    let bar = |y: usize| image.get_pixel(layout.bar.x as u32 + 3, y as u32).0;
    let near = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 2);
    assert!(near(bar(layout.bar.y), Colormap::Magma.color(1.0)));
    assert!(near(bar(layout.bar.y + layout.bar.height - 1), Colormap::Magma.color(0.0)));
    // Every line of text left ink, and none beyond the margin.
    let ink = |x: usize, y: usize| image.get_pixel(x as u32, y as u32).0.iter().all(|&c| c < 100);
    for line in layout.lines.iter().chain(&layout.ticks) {
        let mut at = (line.y - line.size / 2..line.y).flat_map(|y| (line.x..layout.width).map(move |x| (x, y)));
        assert!(at.any(|(x, y)| ink(x, y)), "{} is not there", line.text);
    }
    assert!((0..layout.height).all(|y| (layout.width - 10..layout.width).all(|x| !ink(x, y))));
}

#[test]
fn a_bare_map_is_its_colours_alone() {
    let mut sheet = sheet(vec![six()]);
    sheet.style.bare = true;
    let layout = Layout::of(&sheet, 0).unwrap();
    let drawn = png::draw(&sheet, 0).unwrap();
    assert_eq!(layout.picture.width * 2, layout.picture.height * 3, "patches are square");
    for (at, &value) in sheet.maps[0].patches().iter().enumerate() {
        let area = layout.patch(at / 3, at % 3);
        let middle = 3 * ((area.y + area.height / 2) * drawn.width + area.x + area.width / 2);
        assert_eq!(drawn.rgb[middle..middle + 3], Colormap::Viridis.color(value / 0.2), "patch {at}");
    }
}

#[test]
fn an_overview_has_a_row_for_each_query_and_a_panel_for_each_layer() {
    let layers = |query: Query| (0..3).map(move |layer| Map { layer: Some(layer), query, ..six() });
    let mut sheet = sheet(layers(Query::Patch(4)).chain(layers(Query::Mean)).collect());
    sheet.maps[5].values[1..].reverse();
    sheet.style.opacity = 1.0;
    let image = decode(&overview::encode(&sheet).unwrap());
    let (panel, line) = (192 + 10, 20);
    assert_eq!(image.dimensions(), (10 + 4 * panel, 10 + 2 * (panel + 2 * line)));
    let corner = |row: u32, column: u32| (10 + column * panel, 10 + row * (panel + 2 * line) + 2 * line);
    for (at, map) in sheet.maps.iter().enumerate() {
        let (x, y) = corner(at as u32 / 3, at as u32 % 3 + 1);
        for (patch, &value) in map.patches().iter().enumerate() {
            let (row, column) = (patch as u32 / 3, patch as u32 % 3);
            let found = image.get_pixel(x + column * 64 + 32, y + row * 96 + 48).0;
            assert_eq!(found, Colormap::Viridis.color(value / 0.2), "map {at}, patch {patch}");
        }
    }
    // The picture stands before both rows; the first has the frame of its query, row 1 and column 1 of 2 x 3.
    for row in 0..2 {
        let (x, y) = corner(row, 0);
        assert_eq!(image.get_pixel(x + 100, y + 10).0.to_vec(), sheet.picture.rgb[6..9]);
        let frame = image.get_pixel(x + 64, y + 96).0;
        assert_eq!(frame == [24; 3], row == 0, "{frame:?}");
    }
    sheet.maps = (0..40)
        .flat_map(|query| (0..40).map(move |layer| (query, layer)))
        .map(|(query, layer)| Map { layer: Some(layer), ..map([8, 8], 0, Query::Patch(query), vec![0.1; 64]) })
        .collect();
    let error = overview::encode(&sheet).unwrap_err().to_string();
    assert!(error.contains("1600 maps") && error.contains("fewer"), "{error}");
}

fn attribute(node: Node<'_, '_>, name: &str) -> f32 {
    node.attribute(name).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no number {name} in {node:?}"))
}

#[test]
fn svg_has_a_rectangle_with_its_value_for_every_patch() {
    let mut sheet = sheet(vec![six()]);
    sheet.image_name = BAD_NAME.into();
    sheet.maps[0].mechanism = "lara <\"16\" & more>".into();
    let text = svg::encode(&sheet, 0).unwrap();
    let document = Document::parse(&text).unwrap();
    let named = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name(name));
    let patches: Vec<Node<'_, '_>> =
        named("rect").filter(|rect| rect.children().any(|child| child.has_tag_name("title"))).collect();
    assert_eq!(patches.len(), 6);
    let layout = Layout::of(&sheet, 0).unwrap();
    let titles = ["0", "0.1000", "0.2000", "0.05000", "0.1500", "0.1000"];
    for (at, rect) in patches.iter().enumerate() {
        let area = layout.patch(at / 3, at % 3);
        let sides = ["x", "y", "width", "height"].map(|side| attribute(*rect, side) as usize);
        assert_eq!(sides, [area.x, area.y, area.width, area.height]);
        let [r, g, b] = Colormap::Viridis.color(sheet.maps[0].patches()[at] / 0.2);
        assert_eq!(rect.attribute("fill"), Some(format!("#{r:02x}{g:02x}{b:02x}").as_str()));
        let title = format!("row {}, column {}: {}", at / 3, at % 3, titles[at]);
        assert_eq!(rect.first_element_child().and_then(|child| child.text()), Some(title.as_str()));
        assert_eq!(attribute(rect.parent().unwrap(), "fill-opacity"), 0.6);
    }
    // The query's frame lies inside of its patch.
    let frames: Vec<Node<'_, '_>> = named("rect").filter(|rect| rect.has_attribute("stroke")).collect();
    let query = layout.query().unwrap();
    assert_eq!(frames.len(), 2);
    for frame in frames {
        assert!(attribute(frame, "x") >= query.x as f32 && attribute(frame, "width") < query.width as f32);
    }
    // Names are as they were, but for what XML cannot hold.
    let title = document.root_element().first_element_child().and_then(|node| node.text()).unwrap();
    assert!(title.starts_with("a<b> & \"c\"/'d'\u{fffd}é日本.png: lara <\"16\" & more> · layer 2"), "{title}");
    let lines: Vec<&str> = named("text").filter_map(|node| node.text()).collect();
    assert_eq!(lines[0], "lara <\"16\" & more> · layer 2 · head 1 · patch (1, 1)");
    assert!(lines.contains(&"to the class token: 0.400") && lines.contains(&"0.200"), "{lines:?}");
    let href = named("image").next().and_then(|node| node.attribute("href")).unwrap();
    let bytes = from_base64(href.strip_prefix("data:image/png;base64,").unwrap());
    assert_eq!(decode(&bytes).into_raw(), sheet.picture.rgb);
}

fn from_base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{} is no base64", char::from(c)),
    };
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = group.iter().fold(0u32, |bits, &c| bits << 6 | u32::from(digit(c))) << (6 * (4 - group.len()));
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

/// Shape and values of an NPY file of version 1.0.
fn read_npy(bytes: &[u8]) -> (Vec<usize>, Vec<f32>) {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!((10 + length).is_multiple_of(64) && header.ends_with('\n'), "{header:?}");
    assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': ("), "{header:?}");
    let shape = header.split_once('(').and_then(|(_, rest)| rest.split_once(')')).unwrap().0;
    let shape = shape.split(',').map(|size| size.trim().parse().unwrap()).collect();
    (shape, bytes[10 + length..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
}

#[test]
fn npy_is_one_array_of_all_rows() {
    let other = Map { values: vec![f32::NAN, -1.5, 0.0, f32::MIN_POSITIVE, 3e38, 1.0, 2.0], ..six() };
    let maps = [six(), other];
    let (shape, values) = read_npy(&npy::encode(&maps).unwrap());
    assert_eq!(shape, [2, 7]);
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    assert_eq!(bits(&values), bits(&[&maps[0].values[..], &maps[1].values].concat()));
    let uneven = [six(), map([1, 1], 0, Query::Mean, vec![1.0])];
    let said = npy::encode(&uneven).unwrap_err().to_string();
    assert!(said.contains("has 7 tokens") && said.contains("has 1:") && said.contains("safetensors"), "{said}");
}

#[test]
fn safetensors_have_a_name_and_labels_for_every_map() {
    let twins = vec![six(), six(), Map { layer: None, head: None, kind: Kind::Rollout, ..six() }];
    let mut sheet = sheet(twins);
    sheet.image_name = BAD_NAME.into();
    let file = TensorFile::from_bytes("maps.safetensors", safetensors::encode(&sheet).unwrap()).unwrap();
    let names: Vec<&str> = file.names().collect();
    let first = "lara.blocks.2.head1.patch_1_1";
    assert_eq!(names, [first, "lara.blocks.2.head1.patch_1_1-2", "lara.rollout.allheads.patch_1_1"]);
    assert_eq!(file.get(first, &[7]).unwrap(), six().values);
    assert_eq!(file.metadata()["image"], BAD_NAME);
    let labels: Value = serde_json::from_str(&file.metadata()["maps"]).unwrap();
    assert_eq!(labels[0]["name"], first);
    assert_eq!(labels[1]["grid"], serde_json::json!([2, 3]));
    assert_eq!((&labels[1]["prefix"], &labels[1]["query"]["patch"]), (&1.into(), &4.into()));
    assert_eq!(labels[2]["title"], "lara · rollout · all heads · patch (1, 1)");
    let notes: Value = serde_json::from_str(&file.metadata()["notes"]).unwrap();
    assert_eq!(notes, serde_json::json!([["checkpoint", "runs/digits"]]));
}

fn page(text: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).unwrap()
}

#[test]
fn the_page_holds_everything_it_needs() {
    let mut sheet = sheet(vec![six(), Map { mechanism: "</script><b>".into(), head: None, ..six() }]);
    sheet.title = BAD_NAME.into();
    sheet.maps[1].values[3] = f32::NAN;
    sheet.notes.push(("prediction".into(), "]]> -- <!-- &amp;".into()));
    sheet.style = Style { shared_range: Some((0.0, 0.5)), log_scale: true, ..Style::default() };
    let text = html::encode(&sheet).unwrap();
    let document = page(&text);
    let of_id = |id: &str| document.descendants().find(|node| node.attribute("id") == Some(id));
    let data: Value = serde_json::from_str(of_id("data").and_then(|node| node.text()).unwrap()).unwrap();
    for (map, shown) in sheet.maps.iter().zip(data["maps"].as_array().unwrap()) {
        let values: Vec<Option<f64>> = shown["values"].as_array().unwrap().iter().map(Value::as_f64).collect();
        let expected = map.values.iter().map(|v| v.is_finite().then_some(*v));
        assert!(values.iter().map(|v| v.map(|v| v as f32)).eq(expected), "{values:?}");
        assert_eq!((&shown["title"], &shown["prefix"]), (&map.title().into(), &1.into()));
    }
    assert_eq!(data["range"], serde_json::json!([0.0, 0.5]));
    let [r, g, b] = Colormap::Viridis.color(1.0);
    let table = data["sequential"].as_str().unwrap();
    assert!(table.len() == 256 * 6 && table.ends_with(&format!("{r:02x}{g:02x}{b:02x}")));
    let figures: Vec<Node<'_, '_>> = document.descendants().filter(|node| node.has_tag_name("figure")).collect();
    assert_eq!(figures.len(), 2);
    for (figure, map) in figures.iter().zip(&sheet.maps) {
        let strong = figure.descendants().find(|node| node.has_tag_name("strong"));
        assert_eq!(strong.and_then(|node| node.text()), Some(map.mechanism.as_str()));
        let canvas = figure.descendants().find(|node| node.has_tag_name("canvas")).unwrap();
        assert_eq!((attribute(canvas, "width"), attribute(canvas, "height")), (3.0, 2.0));
    }
    for (id, checked) in [("log", true), ("shared", true)] {
        assert_eq!(of_id(id).is_some_and(|node| node.has_attribute("checked")), checked, "{id}");
    }
    // Nothing comes from elsewhere, and what the script looks for is there.
    assert!(!text.contains("http") && !text.contains("src=") && !text.contains("@import") && !text.contains("href="));
    assert!(text.match_indices("url(").all(|(at, _)| text[at..].starts_with("url(data:image/png;base64,")));
    for id in text.split("find(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(of_id(id).is_some(), "the script looks for #{id}");
    }
    for class in text.split("querySelector(\".").skip(1).filter_map(|rest| rest.split('"').next()) {
        let inside = |figure: &Node<'_, '_>| figure.descendants().any(|node| node.attribute("class") == Some(class));
        assert!(figures.iter().all(inside), "the script looks for .{class}");
    }
}

#[test]
fn files_are_written_whole_under_plain_names_and_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("deep/down");
    let mut sheet = sheet(vec![six(), Map { mechanism: "../É/Лара 16".into(), ..six() }, six()]);
    let written = write(&sheet, &[Format::Html, Format::Png, Format::Npy, Format::Png], &folder).unwrap();
    let names: Vec<String> = written.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let stem = "layer2-head1-patch_1_1";
    let pictures = [format!("lara-{stem}.png"), format!("16-{stem}.png"), format!("lara-{stem}-2.png")];
    assert_eq!(
        names,
        [&["maps.html".to_owned()][..], &pictures, &["maps.npy".into(), "maps.npy.json".into()]].concat()
    );
    assert_eq!(fs::read_dir(&folder).unwrap().count(), names.len(), "something is left over");
    let labels: Value = serde_json::from_slice(&fs::read(folder.join("maps.npy.json")).unwrap()).unwrap();
    assert_eq!(labels.as_array().map(Vec::len), Some(3));
    sheet.maps.truncate(1);
    write(&sheet, &[Format::Npy], &folder).unwrap();
    assert_eq!(read_npy(&fs::read(folder.join("maps.npy")).unwrap()).0, [1, 7]);
    // A file where the folder should be, and a folder where a file should be.
    fs::write(temp.path().join("file"), "").unwrap();
    let error = write(&sheet, &[Format::Svg], temp.path().join("file")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.is_bad_input());
    let said = error.to_string();
    assert!(
        said.contains("create the folder") && said.contains("file: ") && said.contains("choose a folder"),
        "{said}"
    );
    fs::create_dir_all(temp.path().join("taken/maps.html")).unwrap();
    let said = write(&sheet, &[Format::Html], temp.path().join("taken")).unwrap_err().to_string();
    assert!(said.contains("cannot write") && said.contains("maps.html"), "{said}");
    assert_eq!(fs::read_dir(temp.path().join("taken")).unwrap().count(), 1, "a half-written file is left");
}

/// Spoils a sheet.
type Change<'a> = &'a dyn Fn(&mut Sheet);

#[test]
fn what_does_not_go_together_is_told_with_its_numbers() {
    let said = |change: Change<'_>| {
        let mut sheet = sheet(vec![six()]);
        change(&mut sheet);
        let error = files(&sheet, &Format::ALL).unwrap_err();
        assert!(error.is_bad_input());
        error.to_string()
    };
    let cases: [(Change<'_>, &[&str]); 9] = [
        (&|s| s.maps[0].values.truncate(5), &["has 5 values", "1 tokens", "2 x 3"]),
        (&|s| s.maps[0].values.clear(), &["has 0 values"]),
        (&|s| s.maps[0].grid = [0, 3], &["0 x 3", "at least 1 x 1"]),
        (&|s| s.maps[0].grid = [usize::MAX, 2], &["grid of"]),
        (&|s| s.maps[0].query = Query::Patch(6), &["patch number 6", "only 6"]),
        (&|s| s.maps.clear(), &["no map of seven.png"]),
        (&|s| s.style.opacity = f32::NAN, &["opacity is NaN"]),
        (&|s| s.style.shared_range = Some((1.0, 1.0)), &["from 1 to 1"]),
        (&|s| s.picture.width = 5, &["48 bytes", "5 x 4"]),
    ];
    for (change, words) in cases {
        let said = said(change);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    let said = Format::from_name("gif").unwrap_err().to_string();
    assert!(said.contains("`gif`") && said.contains("png, svg, npy, safetensors, html"), "{said}");
    assert!(Format::ALL.into_iter().all(|format| Format::from_name(format.name()).unwrap() == format));
    assert!(png::encode(&sheet(vec![six()]), 3).unwrap_err().to_string().contains("map 3"));
    let said = Picture::from_planes(3, 2, 2, &[0.0; 11]).unwrap_err().to_string();
    assert!(said.contains("11 values") && said.contains("3 x 2 x 2"), "{said}");
}

#[test]
fn scales_tell_numbers_apart() {
    let of = |values: &[f32], style: Style| Scale::of(&map([1, values.len()], 0, Query::Mean, values.to_vec()), &style);
    let numbers = |scale: Scale| scale.ticks().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    let plain = Style::default();
    assert_eq!(numbers(of(&[0.0, 0.2], plain)), ["0", "0.0500", "0.100", "0.150", "0.200"].map(|n| decimals(n, 3)));
    assert_eq!(numbers(of(&[0.25, 0.25], plain)), ["0.250"]);
    assert_eq!(of(&[0.25, 0.25], plain).place(0.25), Some(0.5));
    for values in [[0.015_60, 0.015_63], [1e-9, 3e-9], [1e12, 1.000_01e12], [-3e38, 3e38], [0.0, 1e-40]] {
        let numbers = numbers(of(&values, plain));
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 5, "{values:?}: {numbers:?}");
    }
    let signed = of(&[-0.1, 0.4], plain);
    assert_eq!((signed.colormap, signed.place(0.0), signed.place(0.4)), (Colormap::Diverging, Some(0.5), Some(1.0)));
    let log = of(&[0.0, 0.001, 0.1], Style { log_scale: true, ..plain });
    assert_eq!((log.place(0.0), log.place(0.1)), (Some(0.0), Some(1.0)));
    assert!((log.place(0.01).unwrap() - 0.5).abs() < 1e-6);
    let shared = of(&[0.1, f32::NAN], Style { shared_range: Some((0.0, 0.4)), ..plain });
    assert_eq!((shared.place(0.1), shared.place(9.0), shared.place(f32::NAN)), (Some(0.25), Some(1.0), None));
    assert_eq!(shared.color(f32::INFINITY), [128; 3]);
}

/// A number as it is written with so many decimals; zero is `0`.
fn decimals(number: &str, decimals: usize) -> String {
    let value: f64 = number.parse().unwrap();
    if value == 0.0 { "0".into() } else { format!("{value:.decimals$}") }
}

/// One of `choices`.
fn any<T: Clone>(draws: &mut Draws, choices: &[T]) -> T {
    choices[draws.below(choices.len() as u32) as usize].clone()
}

fn awkward_map(draws: &mut Draws, mechanism: &str) -> Map {
    let grid = any(draws, &[[1, 1], [1, 7], [5, 3], [40, 1], [14, 14]]);
    let prefix = any(draws, &[0, 1, 5]);
    let patches: usize = grid[0] * grid[1];
    let query = any(draws, &[Query::Mean, Query::Class, Query::Patch(0), Query::Patch(patches - 1)]);
    let pool: &[f32] = any(
        draws,
        &[
            &[0.0][..],
            &[0.25],
            &[f32::NAN],
            &[f32::NEG_INFINITY, 1.0, 0.5],
            &[f32::MIN, f32::MAX, 0.0],
            &[-0.0, 1e-45],
            &[-1e-3, 2e-3, 5e-4],
            &[1e-30, 1e30, f32::INFINITY],
            &[0.001, 0.1, 0.7],
        ],
    );
    let values = (0..prefix + patches).map(|_| any(draws, pool)).collect();
    let (layer, head) = (any(draws, &[None, Some(0)]), any(draws, &[None, Some(11)]));
    let kind = [Kind::Attention, Kind::Rollout, Kind::Gradient][draws.below(3) as usize];
    Map { mechanism: mechanism.to_owned(), kind, layer, head, query, query_grid: grid, grid, prefix, values }
}

fn awkward_sheet(draws: &mut Draws) -> Sheet {
    let long = "w".repeat(300);
    let texts = [BAD_NAME, "", "   ", "..", "]]>", "\u{ffff}\u{0}\u{7f}\u{85}", "x y z", &long];
    let [width, height] = any(draws, &[[1, 1], [8, 8], [3, 200], [600, 2], [28, 28]]);
    let mechanism = any(draws, &texts);
    let maps = (0..2).map(|_| awkward_map(draws, mechanism)).collect();
    let style = Style {
        colormap: any(draws, &[Colormap::Viridis, Colormap::Cividis, Colormap::Diverging]),
        opacity: any(draws, &[0.0, 0.6, 1.0]),
        log_scale: any(draws, &[false, true]),
        shared_range: any(draws, &[None, Some((0.0, 0.5)), Some((-1.0, f32::MAX)), Some((1e-6, 1.0))]),
        uniform: any(draws, &[None, Some(4.0), Some(1000.0)]),
        bare: any(draws, &[false, true]),
    };
    let [title, image_name, note] = [(); 3].map(|()| any(draws, &texts).to_owned());
    Sheet { title, image_name, picture: picture(width, height), maps, style, notes: vec![(note.clone(), note)] }
}

#[test]
fn awkward_inputs_make_files_that_can_be_read() {
    let formats = [Format::Png, Format::Svg, Format::Safetensors, Format::Html];
    for case in 0..60 {
        let sheet = awkward_sheet(&mut Draws::new(7, Purpose::Augment, case, 0));
        let files = files(&sheet, &formats).unwrap_or_else(|error| panic!("case {case}: {error}\n{sheet:?}"));
        assert_eq!(files.len(), 6);
        assert_eq!(files.iter().map(|file| &file.name).collect::<BTreeSet<_>>().len(), 6, "case {case}");
        for file in &files {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
            assert!(
                file.name.chars().all(plain) && !file.name.starts_with('.') && file.name.len() < 200,
                "{}",
                file.name
            );
            match file.name.rsplit_once('.').unwrap().1 {
                "png" => assert!(decode(&file.bytes).width() >= 360),
                "svg" => drop(Document::parse(std::str::from_utf8(&file.bytes).unwrap()).unwrap()),
                "html" => drop(page(std::str::from_utf8(&file.bytes).unwrap())),
                "safetensors" => {
                    let file = TensorFile::from_bytes("x", file.bytes.clone()).unwrap();
                    assert_eq!(file.names().count(), 2);
                }
                other => panic!("a file ends in {other}"),
            }
        }
        match npy::encode(&sheet.maps) {
            Ok(bytes) => assert_eq!(read_npy(&bytes).0, [2, sheet.maps[0].values.len()]),
            Err(_) => assert_ne!(sheet.maps[0].values.len(), sheet.maps[1].values.len()),
        }
    }
    let names = export::folder_names(&["Seven".into(), "seven".into(), "../..".into()]);
    assert_eq!(names, ["seven", "seven-2", "map"]);
}
