"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const colors = (hex) => Array.from({ length: hex.length / 6 }, (_, i) =>
  [0, 2, 4].map((at) => parseInt(hex.slice(6 * i + at, 6 * i + at + 2), 16)));
const tables = { sequential: colors(data.sequential), diverging: colors(data.diverging) };
// What every key would get if all got the same; 0 where values are no weights.
const uniform = (map) => map.kind === "gradient-weighted" ? 0 : 1 / map.values.length;
const times = (value, unit) => text(Number((value / unit).toPrecision(3))) + "×";
const text = (value) => value === null ? "no finite number" : String(Number(value.toPrecision(4)));

// The same scale as in the exported pictures: symmetric where a value is negative, else from lowest to highest.
function scaleOf(map) {
  const finite = map.values.slice(map.prefix).filter((v) => v !== null);
  let [low, high] = find("shared").checked ? data.range : map.range;
  const most = Math.max(1.01, Number(find("times").value) || 4);
  const unit = find("uniform").checked ? uniform(map) : 0;
  if (unit > 0) {
    const log = find("log").checked, negative = Math.sign(map.range[0]) === -1 || data.always_diverging;
    if (negative) return { low: -most * unit, high: most * unit, log: false, unit, table: tables.diverging };
    return { low: log ? unit / most : 0, high: most * unit, log, unit, table: tables.sequential };
  }
  if (Math.sign(low) === -1 || data.always_diverging) {
    const reach = Math.max(Math.abs(low), Math.abs(high));
    return { low: -reach, high: reach, log: false, table: tables.diverging };
  }
  const log = find("log").checked ? high > 0 : false;
  if (log) {
    const least = low > 0 ? low : finite.filter((v) => v > 0).reduce((a, b) => Math.min(a, b), high);
    low = Math.max(least, high * 1e-6);
  }
  return { low, high, log, table: tables.sequential };
}

function place(scale, value) {
  if (!(scale.high > scale.low)) return 0.5;
  const share = scale.log
    ? Math.log(Math.max(value, scale.low) / scale.low) / Math.log(scale.high / scale.low)
    : (value - scale.low) / (scale.high - scale.low);
  return Math.min(1, Math.max(0, share));
}

function draw(figure, map) {
  const scale = scaleOf(map);
  const canvas = figure.querySelector("canvas");
  const brush = canvas.getContext("2d");
  const pixels = brush.createImageData(canvas.width, canvas.height);
  map.values.slice(map.prefix).forEach((value, at) => {
    const last = scale.table.length - 1;
    const color = value === null ? [128, 128, 128] : scale.table[Math.round(place(scale, value) * last)];
    pixels.data.set([...color, 255], 4 * at);
  });
  brush.putImageData(pixels, 0, 0);
  canvas.style.opacity = find("opacity").value;
  const stops = Array.from({ length: 17 }, (_, i) =>
    "rgb(" + scale.table[Math.round(i / 16 * (scale.table.length - 1))].join(" ") + ")");
  figure.querySelector(".ramp").style.background = "linear-gradient(to right, " + stops.join(", ") + ")";
  const middle = scale.log ? Math.sqrt(scale.low * scale.high) : (scale.low + scale.high) / 2;
  // Beside the other end of a linear scale a trace is zero.
  const low = scale.log || Math.abs(scale.low) > scale.high * 1e-4 ? scale.low : 0;
  const numbers = scale.high > scale.low ? [low, middle, scale.high] : ["", scale.low, ""];
  figure.querySelectorAll(".numbers span").forEach((span, at) => {
    span.textContent = numbers[at] === "" ? "" : scale.unit ? times(numbers[at], scale.unit) : text(numbers[at]);
  });
}

function point(figure, map, event) {
  const frame = figure.querySelector(".frame").getBoundingClientRect();
  const [rows, columns] = map.grid;
  const cell = (offset, size, count) => Math.min(count - 1, Math.max(0, Math.floor(offset / size * count)));
  const row = cell(event.clientY - frame.top, frame.height, rows);
  const column = cell(event.clientX - frame.left, frame.width, columns);
  const value = map.values[map.prefix + row * columns + column];
  figure.querySelector(".value").textContent = "row " + row + ", column " + column + ": " + text(value) +
    (value === null || uniform(map) === 0 ? "" : ", " + times(value, uniform(map)) + " uniform");
}

const figures = Array.from(document.querySelectorAll("figure"));
function drawAll() {
  find("percent").textContent = Math.round(100 * find("opacity").value) + " %";
  figures.forEach((figure, at) => draw(figure, data.maps[at]));
}
figures.forEach((figure, at) => {
  const frame = figure.querySelector(".frame");
  const rest = figure.querySelector(".value").textContent;
  ["pointermove", "pointerdown"].forEach((kind) =>
    frame.addEventListener(kind, (event) => point(figure, data.maps[at], event)));
  frame.addEventListener("pointerleave", (event) => {
    // A finger that is lifted leaves the value to be read.
    if (event.pointerType === "mouse") figure.querySelector(".value").textContent = rest;
  });
});
["opacity", "log", "shared", "uniform", "times"].forEach((id) => find(id).addEventListener("input", drawAll));
drawAll();
