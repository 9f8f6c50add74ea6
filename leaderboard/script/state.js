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
const reported = (row) => row.reported;
// Baselines mark nothing: what they detect is what a network gives away anyway.
const baseline = (row) => row.baseline;

// Attacks arrive as short lists, because most of the page is these.
data.rows.forEach((row, at) => {
  row.at = at;
  row.reported = !trusted(row.origin);
  row.attacks = new Map(
    Object.entries(row.attacks).map(([label, [status, stage, place, drawn]]) => [
      label,
      { label, status, stage, place, drawn: Boolean(drawn) },
    ]),
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
  const count = (attack) =>
    rows.filter((row) => (row.attacks.get(attack) || {}).drawn && known(row.attacks.get(attack).place)).length;
  const counts = drawnOf(rows).map((attack) => [attack, count(attack)]);
  return counts.reduce((best, each) => (each[1] > best[1] ? each : best), ["", 0])[0];
}
const profile = () => profileOf(state.profile);

const sorting = () => state.sort || (DEMONSTRATIONS.includes(state.profile) ? "scheme" : "robustness");
const ordering = () => state.order || natural(COLUMNS.find((column) => column.id === sorting()));

function change(update) {
  const opens = "row" in update && update.row !== state.row;
  Object.assign(state, update);
  if (!("row" in update)) limit = FIRST;
  settle();
  writeHash();
  draw(opens);
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
// What decides which rows are shown, in which order, and what the answer says of them.
const IDLE = ["row", "cell", "curves", "scheme", "shade", "view"];
const chosenRows = () => JSON.stringify({ ...state, ...Object.fromEntries(IDLE.map((name) => [name, ""])) });
let seen = { key: null, rows: [] };
function visible() {
  const key = chosenRows();
  if (seen.key === key) return seen.rows;
  const groups = GROUPS.map(() => []);
  for (const row of filtered()) groups[GROUPS.findIndex((belongs) => belongs(row))].push(row);
  seen = { key, rows: groups.flatMap((rows, i) => (i < 2 ? sorted(rows) : rows)) };
  return seen.rows;
}

// Sorting plain numbers is several times faster than asking a function: each key refines the ranks by those before it,
// and what is sorted at last are whole numbers that say which row they are of.
function sorted(rows) {
  const column = COLUMNS.find((each) => each.id === sorting());
  const sign = ordering() === "down" ? -1 : 1;
  let ranks = null;
  for (const value of column.keys || [column.value]) {
    const finer = ranksOf(keysOf(rows, value, sign));
    if (ranks) for (let i = 0; i < finer.length; i++) finer[i] += ranks[i] * rows.length;
    ranks = ranks ? ranksOf(finer) : finer;
  }
  for (let i = 0; i < ranks.length; i++) ranks[i] = ranks[i] * rows.length + i;
  ranks.sort();
  return rows.map((_, i) => rows[ranks[i] % rows.length]);
}

// The place of each number among the different ones, from 0.
function ranksOf(values) {
  const order = values.slice().sort();
  let count = 0;
  for (let i = 1; i < order.length; i++) if (order[i] !== order[count]) order[++count] = order[i];
  const ranks = new Float64Array(values.length);
  for (let i = 0; i < values.length; i++) {
    let [low, high] = [0, count];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (order[middle] < values[i]) low = middle + 1;
      else high = middle;
    }
    ranks[i] = low;
  }
  return ranks;
}

// Numbers to sort by, those of missing values last; of texts their places in the alphabet, found once.
const alphabets = new Map();
function keysOf(rows, value, sign) {
  const values = rows.map(value);
  const order = values.some((each) => typeof each === "string") ? alphabetOf(value) : null;
  const keys = new Float64Array(rows.length).fill(Infinity);
  for (let i = 0; i < keys.length; i++)
    if (known(values[i])) keys[i] = sign * (order ? order.get(values[i]) : values[i]);
  return keys;
}
function alphabetOf(value) {
  if (!alphabets.has(value)) alphabets.set(value, new Map(distinct(data.rows.map(value)).map((word, i) => [word, i])));
  return alphabets.get(value);
}
