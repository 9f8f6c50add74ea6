// The reader's threat model: what the owner verifies with, what the attacker has, what is at stake.
const VERIFY = [
  ["", "anything"],
  ["white-box", "the suspect's weights"],
  ["activations", "its activations"],
  ["scores", "its scores"],
  ["labels", "its labels alone"],
  ["data set", "a suspect data set"],
];
// From the weakest: each includes what stands before it.
const OFFERS = ["labels", "scores", "activations", "white-box"];
const HAS = [
  ["", "a copy of the model"],
  ["scores", "scores of its answers"],
  ["labels", "labels of its answers"],
  ["none", "no access to it"],
];
const ACCESS = ["none", "labels", "scores", "white-box"];
const MEANS = [
  ["labelled", "own labelled images"],
  ["unlabelled", "own unlabelled images"],
  ["foreign", "images of another kind"],
  ["published", "my published images"],
  ["method", "knows my method"],
  ["place", "knows the key's public parts"],
  ["copies", "other customers' copies"],
];
const GIVE = ["", "0.5", "1", "2", "5"];
const LOSSES = { least: 0, most: 30, step: 0.5 };
const BUDGETS = {
  time: { label: "time, × training the model", values: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10] },
  queries: { label: "queries to my model", values: [0, 10, 100, 300, 1000, 3000, 10000, 100000] },
  images: { label: "images of its own", values: [0, 10, 30, 100, 300, 1000, 3000, 10000] },
};
const CHOICE = ["has", "lacks", "loss", "by", "most", "attack"]; // parts of the state that decide which rungs count

const lossAllowed = () => (state.loss === "" ? data.budget_pp : +state.loss);
const lacking = () => state.lacks.split(" ").filter(Boolean);
const usualChoice = () => CHOICE.every((name) => state[name] === defaults[name] || name === "by");

function limits() {
  const most = state.most === "" ? Infinity : +state.most;
  return {
    ...UNLIMITED,
    loss: ZERO + Math.round(lossAllowed() * PER_POINT),
    ...(most === Infinity
      ? {}
      : { [state.by || "time"]: state.by && state.by !== "time" ? most : Math.round(most * PER_TRAINING) }),
  };
}

// What an adversary lacks of what an attack needs: nothing, and the attack is open to it. Unknown needs are open to
// all.
function lacked(label) {
  const needs = Object.hasOwn(data.needs, label) ? data.needs[label] : null;
  if (!needs) return [];
  const lacks = new Set(lacking());
  const asks = {
    labelled: needs.images.includes("own"),
    unlabelled: needs.images.includes("own unlabelled") && lacks.has("labelled"),
    foreign: needs.images.includes("out of domain"),
    published: needs.images.includes("the owner's"),
    method: needs.knows.includes("scheme"),
    place: needs.knows.some((part) => part !== "scheme"),
    copies: needs.copies,
  };
  const found = MEANS.filter(([name]) => asks[name] && lacks.has(name)).map(([, words]) => words);
  const more = ACCESS.indexOf(needs.access) > ACCESS.indexOf(state.has || "white-box");
  return more ? [HAS.find(([name]) => (name || "white-box") === needs.access)[1], ...found] : found;
}

// What a choice comes to is found once: attacks that are open, what rivals faced, and each row's worst case.
let settled = { key: null };
const choice = () => settled;
const CHOICES = 6; // kept, so that going back takes no time
const kept = new Map();
function settleChoice() {
  const key = JSON.stringify(CHOICE.map((name) => state[name]));
  const known = kept.get(key);
  const made = {
    key,
    usual: usualChoice(),
    limits: limits(),
    open: new Map(),
    faced: new Map(),
    worst: new Array(data.rows.length),
    cells: new Map(),
  };
  settled = known || made;
  kept.delete(key);
  kept.set(key, settled);
  if (kept.size > CHOICES) kept.delete(kept.keys().next().value);
}

function opened(label) {
  const { open } = choice();
  if (!open.has(label)) open.set(label, state.attack ? label === state.attack : !lacked(label).length);
  return open.get(label);
}

const rivals = (row) => (row.rivals = row.rivals || `${row.profile}\n${row.arch}\n${row.dataset}`);
const facedBy = new Map(); // by rivals: every attack that one of them has a result of
for (const row of data.rows)
  if (!reported(row)) {
    if (!facedBy.has(rivals(row))) facedBy.set(rivals(row), new Set());
    for (const attack of row.judged) facedBy.get(rivals(row)).add(attack.label);
  }

function rivalsFaced(row) {
  const { faced } = choice();
  const key = rivals(row);
  if (!faced.has(key)) faced.set(key, [...(facedBy.get(key) || [])].filter(opened));
  return faced.get(key);
}

// The worst case of a row under the choice, with the attacks that it is covered by, `of` those that rivals faced.
function worst(row) {
  if (settled.worst[row.at] !== undefined) return settled.worst[row.at];
  const can = (attack) => opened(attack.label);
  const found = judge(row.judged.every(can) ? row.judged : row.judged.filter(can), settled.limits);
  if (found) {
    found.covered = found.of = found.attacks.length;
    for (const label of rivalsFaced(row)) {
      const mine = row.attacks.get(label);
      if (!mine || (mine.status !== "not applicable" && !known(mine.place))) found.of++;
    }
  }
  settled.worst[row.at] = found;
  return found;
}

// One row under one attack, at the limits of the choice.
function under(row, label) {
  const { cells, limits } = choice();
  if (!cells.has(row)) cells.set(row, new Map());
  const attack = row.attacks.get(label);
  if (!cells.get(row).has(label))
    cells.get(row).set(label, attack && known(attack.place) ? judge([attack], limits) : null);
  return cells.get(row).get(label);
}

function verifiable(row) {
  if (!state.verify) return true;
  if (state.verify === "data set" || row.access === "data set") return row.access === state.verify;
  return OFFERS.indexOf(row.access) <= OFFERS.indexOf(state.verify) && OFFERS.includes(row.access);
}
const affordable = (row) => !state.give || (row.fidelity && row.fidelity.mean >= -state.give - 1e-9);
