// The form of the threat model, and the answer to it.
function threatForm() {
  const words = (pairs) => (value) => pairs.find(([each]) => each === value)[1];
  fill(
    byId("verify"),
    VERIFY.map(([value]) => value),
    state.verify,
    null,
    words(VERIFY),
  );
  fill(
    byId("has"),
    HAS.map(([value]) => value),
    state.has,
    null,
    words(HAS),
  );
  fill(byId("give"), GIVE, state.give, null, (value) => (value ? `at most ${value} points` : "whatever it takes"));
  fill(byId("by"), Object.keys(BUDGETS), state.by, null, (name) => BUDGETS[name].label);
  const { values } = BUDGETS[state.by];
  const index = state.most === "" ? values.length : values.indexOf(+state.most);
  Object.assign(byId("most"), { max: values.length, value: index });
  byId("loss").value = lossAllowed();
  const said = { loss: `${lossAllowed()} points`, most: state.most === "" ? "no limit" : mostSaid() };
  for (const [name, text] of Object.entries(said)) {
    byId(`${name}-said`).textContent = text;
    byId(name).setAttribute("aria-valuetext", text);
  }
  if (!byId("means").childElementCount) byId("means").append(...MEANS.map(means));
  for (const [name] of MEANS) byId(`has-${name}`).checked = !lacking().includes(name);
}
const mostSaid = () => (state.by === "time" ? `${state.most} × training` : (+state.most).toLocaleString("en"));

function means([name, words]) {
  const box = make("input", { type: "checkbox", id: `has-${name}` });
  box.addEventListener("change", () => {
    const kept = lacking().filter((each) => each !== name);
    change({ lacks: (box.checked ? kept : [...kept, name]).join(" ") });
  });
  return make("label", { class: "check" }, box, words);
}

function listen() {
  for (const name of ["verify", "has", "give"])
    byId(name).addEventListener("change", (event) => change({ [name]: event.target.value }));
  byId("by").addEventListener("change", (event) => change({ by: event.target.value, most: "" }));
  byId("loss").addEventListener("input", (event) => change({ loss: event.target.value }));
  byId("most").addEventListener("input", (event) => {
    const value = BUDGETS[state.by].values[+event.target.value];
    change({ most: known(value) ? String(value) : "" });
  });
  byId("threat").addEventListener("submit", (event) => event.preventDefault());
}

// Rows by what is left of their claims, the surest first; what nobody here vouches for is no answer.
const unmarked = (row) => row.effectiveness && !row.effectiveness.hits;
const OUTCOMES = [
  ["all", "● holds in every seed"],
  ["some", "◐ holds in some"],
  ["none", "○ broken in every seed"],
  ["none", "✕ not detected at all"],
  ["off", "– not decided"],
];
function outcomeOf(row) {
  const found = worst(row);
  if (!found) return 4;
  if (found.hits) return found.hits === found.trials ? 0 : 1;
  return unmarked(row) ? 3 : 2;
}
const NAMED = 12; // rows that an answer names
const SORTED = 300; // rows above which they are named in the order of the table
const brokenShare = (row) => (worst(row) ? broken(row) / worst(row).covered : 0);
const broken = (row) => (worst(row) ? worst(row).breakers.length : 0);

function answer(rows) {
  const own = rows.filter((row) => !reported(row) && !baseline(row) && row.status === "ok");
  if (own.length <= SORTED) own.sort((a, b) => brokenShare(a) - brokenShare(b));
  const lists = OUTCOMES.map(([kind, words]) => [kind, words, []]);
  for (const row of own) lists[outcomeOf(row)][2].push(row);
  byId("answer").replaceChildren(
    make("h2", {}, own.length ? question() : "No scheme can be verified so: say what else you can verify with."),
    make("p", { class: "only-print" }, inWords()),
    ...lists.filter(([, , found]) => found.length).map(outcomeLine),
    ...caveats(own).map((text) => make("p", { class: "sub" }, text)),
  );
}

function question() {
  const budget =
    state.most === ""
      ? ""
      : ` and ${{ time: "a time of", queries: "queries:", images: "images of its own:" }[state.by]} ${mostSaid()}`;
  const attacks = profile().judged;
  const open = attacks.filter(opened).length;
  const faced = state.attack ? `${chain(state.attack)} alone` : `${open} of ${plural(attacks.length, "attack")}`;
  return `What survives ${faced}, for at most ${lossAllowed()} points of accuracy${budget}`;
}

function outcomeLine([kind, words, rows]) {
  const telling = tellingOf(rows);
  const chips = rows.slice(0, NAMED).map((row) => {
    const button = make(
      "button",
      { type: "button", class: `chip ${kind}` },
      row.scheme,
      " ",
      sub(chipText(row, telling), "inline"),
    );
    button.addEventListener("click", () => {
      change({ row: row.id, view: "table" });
      byId("board").querySelector(`tr[data-id="${row.id}"]`).scrollIntoView({ block: "start" });
    });
    return button;
  });
  const more = rows.length > NAMED ? sub(`and ${rows.length - NAMED} more`, "inline") : null;
  return make(
    "div",
    { class: "outcome" },
    make("span", { class: `mark ${kind}` }, words),
    make("span", { class: "chips" }, ...chips, more),
  );
}

function chipText(row, telling) {
  const found = worst(row);
  const parts = telling.map((name) => row[name]).filter(Boolean);
  if (found && broken(row) && !state.attack && !unmarked(row))
    parts.push(`${broken(row)} of ${found.covered} break it`);
  if (row.fidelity) parts.push(`fidelity ${fixed(row.fidelity.mean, 1)}`);
  if (found && found.covered < found.of) parts.push(`only ${coverage(found)}`);
  return parts.join(", ");
}

// What a reader must know before deciding.
function caveats(own) {
  const found = [];
  const most = Math.max(0, ...own.map((row) => row.seeds.length));
  if (own.length && most < 5)
    found.push(
      `Few replications: ${plural(most, "seed")} a row. ${most} of ${most} survived leaves anything from ` +
        `${percent(wilson(most || 1, most || 1).low, 0)} to 100 % possible.`,
    );
  const leaders = own.filter((row) => ranked(row) && row.rank.low === 1);
  if (leaders.length) found.push(leading(leaders, own));
  else if (own.some((row) => row.rank))
    found.push("Ranks are of the usual choice (every attack, no limit, the usual loss) and not shown for this one.");
  return found;
}

// Who may be first; rows that are not told apart share the rank.
function leading(leaders, own) {
  const few = leaders.find((row) => row.rank.seeds < row.rank.needed);
  if (few)
    return (
      `With ${plural(few.rank.seeds, "seed")} no two rows can be told apart (it takes ${few.rank.needed}): ` +
      "rank 1 is possible for each."
    );
  const telling = tellingOf(own);
  const names = leaders
    .slice(0, NAMED)
    .map((row) => nameOf(row, telling))
    .join("; ");
  const more = leaders.length > NAMED ? ` and ${leaders.length - NAMED} more` : "";
  return leaders.length > 1
    ? `Rank 1 is shared, as these are not told apart: ${names}${more}.`
    : `Rank 1, told apart from all others of its table: ${names}.`;
}

// The choice in words, for paper, which has no form.
function inWords() {
  const told = (pairs, value) => pairs.find(([each]) => each === value)[1];
  const lacks = MEANS.filter(([name]) => lacking().includes(name)).map(([, words]) => words);
  return (
    `You can verify with: ${told(VERIFY, state.verify)}. The attacker has: ${told(HAS, state.has)}` +
    (lacks.length ? `, and lacks: ${lacks.join(", ")}` : "") +
    (state.give ? `. You may lose ${state.give} points of accuracy at most.` : ".")
  );
}
