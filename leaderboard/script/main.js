// Drawing everything, and what a reader does.
function fill(select, choices, value, all, label = String) {
  const items = (all ? [["", all]] : []).concat(choices.map((choice) => [choice, label(choice)]));
  const key = JSON.stringify(items);
  if (select.filled !== key) select.replaceChildren(...items.map(([id, text]) => make("option", { value: id }, text)));
  select.filled = key;
  select.value = value;
}

let filledFor = null;
function controls() {
  const { choices } = profile();
  if (filledFor !== state.profile) {
    fill(byId("profile"), profiles, state.profile);
    for (const name of FILTERS)
      fill(
        byId(name),
        choices[name],
        state[name],
        name === "attack" ? "worst case over all" : "all",
        name === "attack" ? chain : String,
      );
    filledFor = state.profile;
  }
  for (const name of ["profile", ...FILTERS]) byId(name).value = state[name];
  fill(
    byId("sorter"),
    shown().map((column) => column.id),
    sorting(),
    null,
    (id) => COLUMNS.find((column) => column.id === id).label,
  );
  if (byId("q").value !== state.q) byId("q").value = state.q;
  threatForm();
  columnBoxes();
}

function columnBoxes() {
  const place = byId("columns").lastElementChild;
  if (!place.childElementCount) {
    const box = (id, words) =>
      make("label", { class: "check" }, make("input", { type: "checkbox", "data-column": id }), words);
    place.append(
      ...COLUMNS.slice(1).map((column) => box(column.id, column.label)),
      box("", "only rows that have a value in all of these"),
    );
    place.addEventListener("change", (event) => chooseColumn(event.target));
  }
  const on = shown().map((column) => column.id);
  for (const box of place.querySelectorAll("input"))
    box.checked = box.dataset.column ? on.includes(box.dataset.column) : state.whole === "1";
}

function chooseColumn(box) {
  if (!box.dataset.column) return change({ whole: box.checked ? "1" : "" });
  const kept = shown()
    .map((column) => column.id)
    .filter((id) => id !== box.dataset.column);
  const cols = COLUMNS.map((column) => column.id).filter(
    (id) => kept.includes(id) || (box.checked && id === box.dataset.column),
  );
  change({
    cols:
      cols.join(" ") ===
      usualColumns()
        .map((column) => column.id)
        .join(" ")
        ? ""
        : cols.join(" "),
  });
}

function counted(rows) {
  const foreign = rows.filter(reported);
  const told = foreign.length;
  const mine = rows.length - told;
  const others = [...new Set(foreign.map((row) => row.origin))].join(", ");
  return (
    `${mine} of ${plural(profile().own.length, "row")} of profile ${state.profile || MISSING}` +
    (told ? `, and ${told} ${others}` : "") +
    (state.view === "table" ? ". Click a row for its curves, command and provenance." : ".")
  );
}

let answered = null; // the choice that the answer is of
function draw(whole) {
  const part = partly(whole);
  if (part) holdWidths(); // before anything changes, as it is then known
  controls();
  const rows = visible();
  if (state.view === "table") drawTable(rows, part);
  if (answered !== seen.key) answer(rows);
  answered = seen.key;
  drawView(rows);
  tabs();
  drawCell();
  byId("worth").textContent = WORTH[state.profile] || "";
  byId("count").textContent = counted(rows);
}

for (const name of ["profile", ...FILTERS])
  byId(name).addEventListener("change", (event) =>
    change({ [name]: event.target.value, ...(name === "attack" ? { curves: event.target.value } : {}) }),
  );
byId("sorter").addEventListener("change", (event) =>
  change({ sort: event.target.value, order: natural(COLUMNS.find((c) => c.id === event.target.value)) }),
);
byId("q").addEventListener("input", (event) => change({ q: event.target.value }));
byId("clear").addEventListener("click", () => change({ ...defaults, profile: state.profile, view: state.view }));
for (const kind of ["csv", "json", "latex"]) byId(kind).addEventListener("click", () => download(kind));
byId("link").addEventListener("click", (event) => {
  const field = make("textarea", { class: "hidden" });
  field.value = location.href;
  document.body.append(field);
  field.select();
  event.target.textContent = document.execCommand("copy") ? "Copied" : "Copy the address";
  field.remove();
});
byId("filters").addEventListener("submit", (event) => event.preventDefault());
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.cell) closeCell();
});
addEventListener("hashchange", () => {
  readHash();
  draw(true);
});
// Paper does not scroll: it gets more rows than a screen does.
addEventListener("beforeprint", () => {
  limit = 2000;
  draw(true);
});
listen();
readOutcomes();
readHash();
draw(true);
performance.mark("drawn");
