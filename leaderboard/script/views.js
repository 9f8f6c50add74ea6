// The views: tabs, of which one is drawn at a time, and the panel of one cell.
const VIEWS = {
  table: { label: "Table" },
  heatmap: { label: "Heat map", draw: heatmap },
  tradeoff: { label: "Accuracy and robustness", draw: tradeoff },
  removal: { label: "Removal cost", draw: removalCosts },
  attacks: { label: "By attack", draw: byAttack },
  schemes: { label: "By scheme", draw: byScheme },
  claims: { label: "False claims", draw: falseClaims },
};

function tabs() {
  const names = Object.keys(VIEWS);
  if (!byId("views").childElementCount)
    byId("views").append(
      ...names.map((name) => {
        const tab = make(
          "button",
          {
            type: "button",
            role: "tab",
            id: `tab-${name}`,
            "aria-controls": name === "table" ? "view-table" : "view-other",
          },
          VIEWS[name].label,
        );
        tab.addEventListener("click", () => change({ view: name, cell: "" }));
        tab.addEventListener("keydown", (event) => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (!step) return;
          const next = names[(names.indexOf(name) + step + names.length) % names.length];
          change({ view: next, cell: "" });
          byId(`tab-${next}`).focus();
        });
        return tab;
      }),
    );
  for (const name of names) {
    byId(`tab-${name}`).setAttribute("aria-selected", String(state.view === name));
    byId(`tab-${name}`).tabIndex = state.view === name ? 0 : -1;
  }
  const row = byId("views"); // on a phone the tabs scroll sideways
  if (row.shown === state.view) return; // asking for its width costs as much as laying out the table
  row.shown = state.view;
  if (row.scrollWidth > row.clientWidth) row.scrollLeft = byId(`tab-${state.view}`).offsetLeft - row.offsetLeft - 20;
}

// What the tab shows: the table at once, anything else a moment later, so that a slider stays swift.
let later = 0;
let drawing = 0;
function drawView(rows) {
  const table = state.view === "table";
  byId("view-table").hidden = !table;
  byId("view-other").hidden = table;
  byId("columns").hidden = !table;
  clearTimeout(later);
  const mine = ++drawing;
  if (table) return void byId("view-other").replaceChildren();
  byId("view-other").setAttribute("aria-labelledby", `tab-${state.view}`);
  const show = async () => {
    const parts = await VIEWS[state.view].draw(rows);
    if (mine !== drawing) return;
    const held = byId("view-other").contains(document.activeElement) ? document.activeElement : null;
    byId("view-other").replaceChildren(...parts.filter(Boolean));
    byId("view-other").dataset.drawn = state.view;
    if (held) regain(held);
  };
  delete byId("view-other").dataset.drawn;
  later = setTimeout(show, 30);
}

// The focus stays where it was when a view is drawn anew.
function regain({ id, ariaLabel }) {
  const labelled = () =>
    [...byId("view-other").querySelectorAll("[aria-label]")].find((each) => each.ariaLabel === ariaLabel);
  const again = id ? byId(id) : ariaLabel && labelled();
  if (again) again.focus({ preventScroll: true });
}

const note = (text) => make("p", { class: "empty" }, text);
const nameOf = (row, telling) => [row.scheme, ...telling.map((name) => row[name])].filter(Boolean).join(", ");
// What tells rows of one scheme apart.
function tellingOf(rows) {
  const seen = new Map();
  const told = new Set();
  for (const row of rows) {
    const other = seen.get(row.scheme);
    if (!other) seen.set(row.scheme, row);
    else for (const name of ["variant", "arch", "dataset", "situation"]) if (row[name] !== other[name]) told.add(name);
  }
  return ["variant", "arch", "dataset", "situation"].filter((name) => told.has(name));
}

// One cell: what it showed, the command that reproduces it, and where its numbers come from.
async function drawCell() {
  const found = cellOf(state.cell);
  byId("cell").hidden = !found;
  if (!found) return void byId("cell").replaceChildren();
  const { row, attack } = found;
  const details = (await detailsOf(row)).attacks[attack.label];
  if (cellOf(state.cell) === null || state.cell !== cellName(row, attack.label)) return;
  const close = make("button", { type: "button", class: "close" }, "Close");
  close.addEventListener("click", closeCell);
  const heading = make("h2", { tabindex: "-1" }, `${nameOf(row, ["variant"])} under ${chain(attack.label)}`);
  const outcome = under(row, attack.label);
  const why = row.problems.filter((p) => p.attack === attack.label).map((p) => `${p.status}: ${p.reason}`);
  const said = outcome
    ? `survives ${proportion(outcome)} for ${lossAllowed()} points at most; weakest evidence p = ${pValue(outcome.p)}`
    : why.join("; ") || "nothing was judged";
  byId("cell").replaceChildren(
    make("div", { class: "head" }, heading, close),
    make("p", {}, said),
    ...attackSources(attack.label),
    details.curves.length ? make("div", { class: "panels" }, ...attackCharts(row, details)) : "",
    command(details.command),
    facts([
      ["Finished", [...new Set(details.source.finished)].join(" to ")],
      ["Revision", details.source.revisions.join(", ") + (details.source.dirty ? " (with uncommitted changes)" : "")],
      ["Source", details.source.sources.join(", ")],
      ["Device", details.source.devices.join(", ")],
      ["Origin", `${row.origin}. ${ORIGINS[row.origin] || ""}`],
      ["Record", `${row.profile}, ${row.arch}, ${row.dataset}, ${row.situation}, seeds ${row.seeds.join(", ")}`],
    ]),
  );
}

let opener = null; // the button that opened the panel, by its label, as it is drawn anew
function closeCell() {
  change({ cell: "" });
  regain({ ariaLabel: opener });
}

function showCell(row, label) {
  opener = document.activeElement && document.activeElement.ariaLabel;
  change({ cell: cellName(row, label) });
  drawCell().then(() => {
    byId("cell").scrollIntoView({ block: "nearest" });
    byId("cell").querySelector("h2").focus({ preventScroll: true });
  });
}
