// The data, and what is chosen, which lives in the URL.
const data = JSON.parse(byId("data").textContent);
// What a profile's numbers are worth; those of the demonstrations are listed by name, never ranked.
const WORTH = {
  standard: "Full data on one GPU, with a modern schedule: compare schemes here.",
  paper: "Each paper's own hyper-parameters: for reproducing claims, not for comparing schemes.",
  small: "A subset of real images on a CPU: differences of a few points mean little.",
  quick: "A demonstration on tiny networks and digits: rows are listed by name, never ranked.",
  smoke: "A check that everything runs: the numbers mean nothing, and rows are never ranked.",
};
const DEMONSTRATIONS = data.demonstrations;
const PROFILES = Object.keys(WORTH);
const FILTERS = ["dataset", "carrier", "access", "arch", "attack"];
const reported = (row) => row.origin === "self-reported";
// Baselines mark nothing: what they detect is what a network gives away anyway.
const baseline = (row) => row.baseline;

// Attacks arrive as short lists, because most of the page is these.
data.rows.forEach((row, at) => {
  row.at = at;
  row.attacks = new Map(
    Object.entries(row.attacks).map(([label, [status, count, pp, more, drawn]]) => [
      label,
      { label, status, survival: known(count) ? data.counts[count] : null, removal: known(pp) ? { pp, more } : null, drawn },
    ]),
  );
});

// Details are packed, some rows together, and read when one of them is asked for. They stand at the end of the page, so
// that the table is drawn before a browser has read them.
const packs = [];
let lines = null;
const complete = new Promise((resolve) => addEventListener("DOMContentLoaded", resolve));
async function unpacked(number) {
  await complete;
  lines = lines || byId("details").textContent.split("\n");
  const bytes = Uint8Array.from(atob(lines[number]), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}
async function detailsOf(row) {
  const number = Math.floor(row.at / data.pack);
  packs[number] = packs[number] || unpacked(number);
  row.details = (await packs[number])[row.at % data.pack];
  return row.details;
}

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
const FIRST = 50; // rows drawn at once: more take longer than a reader waits
let limit = FIRST;
const distinct = (values) => [...new Set(values)].filter(known).sort();
const place = (name) => (PROFILES.includes(name) ? PROFILES.indexOf(name) : PROFILES.length);
const computed = new Set(data.rows.filter((row) => !reported(row)).map((row) => row.profile));
// A profile that only submissions know comes last, so that none of them is what the page opens with.
const profiles = distinct(data.rows.map((row) => row.profile)).sort(
  (a, b) => computed.has(b) - computed.has(a) || place(a) - place(b) || a.localeCompare(b),
);

// What one profile holds, found once: rows, choices of the filters, attacks.
const byProfile = new Map();
function profileOf(name) {
  if (!byProfile.has(name)) {
    const rows = data.rows.filter((row) => row.profile === name);
    const own = rows.filter((row) => !reported(row));
    const choices = { attack: distinct(rows.flatMap((row) => [...row.attacks.keys()])) };
    for (const each of FILTERS) choices[each] = choices[each] || distinct(rows.map((row) => row[each]));
    byProfile.set(name, {
      rows,
      own,
      choices,
      judged: distinct(own.flatMap((row) => (row.robustness ? row.robustness.attacks : []))),
      usual: usual(own.length ? own : rows),
      drawn: drawnOf(own).concat(drawnOf(rows).filter((attack) => !drawnOf(own).includes(attack))),
    });
  }
  return byProfile.get(name);
}
const drawnOf = (rows) =>
  distinct(rows.flatMap((row) => [...row.attacks.values()].filter((each) => each.drawn).map((each) => each.label)));
// The attack with a curve in most rows, which the overview opens with.
function usual(rows) {
  const count = (attack) => rows.filter((row) => (row.attacks.get(attack) || {}).drawn).length;
  const counts = drawnOf(rows).map((attack) => [attack, count(attack)]);
  return counts.reduce((best, each) => (each[1] > best[1] ? each : best), ["", 0])[0];
}
const profile = () => profileOf(state.profile);

const sorting = () => state.sort || (DEMONSTRATIONS.includes(state.profile) ? "scheme" : "robustness");
const ordering = () => state.order || natural(COLUMNS.find((column) => column.id === sorting()));

function settle() {
  if (!profiles.includes(state.profile)) state.profile = profiles[0] || "";
  for (const name of FILTERS) if (!profile().choices[name].includes(state[name])) state[name] = "";
  if (!COLUMNS.some((column) => column.id === state.sort)) state.sort = state.order = "";
  if (!["up", "down"].includes(state.order)) state.order = "";
  if (!profile().rows.some((row) => row.id === state.row)) state.row = "";
  const { drawn, usual } = profile();
  if (!drawn.includes(state.curves)) state.curves = drawn.includes(state.attack) ? state.attack : usual || drawn[0] || "";
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
  if (!("row" in update)) limit = FIRST;
  settle();
  writeHash();
  draw();
}

// What the search looks through, put together when it is first used.
function haystack(row) {
  const names = ["scheme", "variant", "carrier", "access", "arch", "dataset", "situation", "origin"];
  row.text =
    row.text ||
    [
      ...names.map((name) => row[name]),
      ...row.attacks.keys(),
      ...Object.entries(row.params).map((pair) => pair.join("=")),
      reasons(row),
    ]
      .join(" ")
      .toLowerCase();
  return row.text;
}

function filtered() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = FILTERS.filter((name) => state[name]);
  const fits = (row, name) => (name === "attack" ? row.attacks.has(state.attack) : row[name] === state[name]);
  return profile().rows.filter(
    (row) => chosen.every((name) => fits(row, name)) && words.every((word) => haystack(row).includes(word)),
  );
}

// Schemes, then baselines, both in the order asked for; then what is self-reported, by name whatever the order.
const GROUPS = [(row) => !baseline(row) && !reported(row), (row) => baseline(row) && !reported(row), reported];
function visible() {
  const rows = filtered();
  return GROUPS.flatMap((belongs) => (belongs === reported ? rows.filter(belongs) : sorted(rows.filter(belongs))));
}

function sorted(rows) {
  const column = COLUMNS.find((each) => each.id === sorting());
  const sign = ordering() === "down" ? -1 : 1;
  const compare = (x, y) => {
    if (!known(x) || !known(y)) return known(y) - known(x);
    return sign * (typeof x === "number" ? x - y : x < y ? -1 : x > y);
  };
  const keyed = rows.map((row) => ({ row, keys: (column.keys || [column.value]).map((value) => value(row)) }));
  keyed.sort((a, b) => {
    for (let i = 0; i < a.keys.length; i++) {
      const order = compare(a.keys[i], b.keys[i]);
      if (order) return order;
    }
    return a.row.at - b.row.at;
  });
  return keyed.map((each) => each.row);
}
