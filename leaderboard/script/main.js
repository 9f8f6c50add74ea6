// Drawing everything, and what a reader does.
function fill(select, choices, value, all, label = String) {
  const items = (all ? [["", all]] : []).concat(choices.map((choice) => [choice, label(choice)]));
  select.replaceChildren(...items.map(([id, text]) => make("option", { value: id }, text)));
  select.value = value;
}

function controls() {
  const { choices, drawn } = profile();
  fill(byId("profile"), profiles, state.profile);
  for (const name of FILTERS) {
    const attack = name === "attack";
    fill(byId(name), choices[name], state[name], attack ? "worst case over all" : "all", attack ? chain : String);
  }
  fill(byId("curves"), drawn, state.curves, null, chain);
  fill(
    byId("sorter"),
    COLUMNS.map((column) => column.id),
    sorting(),
  );
  if (byId("q").value !== state.q) byId("q").value = state.q;
}

function counted(rows) {
  const { own, judged } = profile();
  const mine = rows.filter((row) => !reported(row)).length;
  const faced = state.attack ? `under ${chain(state.attack)} alone` : `worst case over ${judged.map(chain).join(", ") || "no attack"}`;
  const told = rows.length - mine;
  return (
    `${mine} of ${plural(own.length, "row")} of profile ${state.profile || MISSING}` +
    (told ? `, and ${told} self-reported` : "") +
    `; robustness: ${faced}. Click a row for its curves, command and provenance.`
  );
}

let later = 0;
function draw() {
  controls();
  const rows = visible();
  const board = byId("board");
  board.tHead.replaceChildren(header());
  board.tBodies[0].replaceChildren(...body(rows));
  byId("worth").textContent = WORTH[state.profile] || "";
  byId("count").textContent = counted(rows);
  clearTimeout(later);
  later = setTimeout(() => overview(rows), 100);
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
// Paper does not scroll: it gets more rows than a screen does.
addEventListener("beforeprint", () => {
  limit = 2000;
  draw();
});
readHash();
draw();
performance.mark("drawn");
