"use strict";
// Elements and numbers. Records come from strangers: every text reaches the page through textContent or setAttribute,
// never as markup.
const MISSING = "–";
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "line", "path", "circle", "rect", "text", "title", "polyline"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null).map((c) => (c instanceof Node ? c : String(c))));
  return element;
}
const sub = (text, extra = "") => make("span", { class: "sub " + extra }, text);
const known = (value) => value !== null && value !== undefined;
const fixed = (value, digits) =>
  known(value)
    ? value
        .toFixed(digits)
        .replace(/^-(?=0(\.0*)?$)/, "")
        .replace("-", "−")
    : MISSING;
const shortly = (value) =>
  (value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-4)
    ? value.toExponential(1)
    : `${+value.toPrecision(4)}`
  )
    .replace("e+", "e")
    .replaceAll("-", "−");
const percent = (value, digits = 1) => fixed(known(value) ? 100 * value : null, digits);
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const pValue = (p) =>
  !known(p) ? MISSING : p === 0 ? "0" : p >= 0.001 ? p.toFixed(3) : p.toExponential(0).replace("-", "−");
const of = (count) => `${count.hits} of ${count.trials}`;
const interval = (found, said) =>
  known(found.low) ? ` (95 %: ${said(found.low)} to ${said(found.high)}` : " (no interval";
const proportion = (count) =>
  `${of(count)} = ${percent(count.hits / count.trials)} %${interval(count, percent)}` +
  `${known(count.low) ? " %" : ": they share fewer than five networks"})`;
const ranks = (found) => (found.low === found.high ? `${found.low}` : `${found.low}–${found.high}`);
const mean = (found, digits, unit) =>
  [
    `${fixed(found.mean, digits)}${unit} (Student-t `,
    known(found.low) ? `${fixed(found.low, digits)} to ${fixed(found.high, digits)}` : MISSING,
    `); seeds ${found.values.map((value) => fixed(value, digits)).join(", ")}`,
  ].join("");
const bounds = (found) => found.values.map(([pp, more]) => (more ? "> " : "") + fixed(pp, 1)).join(", ");
const protection = (found) =>
  (found.others
    ? `${fixed(found.advantage, 3)} = mean of ${of(found)} owners told yes and ${found.refused} of ${found.others} ` +
      "held-out users told no, less one half; "
    : `${fixed(found.advantage, 3)} = ${of(found)} right, less the chance ${fixed(found.chance, 3)} of guessing` +
      `${interval(found, (value) => fixed(value, 3))}); `) +
  (known(found.normalised) ? `normalised ${fixed(found.normalised, 3)}` : "guessing is always right");
// A chain of attacks is read from left to right; what is searched and linked is its name as typed.
const chain = (label) =>
  label
    .split("+")
    .map((step) => step.replace("=", " "))
    .join(" → ");
const duration = (s) =>
  s < 120 ? `${shortly(+s.toPrecision(2))} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
const units = (row) => (row.owners > 1 ? "claims" : "seeds");
