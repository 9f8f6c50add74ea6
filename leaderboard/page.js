"use strict";
// Records come from strangers: every text reaches the page through textContent or setAttribute, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
// What a profile's numbers are worth; those of the demonstrations are listed by name, never ranked.
const WORTH = {
  standard: "Full data on one GPU, with a modern schedule: compare schemes here.",
  paper: "Each paper's own hyper-parameters: for reproducing claims, not for comparing schemes.",
  small: "A subset of real images on a CPU: differences of a few points mean little.",
  quick: "A demonstration on tiny networks and digits: rows are listed by name, never ranked.",
  smoke: "A check that everything runs: the numbers mean nothing, and rows are never ranked.",
};
const DEMONSTRATIONS = ["quick", "smoke"];
const PROFILES = Object.keys(WORTH);
const FILTERS = ["dataset", "carrier", "access", "arch", "attack"];
const MISSING = "–";
const byId = (id) => document.getElementById(id);

// ---- elements and numbers ---------------------------------------------------------------------------------------
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "line", "path", "circle", "rect", "text", "title"].includes(tag);
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
  (value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-4) ? value.toExponential(1) : `${+value.toPrecision(4)}`)
    .replace("e+", "e")
    .replaceAll("-", "−");
const percent = (value, digits = 1) => fixed(known(value) ? 100 * value : null, digits);
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const pValue = (p) =>
  !known(p) ? MISSING : p === 0 ? "0" : p >= 0.001 ? p.toFixed(3) : p.toExponential(0).replace("-", "−");
const of = (count) => `${count.hits} of ${count.trials}`;
const interval = (found, said) => (known(found.low) ? ` (Wilson ${said(found.low)} to ${said(found.high)}` : " (no interval");
const wilson = (count) =>
  `${of(count)} = ${percent(count.hits / count.trials)} %${interval(count, percent)}${known(count.low) ? " %" : ": they share a network"})`;
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
const units = (row) => (row.owners > 1 ? "claims" : "seeds");

// ---- columns ----------------------------------------------------------------------------------------------------
const hardness = (row) => (state.attack ? (row.attacks[state.attack] || {}).survival : row.robustness) || null;
const removal = (row) => (state.attack ? (row.attacks[state.attack] || {}).removal : row.removal) || null;
const rate = (count) => (count ? count.hits / count.trials : null);
const text = (id, label) => ({
  id,
  label,
  value: (row) => row[id],
  cell: (row) => ({ parts: [row[id] ?? MISSING], kind: "tag" }),
});

function stateCell(count, lines, tip) {
  if (!count) return { parts: [MISSING], kind: "num missing", tip };
  const kind = count.hits === count.trials ? "all" : count.hits === 0 ? "none" : "some";
  const glyph = { all: "● ", some: "◐ ", none: "○ " }[kind];
  return {
    parts: [make("span", { class: "pill" }, glyph + of(count)), ...lines.map((line) => sub(line))],
    kind: "num state " + kind,
    tip,
  };
}

function schemeCell(row) {
  const badges = [];
  for (const [status, word] of [
    ["failed", "failed"],
    ["not applicable", "n/a"],
  ]) {
    const found = row.problems.filter((problem) => problem.status === status);
    const cells = found.reduce((sum, problem) => sum + problem.seeds.length, 0);
    const why = found.map((p) => `${p.attack}: ${p.reason}`).join("\n");
    if (cells)
      badges.push(
        make(
          "span",
          { class: `badge ${status === "failed" ? "fail" : ""}`, title: why },
          `${plural(cells, "cell")} ${word}`,
        ),
        " ",
      );
  }
  if (row.warnings.length) badges.push(make("span", { class: "badge warn", title: row.warnings.join("\n") }, "mixed"));
  const tags = [row.carrier, row.access, row.arch, row.dataset, row.situation, plural(row.seeds.length, "seed")].map(
    (t) => t ?? MISSING,
  );
  const button = make(
    "button",
    { type: "button", class: "name", "aria-expanded": String(state.row === row.id) },
    row.scheme,
  );
  return {
    parts: [
      button,
      row.variant ? sub(row.variant, "wrap") : null,
      sub(tags.join(" · "), "only-narrow"),
      badges.length ? make("span", { class: "badges" }, ...badges) : null,
    ],
    kind: "wide",
  };
}

const coverage = (found) => `${found.covered} of ${plural(found.of, "attack")}`;

function robustnessCell(row) {
  const found = hardness(row);
  const one = state.attack && row.attacks[state.attack];
  if (one && one.status !== "ok") {
    const word = one.status === "failed" ? "✕ failed" : "n/a";
    return { parts: [word], kind: "num missing", tip: reasons(row, one.name) };
  }
  const lines = found && !state.attack ? [coverage(found), `mean ${percent(found.mean, 0)} %`] : [];
  const failed = state.attack ? 0 : Object.values(row.attacks).filter((attack) => attack.status === "failed").length;
  if (failed) lines.push(`${plural(failed, "attack")} failed`);
  if (found && found.undecided) lines.push(`${found.undecided} undecided`);
  return stateCell(
    found,
    lines,
    found
      ? `survives ${wilson(found)}${state.attack ? "" : `, over ${coverage(found)}: ${found.attacks.join(", ")}`}`
      : "no attack of this row has been judged",
  );
}

function removalCell(row) {
  const found = removal(row);
  if (!found) return { parts: [MISSING], kind: "num missing" };
  return {
    parts: [(found.more ? "> " : "") + fixed(found.pp, 1)],
    kind: "num",
    tip: `each of the decided ${units(row)}: ${bounds(found)} points`,
  };
}

function securityCell(row) {
  const count = row.security && row.security.clean;
  if (!count) return { parts: [MISSING], kind: "num missing" };
  const over = count.beyond;
  const parts = [
    make("span", { class: over ? "over" : "" }, `${over ? "▲ " : ""}${count.hits}/${count.trials}`),
    sub(`${percent(count.low)}–${percent(count.high)} %`),
  ];
  return { parts, kind: "num", tip: securityText(row).join("\n") };
}

function meanCell(found, digits, suffix) {
  if (!found) return { parts: [MISSING], kind: "num missing" };
  const half = known(found.low) ? fixed((found.high - found.low) / 2, digits) : MISSING;
  return {
    parts: [fixed(found.mean, digits) + suffix, sub(`± ${half}`)],
    kind: "num",
    tip: mean(found, digits, suffix),
  };
}

function protectionCell(row) {
  const found = row.protection;
  if (!found) return { parts: [MISSING], kind: "num missing" };
  const heldout = found.others ? ` · ${found.refused} of ${found.others}` : "";
  return { parts: [fixed(found.advantage, 2), sub(of(found) + heldout)], kind: "num", tip: protection(found) };
}

const COLUMNS = [
  { id: "scheme", label: "Scheme", value: (row) => row.scheme, cell: schemeCell },
  text("carrier", "Carrier"),
  text("access", "Access"),
  text("arch", "Arch"),
  text("dataset", "Data set"),
  text("situation", "Situation"),
  {
    id: "seeds",
    label: "Seeds",
    number: true,
    value: (row) => row.seeds.length,
    cell: (row) => ({ parts: [row.seeds.length], kind: "num tag" }),
  },
  {
    id: "fidelity",
    label: "Fidelity",
    unit: "pp",
    number: true,
    value: (row) => row.fidelity && row.fidelity.mean,
    cell: (row) => meanCell(row.fidelity, 2, ""),
  },
  {
    id: "effectiveness",
    label: "Effective",
    unit: "detected",
    number: true,
    value: (row) => rate(row.effectiveness),
    cell: (row) => stateCell(row.effectiveness, [], row.effectiveness && `detected ${wilson(row.effectiveness)}`),
  },
  {
    id: "protection",
    label: "Protection",
    unit: "advantage",
    number: true,
    value: (row) => row.protection && row.protection.advantage,
    cell: protectionCell,
  },
  {
    id: "evidence",
    label: "Evidence",
    unit: "p-value",
    number: true,
    up: true,
    value: (row) => row.evidence.p_value,
    cell: (row) => ({
      parts: [pValue(row.evidence.p_value), known(row.evidence.ber) ? sub(`BER ${percent(row.evidence.ber)} %`) : null],
      kind: "num",
    }),
  },
  {
    id: "robustness",
    label: "Robustness",
    unit: "survives",
    number: true,
    // A worst case over few attacks is an easy one: coverage first, then survival, then the cost of removal.
    value: (row) => rate(hardness(row)),
    before: (row) => (hardness(row) && !state.attack ? hardness(row).covered : 0),
    after: (row) => (removal(row) ? removal(row).pp : -1),
    cell: robustnessCell,
  },
  {
    id: "removal",
    label: "Removal",
    unit: "pp",
    number: true,
    value: (row) => removal(row) && removal(row).pp + (removal(row).more ? 1e-6 : 0),
    cell: removalCell,
  },
  {
    id: "security",
    label: "False claims",
    unit: "fresh keys",
    number: true,
    up: true,
    value: (row) => row.security && rate(row.security.clean),
    cell: securityCell,
  },
  {
    id: "embedding",
    label: "Embedding",
    unit: "× training",
    number: true,
    up: true,
    value: (row) => row.embed_ratio && row.embed_ratio.mean,
    cell: (row) => meanCell(row.embed_ratio, 2, "×"),
  },
];
const natural = (column) => (column.number && !column.up ? "down" : "up");
const METRICS = COLUMNS.findIndex((column) => column.id === "fidelity");
const reasons = (row, attack) =>
  row.problems
    .filter((p) => !attack || p.attack === attack)
    .map((p) => `${p.attack}: ${p.status}: ${p.reason}`)
    .join("\n");
const shown = () => COLUMNS.filter((column) => column.id !== "dataset" || !state.dataset);

// ---- state, which lives in the URL ------------------------------------------------------------------------------
const defaults = {
  profile: "",
  dataset: "",
  carrier: "",
  access: "",
  arch: "",
  attack: "",
  q: "",
  sort: "",
  order: "",
  row: "",
  curves: "",
};
let state = { ...defaults };
const place = (name) => (PROFILES.includes(name) ? PROFILES.indexOf(name) : PROFILES.length);
const profiles = [...new Set(data.rows.map((row) => row.profile))].sort(
  (a, b) => place(a) - place(b) || a.localeCompare(b),
);
const inProfile = () => data.rows.filter((row) => row.profile === state.profile);
const attacksOf = (found) => [...new Set(found.flatMap((row) => Object.keys(row.attacks)))].sort();
const judged = () => [...new Set(inProfile().flatMap((row) => (row.robustness ? row.robustness.attacks : [])))].sort();
const drawn = (found) =>
  attacksOf(found).filter((attack) => found.some((row) => row.attacks[attack] && row.attacks[attack].curves.length));

function options(name) {
  if (name === "attack") return attacksOf(inProfile());
  return [
    ...new Set(
      inProfile()
        .map((row) => row[name])
        .filter(known),
    ),
  ].sort();
}

const sorting = () => state.sort || (DEMONSTRATIONS.includes(state.profile) ? "scheme" : "robustness");
const ordering = () => state.order || natural(COLUMNS.find((column) => column.id === sorting()));

function settle() {
  if (!profiles.includes(state.profile)) state.profile = profiles[0] || "";
  for (const name of FILTERS) if (!options(name).includes(state[name])) state[name] = "";
  if (!COLUMNS.some((column) => column.id === state.sort)) state.sort = state.order = "";
  if (!["up", "down"].includes(state.order)) state.order = "";
  if (!inProfile().some((row) => row.id === state.row)) state.row = "";
  if (!drawn(inProfile()).includes(state.curves))
    state.curves =
      state.attack && drawn(inProfile()).includes(state.attack) ? state.attack : drawn(inProfile())[0] || "";
}

function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = { ...defaults };
  for (const name of Object.keys(defaults)) if (given.has(name)) state[name] = given.get(name);
  settle();
}

function writeHash() {
  const kept = new URLSearchParams(Object.entries(state).filter(([name, value]) => value !== defaults[name]));
  history.replaceState(null, "", "#" + kept);
}

function change(update) {
  Object.assign(state, update);
  settle();
  writeHash();
  draw();
}

// ---- table ------------------------------------------------------------------------------------------------------
const haystack = (row) =>
  [
    row.scheme,
    row.variant,
    row.carrier,
    row.access,
    row.arch,
    row.dataset,
    row.situation,
    ...Object.keys(row.attacks),
    ...Object.entries(row.params).map((pair) => pair.join("=")),
    reasons(row),
  ]
    .join(" ")
    .toLowerCase();

function visible() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const found = inProfile().filter(
    (row) =>
      FILTERS.every(
        (name) => !state[name] || (name === "attack" ? row.attacks[state.attack] : row[name] === state[name]),
      ) && words.every((word) => haystack(row).includes(word)),
  );
  const sign = ordering() === "down" ? -1 : 1;
  const column = COLUMNS.find((each) => each.id === sorting());
  const compare = (a, b, value) => {
    const [x, y] = [value(a), value(b)];
    if (!known(x) || !known(y)) return known(y) - known(x);
    return sign * (typeof x === "number" ? x - y : x.localeCompare(y));
  };
  return found.sort(
    (a, b) =>
      baseline(a) - baseline(b) ||
      (column.before && known(column.value(a)) && known(column.value(b)) && compare(a, b, column.before)) ||
      compare(a, b, column.value) ||
      (column.after && compare(a, b, column.after)) ||
      a.scheme.localeCompare(b.scheme) ||
      a.id.localeCompare(b.id),
  );
}

// Baselines mark nothing: what they detect is what a network gives away anyway.
const baseline = (row) => row.carrier === "none";

function baselineRow() {
  const words = "Baselines, which mark nothing: what networks give away of their training data without a watermark";
  const cell = make("td", { role: "cell", class: "group", colspan: shown().length }, words);
  return make("tr", { role: "row", class: "group" }, cell);
}

function header() {
  const cells = shown().map((column) => {
    const active = sorting() === column.id;
    const order = active ? (ordering() === "up" ? "down" : "up") : natural(column);
    const button = make("button", { type: "button", "data-sort": column.id }, column.label);
    button.addEventListener("click", () => {
      change({ sort: column.id, order });
      document.querySelector(`[data-sort="${column.id}"]`).focus();
    });
    const sorted = active ? (ordering() === "up" ? "ascending" : "descending") : null;
    return make(
      "th",
      { scope: "col", role: "columnheader", class: column.number ? "num" : "", "aria-sort": sorted },
      button,
      column.unit ? sub(column.unit) : null,
    );
  });
  return make("tr", { role: "row" }, ...cells);
}

function tableRow(row) {
  const idle = row.status !== "ok";
  const cells = shown()
    .filter((column) => !idle || COLUMNS.indexOf(column) < METRICS)
    .map((column) => {
      const { parts, kind, tip } = column.cell(row);
      return make(
        "td",
        {
          role: "cell",
          class: kind,
          title: tip || null,
          "data-label": column.label + (column.unit ? `, ${column.unit}` : ""),
        },
        ...parts,
      );
    });
  if (idle)
    cells.push(
      make(
        "td",
        { role: "cell", class: `why wide ${row.status}`, colspan: COLUMNS.length - METRICS, title: reasons(row) },
        `${row.status === "failed" ? "✕ failed" : "– not applicable"}: ${row.problems[0].reason}`,
      ),
    );
  const element = make(
    "tr",
    { role: "row", class: "row" + (state.row === row.id ? " open" : ""), "data-id": row.id },
    ...cells,
  );
  element.addEventListener("click", () => {
    if (String(getSelection())) return;
    change({ row: state.row === row.id ? "" : row.id });
    const again = document.querySelector(`tr[data-id="${row.id}"] .name`);
    if (again) again.focus({ preventScroll: true });
  });
  return element;
}

// ---- what a row hides -------------------------------------------------------------------------------------------
function securityText(row) {
  const { clean, attacked, forged } = row.security || {};
  return [
    clean && `fresh keys accepted on clean hosts: ${wilson(clean)}`,
    attacked &&
      `after the attacks: ${of(attacked)} = ${percent(attacked.hits / attacked.trials)} %, all rungs together`,
    forged && `forged claims accepted at some rung: ${wilson(forged)}`,
  ].filter(Boolean);
}

const inUnit = (unit) => (unit ? ` ${unit}` : "");
const ofUnit = (unit) => (unit ? ` (${unit})` : "");
const heldoutText = ({ users, inferred, unit, unmarked, detected }) =>
  [
    plural(users, "user"),
    inferred &&
      `inferred mean |k| = ${shortly(inferred.mean)}${inUnit(unit)}` +
        (known(inferred.low) ? ` (Student-t over users, ${shortly(inferred.low)} to ${shortly(inferred.high)})` : ""),
    unmarked && `${of(unmarked)} infer no watermark (0)`,
    detected && `${of(detected)} wrongly detected`,
  ]
    .filter(Boolean)
    .join("; ");

function facts(pairs) {
  const kept = pairs.filter(([, value]) => known(value) && value !== "");
  return make(
    "dl",
    { class: "facts" },
    ...kept.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );
}

const block = (title, ...children) => make("div", { class: "block" }, make("h3", {}, title), ...children);

function numbers(row) {
  const survived = Object.entries(row.attacks).filter(([, attack]) => attack.survival);
  return block(
    "Numbers",
    facts([
      ["Fidelity", row.fidelity && mean(row.fidelity, 2, " pp")],
      ["Effectiveness", row.effectiveness && wilson(row.effectiveness)],
      ["Protection", row.protection && protection(row.protection)],
      ["Held-out users", row.heldout && heldoutText(row.heldout)],
      ["Worst case", row.robustness && `survives ${wilson(row.robustness)}, over ${coverage(row.robustness)}; ${row.robustness.undecided} undecided`],
      ...survived.map(([label, attack]) => [`Under ${label}`, `survives ${wilson(attack.survival)}`]),
      ["Removal cost", row.removal && `${bounds(row.removal)} pp, one for each of the decided ${units(row)}`],
      ["False claims", securityText(row).join("; ")],
      ["Capacity", row.capacity && mean(row.capacity, 0, " bits without an error, for one point at most")],
      ["Embedding", row.embed_ratio && mean(row.embed_ratio, 2, "×")],
      [
        "Parameters",
        Object.entries(row.params)
          .map((pair) => pair.join(" = "))
          .join(", "),
      ],
    ]),
  );
}

function problems(row) {
  if (!row.problems.length && !row.warnings.length) return null;
  const items = row.problems.map((p) =>
    make("li", {}, make("b", {}, `${p.attack}, seed ${p.seeds.join(", ")}: ${p.status}`), ` ${MISSING} ${p.reason}`),
  );
  items.push(...row.warnings.map((warning) => make("li", {}, make("b", {}, "mixed"), ` ${MISSING} ${warning}`)));
  return block("Cells without numbers, and warnings", make("ul", { class: "reasons" }, ...items));
}

function commands(row) {
  return block(
    "Reproduce",
    ...row.commands.map((command) => {
      const button = make("button", { type: "button" }, "Copy");
      const code = make("code", {}, command);
      button.addEventListener("click", () => copy(code, button));
      return make("div", { class: "command" }, code, button);
    }),
  );
}

function copy(code, button) {
  getSelection().selectAllChildren(code);
  const done = document.execCommand("copy");
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  if (done) getSelection().removeAllRanges();
}

function provenance(row) {
  const all = row.environments.map((i) => data.environments[i]);
  const distinct = (pick) => [...new Set(all.map(pick).filter(Boolean))].join(" | ");
  return block(
    "Provenance",
    facts([
      [
        "Revision",
        distinct((e) =>
          e.git_revision ? e.git_revision.slice(0, 12) + (e.git_dirty ? " (with uncommitted changes)" : "") : "unknown",
        ),
      ],
      ["Finished", [...new Set(row.finished)].join(" to ")],
      ["Device", distinct((e) => `${e.device}, ${plural(e.threads, "thread")}`)],
      ["Data", distinct((e) => e.data_checksum.slice(0, 24))],
      ["Harness", distinct((e) => e.bench_version)],
      ["Python", distinct((e) => e.python)],
      ["Platform", distinct((e) => e.platform)],
      [
        "Packages",
        distinct((e) =>
          Object.entries(e.packages)
            .map((pair) => pair.join(" "))
            .join(", "),
        ),
      ],
    ]),
  );
}

function detail(row) {
  const curves = Object.entries(row.attacks)
    .filter(([, attack]) => attack.curves.length)
    .map(([label, attack]) =>
      block(
        `${label}: what each seed shows`,
        make("div", { class: "panels" }, ...attackCharts(row, attack)),
        ...(attack.searches.length ? rungSearches(attack) : []),
      ),
    );
  const found = [searches(row), ...curves, histories(row)];
  const inner = make("div", { class: "inner" }, ...found, problems(row), numbers(row), commands(row), provenance(row));
  const cell = make("td", { role: "cell", colspan: shown().length }, inner);
  return make("tr", { role: "row", class: "detail" }, cell);
}

// ---- curves -----------------------------------------------------------------------------------------------------
function ticks(low, high, wanted = 4) {
  const step = 10 ** Math.floor(Math.log10((high - low) / wanted || 1));
  const size = [1, 2, 2.5, 5, 10].map((m) => m * step).find((s) => (high - low) / s <= wanted + 0.5) || step;
  const found = [];
  for (let i = Math.ceil(low / size - 1e-9); i * size <= high + size * 1e-9; i++)
    found.push(+(i * size).toPrecision(10));
  return found;
}

// Ladders that span more than 50-fold are spaced evenly: their lower rungs would fall together otherwise.
function strengths(curves) {
  const all = [...new Set(curves.flatMap((curve) => curve.strength))].sort((a, b) => a - b);
  const positive = all.filter((x) => x > 0);
  const even = positive.length > 2 && positive[positive.length - 1] / positive[0] > 50;
  const at = (x) =>
    even ? all.indexOf(x) / Math.max(1, all.length - 1) : (x - all[0]) / (all[all.length - 1] - all[0] || 1);
  const marks = even
    ? all.filter((_, i) => i % Math.ceil(all.length / 6) === 0)
    : ticks(all[0], all[all.length - 1], 5);
  return { at, marks };
}

function frame({ label, axis, at, marks, unit, size = [300, 150, 38] }) {
  const [width, height, left] = size;
  const [right, top, bottom] = [8, 8, 32];
  const x = (value) => left + at(value) * (width - left - right);
  const y = (value) => height - bottom - ((value - axis.low) / (axis.high - axis.low || 1)) * (height - top - bottom);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of axis.ticks)
    svg.append(
      make("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      make("text", { x: left - 5, y: y(tick) + 3.5, "text-anchor": "end" }, axis.label(tick)),
    );
  for (const mark of marks)
    svg.append(make("text", { x: x(mark), y: height - bottom + 13, "text-anchor": "middle" }, mark));
  svg.append(make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, unit));
  return { svg, x, y, left, right: width - right, top, bottom: height - bottom };
}

const line = (points) =>
  points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
const figure = (title, note, svg) =>
  make("figure", { class: "panel" }, make("figcaption", {}, title, note ? sub(note) : null), svg);

const SMALL = [200, 120, 32]; // of charts that come by the dozen
const small = (charts) => make("div", { class: "panels small" }, ...charts);

function chart({ title, note, curves, unit, values, axis, limits, tips }) {
  const label = `${title} against strength in ${unit}, ${plural(curves.length, "seed")}`;
  const { svg, x, y, left, right } = frame({ label, axis, unit: unit || "strength", ...strengths(curves) });
  for (const limit of limits.filter((each) => each.at > axis.low && each.at < axis.high))
    svg.append(
      make("line", { class: "limit", x1: left, x2: right, y1: y(limit.at), y2: y(limit.at) }),
      make("text", { x: left + 3, y: y(limit.at) + limit.shift }, limit.label),
    );
  for (const curve of curves) {
    const found = values(curve)
      .map((value, i) => ({ value, i }))
      .filter((each) => known(each.value));
    svg.append(make("path", { class: "seed", d: line(found.map(({ value, i }) => [x(curve.strength[i]), y(value)])) }));
    for (const { value, i } of found) {
      const kind = curve.hits[i] === curve.trials[i] ? "on" : curve.hits[i] === 0 ? "off" : "part";
      svg.append(
        make(
          "circle",
          { class: kind, r: 2.6, cx: x(curve.strength[i]).toFixed(1), cy: y(value).toFixed(1) },
          make("title", {}, tips(curve, i)),
        ),
      );
    }
  }
  return figure(title, note, svg);
}

const tip = (unit) => (curve, i) =>
  `seed ${curve.seed}, ${curve.strength[i]} ${unit}: ${curve.hits[i]} of ${curve.trials[i]} detected, ` +
  `p ${pValue(curve.p_value[i])}, accuracy ${percent(curve.accuracy[i])} %` +
  (known(curve.ber[i]) ? `, BER ${percent(curve.ber[i])} %` : "");
const flat = (curves, values) => curves.flatMap(values).filter(known);

function linear(values, { low = null, high = null, label = String } = {}) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const pad = (most - least) * 0.06 || Math.abs(most) * 0.05 || 1;
  const bottom = known(low) ? low : least - pad;
  const up = known(high) ? high : most + pad;
  return { low: bottom, high: up, ticks: ticks(bottom, up), label };
}

function pAxis(curves) {
  const least = Math.min(...flat(curves, (curve) => curve.p_value).map((p) => (p > 0 ? p : 1e-300)));
  const high = Math.min(30, Math.max(3, Math.ceil(-Math.log10(least))));
  const marks = ticks(0, high).filter(Number.isInteger);
  const capped = -Math.log10(least) > high;
  const label = (e) => (e === 0 ? "1" : `${capped && e === high ? "≤" : ""}1e−${e}`);
  return { low: 0, high, ticks: marks, label };
}

const accuracies = (curve) => curve.accuracy.map((a) => (known(a) ? 100 * a : null));
const budgetLine = (curves) => {
  const marked = curves.map((curve) => curve.accuracy[0]).filter(known);
  return marked.length
    ? [
        {
          at: (100 * marked.reduce((a, b) => a + b, 0)) / marked.length - data.budget_pp,
          label: `${data.budget_pp} points below`,
          shift: 11,
        },
      ]
    : [];
};

function attackCharts(row, attack) {
  const curves = attack.curves;
  const common = { curves, unit: attack.unit, tips: tip(attack.unit), limits: [] };
  const axis = pAxis(curves);
  const forged = attack.stage === "evidence" ? "of the forged claim" : "higher is stronger evidence";
  const charts = [
    chart({
      ...common,
      title: "p-value",
      note: `(log) ${forged}`,
      axis,
      limits: [{ at: -Math.log10(data.fpr), label: `detected above: p ≤ ${data.fpr}`, shift: -3 }],
      values: (curve) =>
        curve.p_value.map((p) => (known(p) ? Math.min(axis.high, -Math.log10(Math.max(p, 1e-300))) : null)),
    }),
  ];
  if (flat(curves, accuracies).length)
    charts.push(
      chart({
        ...common,
        title: "Test accuracy",
        note: "%",
        axis: linear(flat(curves, accuracies)),
        values: accuracies,
        limits: budgetLine(curves),
      }),
    );
  const errors = (curve) => curve.ber.map((b) => (known(b) ? 100 * b : null));
  if (flat(curves, errors).length)
    charts.push(
      chart({
        ...common,
        title: "Bit error rate",
        note: "%",
        axis: linear(flat(curves, errors), { low: 0, high: Math.max(50, ...flat(curves, errors)) }),
        values: errors,
      }),
    );
  else
    charts.push(
      chart({
        ...common,
        title: "Statistic",
        note: "in the scheme's own unit",
        axis: linear(flat(curves, (c) => c.statistic)),
        values: (curve) => curve.statistic,
      }),
    );
  return charts;
}

// ---- signatures and histories -----------------------------------------------------------------------------------
// Angles get quarters of a circle where they span more than one.
function signatures(found) {
  const all = found.flatMap((search) => data.spaces[search.candidates].concat(search.true ?? []));
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const quarters = found[0].unit === "degrees" && most - least > 180 && Math.max(-least, most) <= 720;
  const marks = quarters
    ? Array.from({ length: 17 }, (_, i) => 90 * (i - 8)).filter((k) => k >= least && k <= most)
    : least === most
      ? [least]
      : ticks(least, most, 5);
  return { at: (k) => (least === most ? 0.5 : (k - least) / (most - least)), marks };
}

const verdictOf = (search, own) =>
  [
    `least loss ${shortly(search.losses[search.best])} at ${shortly(best(search))}${inUnit(search.unit)}`,
    known(search.inferred) && `inferred ${shortly(search.inferred)}`,
    own && known(search.true) && `own ${shortly(search.true)}`,
    own && known(search.matched) && (search.matched ? "a match" : "no match"),
  ]
    .filter(Boolean)
    .join(", ");
const best = (search) => data.spaces[search.candidates][search.best];
const flatLosses = (found) => found.flatMap((search) => search.losses);

// One line a search, each with a square at its least loss, and a dashed line at the owner's own signature.
function searchChart({ title, note, found, axis, names, fading = false, own = true }) {
  const label = `${title}: mean loss against the signature${ofUnit(found[0].unit)}. ${found
    .map((search, i) => `${names[i]}: ${verdictOf(search, own)}`)
    .join("; ")}`;
  const unit = `signature${ofUnit(found[0].unit)}`;
  const { svg, x, y, top, bottom } = frame({ label, axis, unit, size: SMALL, ...signatures(found) });
  for (const k of new Set(own ? found.map((search) => search.true).filter(known) : []))
    svg.append(make("line", { class: "own", x1: x(k), x2: x(k), y1: top, y2: bottom }));
  found.forEach((search, i) => {
    const points = data.spaces[search.candidates].map((k, j) => [x(k), y(search.losses[j])]);
    const opacity = fading ? (0.3 + (0.7 * (i + 1)) / found.length).toFixed(2) : null;
    svg.append(make("path", { class: own ? "loss" : "seed", d: line(points), "stroke-opacity": opacity }));
  });
  found.forEach((search, i) => {
    const [left, up] = [x(best(search)) - 3, y(search.losses[search.best]) - 3];
    const kind = !own || !known(search.matched) ? "idle" : search.matched ? "on" : "off";
    const place = { x: left.toFixed(1), y: up.toFixed(1), width: 6, height: 6 };
    svg.append(make("rect", { class: kind, ...place }, make("title", {}, `${names[i]}: ${verdictOf(search, own)}`)));
  });
  return figure(title, note, svg);
}

const searchLegend = () =>
  make(
    "p",
    { class: "legend" },
    make("span", {}, make("span", { class: "rule own" }), " the owner's own signature"),
    make("span", {}, make("span", { class: "dot square on" }), " least loss, a match"),
    make("span", {}, make("span", { class: "dot square off" }), " least loss, no match"),
  );
const andMore = (n, what) => (n ? make("p", { class: "sub" }, `and ${n} more ${what}`) : null);

function searches(row) {
  const found = row.searches;
  if (!found) return null;
  const { owners, heldout } = found;
  const name = (each) => (row.seeds.length > 1 ? `seed ${each.seed}, ` : "") + `owner ${each.owner}`;
  const axis = linear(flatLosses([...owners, ...heldout]), { label: shortly });
  const charts = owners.map((each) => {
    const own = known(each.true) ? `own ${shortly(each.true)}` : "";
    return searchChart({ title: name(each), note: own, found: [each], axis, names: [name(each)] });
  });
  if (heldout.length)
    charts.push(
      searchChart({
        title: plural(heldout.length + found.heldout_more, "held-out user"),
        note: found.heldout_more ? `${heldout.length} drawn` : "",
        found: heldout,
        axis,
        names: heldout.map((each) => `held-out user ${each.owner}, seed ${each.seed}`),
        own: false,
      }),
    );
  return block(
    "Mean loss over the signatures tried, on the marked models",
    searchLegend(),
    small(charts),
    andMore(found.more, found.more === 1 ? "owner" : "owners"),
  );
}

function rungSearches(attack) {
  const owners = [...new Set(attack.searches.map((each) => each.owner))];
  const axis = linear(flatLosses(attack.searches), { label: shortly });
  const charts = owners.map((owner) => {
    const found = attack.searches.filter((each) => each.owner === owner);
    return searchChart({
      title: `Owner ${owner}`,
      note: "a line per rung",
      found,
      axis,
      names: found.map((each) => `seed ${each.seed}, ${each.strength} ${attack.unit}`),
      fading: true,
    });
  });
  const what = `Mean loss over the signatures tried, first owners of seed ${attack.searches[0].seed}: the stronger the `;
  return [make("p", { class: "sub" }, what + "attack, the stronger the line."), small(charts)];
}

function historyChart({ name, lines }) {
  const last = Math.max(...lines.map((each) => each.epochs));
  const all = lines.flatMap((each) => each.values);
  const marks = last === 1 ? [1] : [1, ...ticks(1, last, 5).filter((epoch) => epoch % 1 === 0 && epoch > 1 + last / 12)];
  const ends = lines.map((each) => `seed ${each.seed} ends at ${shortly(each.values[each.values.length - 1])}`);
  const label = `${name} against the epoch: ${ends.join(", ")}`;
  const at = (epoch) => (last === 1 ? 0.5 : (epoch - 1) / (last - 1));
  const { svg, x, y } = frame({ label, axis: linear(all, { label: shortly }), at, marks, unit: "epoch", size: SMALL });
  lines.forEach(({ epochs, values }, i) => {
    const apart = (epochs - 1) / (values.length - 1 || 1);
    const points = values.map((value, j) => [x(1 + j * apart), y(value)]);
    const [cx, cy] = points[points.length - 1].map((place) => place.toFixed(1));
    svg.append(
      make("path", { class: "loss", d: line(points) }),
      make("circle", { class: "on", r: 2.2, cx, cy }, make("title", {}, ends[i])),
    );
  });
  return figure(name, plural(lines.length, "seed"), svg);
}

function histories(row) {
  const found = row.histories;
  if (!found) return null;
  return block(
    "Training, per epoch",
    small(found.series.map(historyChart)),
    andMore(found.more, found.more === 1 ? "history" : "histories"),
  );
}

// ---- overview ---------------------------------------------------------------------------------------------------
function overview(found) {
  const faced = found.filter(
    (row) => row.attacks[state.curves] && flat(row.attacks[state.curves].curves, accuracies).length,
  );
  const all = faced.flatMap((row) => flat(row.attacks[state.curves].curves, accuracies));
  const telling = ["variant", "arch", "dataset", "situation"].filter(
    (name) => new Set(faced.map((row) => row[name])).size > 1,
  );
  const panels = faced.slice(0, 60).map((row) => {
    const attack = row.attacks[state.curves];
    const note = telling
      .map((name) => row[name])
      .filter(Boolean)
      .join(", ");
    return chart({
      title: row.scheme,
      note,
      curves: attack.curves,
      unit: attack.unit,
      tips: tip(attack.unit),
      axis: linear(all, { label: (v) => `${v} %` }),
      values: accuracies,
      limits: budgetLine(attack.curves).map((each) => ({ ...each, label: "" })),
    });
  });
  const rest =
    faced.length > 60
      ? [make("p", { class: "empty" }, `${faced.length - 60} more rows: filter the table to see their curves.`)]
      : [];
  byId("panels").replaceChildren(...panels, ...rest);
  byId("overview").hidden = !drawn(inProfile()).length;
  if (!panels.length)
    byId("panels").replaceChildren(make("p", { class: "empty" }, "No row that is shown has curves for this attack."));
}

// ---- drawing and events -----------------------------------------------------------------------------------------
function fill(select, choices, value, all) {
  const items = (all ? [["", all]] : []).concat(choices.map((choice) => [choice, choice]));
  select.replaceChildren(...items.map(([id, label]) => make("option", { value: id }, label)));
  select.value = value;
}

function draw() {
  fill(byId("profile"), profiles, state.profile);
  for (const name of FILTERS)
    fill(byId(name), options(name), state[name], name === "attack" ? "worst case over all" : "all");
  fill(byId("curves"), drawn(inProfile()), state.curves);
  fill(
    byId("sorter"),
    COLUMNS.map((column) => column.id),
    sorting(),
  );
  if (byId("q").value !== state.q) byId("q").value = state.q;
  const found = visible();
  const board = byId("board");
  board.tHead.replaceChildren(header());
  board.tBodies[0].replaceChildren(
    ...found.flatMap((row, i) => [
      ...(baseline(row) && !(i && baseline(found[i - 1])) ? [baselineRow()] : []),
      tableRow(row),
      ...(row.id === state.row ? [detail(row)] : []),
    ]),
  );
  if (!found.length)
    board.tBodies[0].append(
      make(
        "tr",
        { role: "row" },
        make(
          "td",
          { role: "cell", class: "empty", colspan: shown().length },
          data.rows.length ? "No row fits these filters." : "No records yet: run `bench run` first.",
        ),
      ),
    );
  const faced = state.attack ? `under ${state.attack} alone` : `worst case over ${judged().join(", ") || "no attack"}`;
  byId("worth").textContent = WORTH[state.profile] || "";
  byId("count").textContent =
    `${found.length} of ${plural(inProfile().length, "row")} of profile ${state.profile || MISSING}; ` +
    `robustness: ${faced}. Click a row for its curves, command and provenance.`;
  overview(found);
}

function csv() {
  const ends = (name, found) => [
    [name, found && found.mean],
    [`${name}_low`, found && found.low],
    [`${name}_high`, found && found.high],
  ];
  const counts = (name, found) => [
    [`${name}_hits`, found && found.hits],
    [`${name}_trials`, found && found.trials],
    [`${name}_low`, found && found.low],
    [`${name}_high`, found && found.high],
  ];
  const lines = visible().map((row) => [
    ...["profile", "scheme", "variant", "carrier", "access", "arch", "dataset", "situation", "status"].map(
      (name) => [name, row[name]],
    ),
    ["fpr", data.fpr],
    ["seeds", row.seeds.length],
    ...ends("fidelity_pp", row.fidelity),
    ...counts("effectiveness", row.effectiveness),
    ["p_value", row.evidence.p_value],
    ["ber", row.evidence.ber],
    ["attack", state.attack || "worst case"],
    ...counts("robustness", hardness(row)),
    ["attacks_covered", state.attack ? null : row.robustness && row.robustness.covered],
    ["attacks_faced", state.attack ? null : row.robustness && row.robustness.of],
    ["removal_cost_pp", removal(row) && removal(row).pp],
    ["removal_cost_is_lower_bound", removal(row) && removal(row).more],
    ...counts("false_claims", row.security && row.security.clean),
    ...ends("embed_ratio", row.embed_ratio),
    ["problems", reasons(row)],
    ["protection_matches", row.protection && row.protection.hits],
    ["protection_trials", row.protection && row.protection.trials],
    ["protection_heldout_refused", row.protection && row.protection.refused],
    ["protection_heldout_users", row.protection && row.protection.others],
    ["protection_chance", row.protection && row.protection.chance],
    ["protection_advantage", row.protection && row.protection.advantage],
  ]);
  const quote = (value) => {
    if (!known(value)) return "";
    // A spreadsheet would run a text that begins like a formula.
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? "'" + value : String(value);
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const head = lines.length ? [lines[0].map(([name]) => name)] : [];
  return (
    [...head, ...lines.map((line) => line.map(([, value]) => quote(value)))]
      .map((line) => line.join(","))
      .join("\r\n") + "\r\n"
  );
}

function download() {
  const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  make("a", { href: url, download: `watermark-bench-${state.profile}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

for (const name of ["profile", ...FILTERS, "curves"])
  byId(name).addEventListener("change", (event) =>
    change({ [name]: event.target.value, ...(name === "attack" ? { curves: "" } : {}) }),
  );
byId("sorter").addEventListener("change", (event) =>
  change({ sort: event.target.value, order: natural(COLUMNS.find((c) => c.id === event.target.value)) }),
);
byId("q").addEventListener("input", (event) => change({ q: event.target.value }));
byId("clear").addEventListener("click", () => change({ ...defaults, profile: state.profile }));
byId("csv").addEventListener("click", download);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => {
  readHash();
  draw();
});
readHash();
draw();
