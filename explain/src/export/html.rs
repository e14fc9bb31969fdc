//! All maps of a sheet as one page that needs nothing else: no network, no fonts, no other file.
//!
//! The page is also well-formed XML, so that a mistake in it can be found by a parser that forgives nothing.

use std::fmt::Write;

use serde::Serialize;

use crate::colormap::Colormap;
use crate::error::{Error, Result};
use crate::export::layout::prefix_text;
use crate::export::svg::{data_uri, escape};
use crate::export::{Sheet, labels};
use crate::map::{Map, Query};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const REST: &str = "Point at a patch to read its value.";

/// What the script draws from.
#[derive(Serialize)]
struct Data<'a> {
    /// 256 colours of six hexadecimal digits, lowest first.
    sequential: String,
    diverging: String,
    always_diverging: bool,
    /// The scale that all maps share if that is wanted.
    range: (f32, f32),
    maps: Vec<MapData<'a>>,
}

#[derive(Serialize)]
struct MapData<'a> {
    #[serde(flatten)]
    label: crate::export::Label<'a>,
    range: (f32, f32),
    /// NaN and infinity are null.
    values: &'a [f32],
}

/// The page.
///
/// # Errors
/// If the sheet's parts do not go together.
pub fn encode(sheet: &Sheet) -> Result<String> {
    sheet.check()?;
    let heading = if sheet.title.trim().is_empty() { "Attention maps" } else { sheet.title.as_str() };
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{}</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n",
        escape(&format!("{heading}: {}", sheet.image_name)),
        frame_style(sheet)?
    );
    // Writing to a string does not fail.
    let _ = writeln!(out, "<header>\n<h1>{}</h1>\n<dl>", escape(heading));
    let image = [("image".to_owned(), sheet.image_name.clone())];
    for (name, value) in image.iter().chain(&sheet.notes) {
        let _ = writeln!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    }
    out.push_str("</dl>\n</header>\n");
    controls(&mut out, sheet);
    out.push_str("<noscript><p>The maps are drawn by a script in this page; allow it to run.</p></noscript>\n<main>\n");
    sheet.maps.iter().for_each(|map| figure(&mut out, map));
    let data = embed(&data(sheet))?;
    let _ = writeln!(out, "</main>\n<script type=\"application/json\" id=\"data\">{data}</script>");
    let _ = writeln!(out, "<script>\n{SCRIPT}</script>\n</body>\n</html>");
    Ok(out)
}

/// The picture, once for all frames.
fn frame_style(sheet: &Sheet) -> Result<String> {
    if sheet.style.bare {
        let [rows, columns] = sheet.map(0)?.grid;
        return Ok(format!(".frame {{ aspect-ratio: {columns} / {rows}; }}\n"));
    }
    let (picture, uri) = (&sheet.picture, data_uri(&sheet.picture)?);
    let (width, height) = (picture.width, picture.height);
    Ok(format!(".frame {{ aspect-ratio: {width} / {height}; background-image: url({uri}); }}\n"))
}

fn controls(out: &mut String, sheet: &Sheet) {
    let checked = |on: bool| if on { " checked=\"checked\"" } else { "" };
    let opacity = if sheet.style.bare { 1.0 } else { sheet.style.opacity };
    let (log, shared) = (checked(sheet.style.log_scale), checked(sheet.style.shared_range.is_some()));
    let (uniform, times) = (checked(sheet.style.uniform.is_some()), sheet.style.uniform.unwrap_or(4.0));
    let _ = writeln!(
        out,
        "<div class=\"controls\"><div>\n\
         <label>Opacity <input type=\"range\" id=\"opacity\" min=\"0\" max=\"1\" step=\"0.01\" value=\"{opacity}\"/>\
         <output id=\"percent\" for=\"opacity\"></output></label>\n\
         <label><input type=\"checkbox\" id=\"log\"{log}/> Logarithmic scale</label>\n\
         <label><input type=\"checkbox\" id=\"shared\"{shared}/> One scale for all maps</label>\n\
         <label><input type=\"checkbox\" id=\"uniform\"{uniform}/> × uniform, up to \
         <input type=\"number\" id=\"times\" min=\"1.5\" max=\"1000\" step=\"0.5\" value=\"{times}\"/></label>\n\
         </div></div>"
    );
}

fn figure(out: &mut String, map: &Map) {
    let [rows, columns] = map.grid;
    let title = escape(&map.title());
    let place = map.title();
    let place = place.strip_prefix(map.mechanism.as_str()).unwrap_or(&place).trim_start_matches(" · ");
    let _ = write!(
        out,
        "<figure>\n<figcaption><strong>{}</strong><span>{}</span>{}</figcaption>\n\
         <div class=\"frame\" role=\"img\" aria-label=\"{title}\">\
         <canvas width=\"{columns}\" height=\"{rows}\"></canvas>",
        escape(&map.mechanism),
        escape(place),
        prefix_text(map).map_or_else(String::new, |text| format!("<span>{}</span>", escape(&text)))
    );
    if let Query::Patch(at) = map.query {
        let [rows, columns] = map.query_grid;
        let percent = |part: usize, of: usize| 100.0 * part as f64 / of as f64;
        let _ = write!(
            out,
            "<div class=\"query\" style=\"left:{}%;top:{}%;width:{}%;height:{}%\"></div>",
            percent(at % columns, columns),
            percent(at / columns, rows),
            percent(1, columns),
            percent(1, rows)
        );
    }
    let _ = writeln!(
        out,
        "</div>\n<div class=\"ramp\"></div>\n<div class=\"numbers\"><span></span><span></span><span></span></div>\n\
         <p class=\"value\">{REST}</p>\n</figure>"
    );
}

fn data(sheet: &Sheet) -> Data<'_> {
    let sequential = match sheet.style.colormap {
        Colormap::Diverging => Colormap::default(),
        other => other,
    };
    let ranges: Vec<(f32, f32)> = sheet.maps.iter().map(finite_range).collect();
    let common = ranges.iter().copied().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0.0, 0.0));
    let maps = labels(&sheet.maps).into_iter().zip(&sheet.maps).zip(ranges);
    Data {
        sequential: digits(sequential),
        diverging: digits(Colormap::Diverging),
        always_diverging: sheet.style.colormap == Colormap::Diverging,
        range: sheet.style.shared_range.unwrap_or(common),
        maps: maps.map(|((label, map), range)| MapData { label, range, values: &map.values }).collect(),
    }
}

/// Smallest and largest finite value of the patches; (0, 0) where there is none.
fn finite_range(map: &Map) -> (f32, f32) {
    let finite = map.patches().iter().copied().filter(|value| value.is_finite());
    let range = finite.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if range.0 > range.1 { (0.0, 0.0) } else { range }
}

fn digits(colormap: Colormap) -> String {
    colormap.table().iter().map(|[r, g, b]| format!("{r:02x}{g:02x}{b:02x}")).collect()
}

/// JSON that ends no script and no XML text, whatever names it holds.
fn embed(data: &Data<'_>) -> Result<String> {
    let json = serde_json::to_string(data)
        .map_err(|error| Error::BadInput(format!("the values cannot be written as JSON: {error}")))?;
    // Outside of strings JSON has none of these.
    let json = json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    Ok(json.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff").replace('\u{7f}', "\\u007f"))
}
