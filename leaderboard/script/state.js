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
const FILTERS = ["dataset", "carrier", "arch", "situation", "attack"];
// Where the numbers of a row come from, and what that makes of them.
const ORIGINS = {
  "computed here": "Computed by whoever publishes this page.",
  verified: "Arrived by pull request; cells that were drawn at random were run again here and agree.",
  "self-reported": "Arrived by pull request and nobody here has run it again: its authors' word.",
  stale: "Was verified, but the code has changed since: the numbers are of an older version.",
  failed: "Cells were run again here and disagree: do not rely on these numbers.",
};
const trusted = (origin) => origin === "computed here" || origin === "verified";
const reported = (row) => !trusted(row.origin);
// Baselines mark nothing: what they detect is what a network gives away anyway.
const baseline = (row) => row.baseline;

// Attacks arrive as short lists, because most of the page is these.
data.rows.forEach((row, at) => {
  row.at = at;
  row.attacks = new Map(
    Object.entries(row.attacks).map(([label, [status, stage, place, drawn]]) => [label, { label, status, stage, place, drawn: Boolean(drawn) }]),
  );
  row.judged = [...row.attacks.values()].filter((attack) => known(attack.place));
});

// Details are packed, some rows together, and read when one of them is asked for. They stand at the end of the page, so
// that the table is drawn before a browser has read them.
const packs = [];
let lines = null;
const complete = new Promise((resolve) => addEventListener("DOMContentLoaded", resolve));
async function unpacked(number) {
  await complete;
  lines = lines || byId("details").textContent.split("\n");
  const stream = new Blob([bytesOf(lines[number])]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}
async function detailsOf(row) {
  const number = Math.floor(row.at / data.pack);
  packs[number] = packs[number] || unpacked(number);
  row.details = (await packs[number])[row.at % data.pack];
  return row.details;
}

const defaults = {
  profile: "",
  view: "table",
  ...{ verify: "", give: "" }, // what the owner verifies with, and may lose of accuracy
  ...{ has: "", lacks: "", loss: "", by: "time", most: "" }, // what the attacker has and lacks, and may spend
  ...{ dataset: "", carrier: "", arch: "", situation: "", attack: "", q: "" },
  ...{ sort: "", order: "", cols: "", whole: "" },
  ...{ row: "", curves: "", scheme: "", cell: "", shade: "" },
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
      judged: distinct(own.flatMap((row) => row.judged.map((attack) => attack.label))),
      schemes: distinct(rows.map((row) => row.scheme)),
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
  const count = (attack) => rows.filter((row) => (row.attacks.get(attack) || {}).drawn && known(row.attacks.get(attack).place)).length;
  const counts = drawnOf(rows).map((attack) => [attack, count(attack)]);
  return counts.reduce((best, each) => (each[1] > best[1] ? each : best), ["", 0])[0];
}
const profile = () => profileOf(state.profile);

const sorting = () => state.sort || (DEMONSTRATIONS.includes(state.profile) ? "scheme" : "robustness");
const ordering = () => state.order || natural(COLUMNS.find((column) => column.id === sorting()));

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
  const asked = state.whole ? shown().filter((column) => column.value || column.keys) : [];
  return profile().rows.filter(
    (row) =>
      chosen.every((name) => fits(row, name)) &&
      verifiable(row) &&
      affordable(row) &&
      asked.every((column) => known((column.value || column.keys[1])(row))) &&
      words.every((word) => haystack(row).includes(word)),
  );
}

// Schemes, then baselines, both in the order asked for; then what nobody here vouches for, by name whatever the order.
const GROUPS = [
  (row) => !baseline(row) && !reported(row),
  (row) => baseline(row) && !reported(row),
  ...["self-reported", "stale", "failed"].map((origin) => (row) => row.origin === origin),
  (row) => !Object.hasOwn(ORIGINS, row.origin),
];
function visible() {
  const rows = filtered();
  return GROUPS.flatMap((belongs, i) => (i < 2 ? sorted(rows.filter(belongs)) : rows.filter(belongs)));
}

function sorted(rows) {
  const column = COLUMNS.find((each) => each.id === sorting());
  const sign = ordering() === "down" ? -1 : 1;
  const keys = (column.keys || [column.value]).map((value) => keysOf(rows.map(value), sign));
  const places = rows.map((_, i) => i);
  places.sort((a, b) => {
    for (const key of keys) if (key[a] !== key[b]) return key[a] - key[b];
    return rows[a].at - rows[b].at;
  });
  return places.map((i) => rows[i]);
}

// Numbers to sort by, those of missing values last; of texts their places in the alphabet.
function keysOf(values, sign) {
  const words = values.filter((value) => typeof value === "string");
  const order = words.length ? new Map([...new Set(words)].sort().map((word, i) => [word, i])) : null;
  return Float64Array.from(values, (value) => (known(value) ? sign * (order ? order.get(value) : value) : Infinity));
}
