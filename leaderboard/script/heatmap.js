// Schemes against attacks: what survives at the limits of the choice, or the weakest evidence there.
const HEAT_ROWS = 40; // schemes that are drawn
const STAGES = {
  data: "on the data",
  training: "on training",
  model: "on the model",
  inference: "on the answers",
  none: "none",
};

// The rows and the attacks of the map.
function heated(rows) {
  const drawn = rows.filter((row) => row.status === "ok").slice(0, HEAT_ROWS);
  const judged = new Set(drawn.flatMap((row) => row.judged.map((attack) => attack.label)));
  return [drawn, profile().choices.attack.filter((label) => judged.has(label) && opened(label))];
}

function heatmap(rows) {
  const [drawn, labels] = heated(rows);
  if (!drawn.length || !labels.length)
    return [note("No row that is shown faced an attack that is open to this attacker.")];
  const rest = rows.filter((row) => row.status === "ok").length - drawn.length;
  return [
    heatTools(),
    heatTable(drawn, labels),
    rest ? make("p", { class: "sub" }, `${rest} more rows: filter to see them.`) : null,
  ];
}

function heatTools() {
  const select = make("select", { id: "shade" });
  fill(select, ["", "p"], state.shade, null, (value) =>
    value ? "weakest evidence, as a p-value" : "share of claims that survive",
  );
  select.addEventListener("change", () => {
    change({ shade: select.value });
  });
  const keys = [
    ["all", "all survive"],
    ["some", "some"],
    ["none", "none"],
    ["gone", "failed to run"],
    ["na", "does not apply"],
    ["untried", "not tried"],
  ];
  const p = [
    ["p4", "p ≤ 1e−9"],
    ["p3", "≤ 1e−4"],
    ["p2", `≤ ${data.fpr}: detected`],
    ["p0", "not detected"],
  ];
  const legend = (state.shade ? [...p, ...keys.slice(3)] : keys).map(([kind, text]) =>
    make("span", {}, make("i", { class: `key ${kind}` }), ` ${text}`),
  );
  return make(
    "div",
    { class: "tools" },
    make("label", { class: "inline" }, "Show", select),
    make("p", { class: "legend" }, ...legend),
  );
}

function heatTable(rows, labels) {
  const telling = tellingOf(rows);
  const head = make(
    "tr",
    {},
    make("td", {}),
    ...rows.map((row) =>
      make(
        "th",
        { scope: "col", class: reported(row) ? "told" : null, title: nameOf(row, telling) },
        make("span", {}, nameOf(row, telling)),
      ),
    ),
  );
  const stageOf = (label) => rows.map((row) => row.attacks.get(label)).find(Boolean).stage;
  const body = [];
  for (const stage of new Set([...Object.keys(STAGES), ...labels.map(stageOf)])) {
    const mine = labels.filter((label) => stageOf(label) === stage);
    if (!mine.length) continue;
    body.push(
      make(
        "tr",
        {},
        make(
          "th",
          { scope: "colgroup", colspan: rows.length + 1, class: "stage" },
          `Attacks ${STAGES[stage] || stage}`,
        ),
      ),
    );
    for (const label of mine)
      body.push(
        make(
          "tr",
          {},
          make("th", { scope: "row", title: chain(label) }, chain(label)),
          ...rows.map((row) => heatCell(row, label)),
        ),
      );
  }
  const table = make(
    "table",
    { class: "heat" },
    make("caption", { class: "hidden" }, "Schemes against attacks"),
    make("thead", {}, head),
    make("tbody", {}, ...body),
  );
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) showCell(data.rows[+button.dataset.at], button.dataset.attack);
  });
  table.addEventListener("keydown", (event) => step(table, event));
  const first = table.querySelector("button");
  if (first) first.tabIndex = 0;
  return make("div", { class: "scroll heats", tabindex: "0", role: "region", "aria-label": "Heat map" }, table);
}

// Arrow keys go from cell to cell, past those that hold nothing; one cell at a time is reached by Tab.
function step(table, event) {
  const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] || [
    0, 0,
  ];
  const from = event.target.closest("td");
  if (!from || !(down || right)) return;
  event.preventDefault();
  const width = from.parentElement.cells.length;
  let row = from.parentElement.rowIndex + down;
  let column = from.cellIndex + right;
  while (row > 0 && row < table.rows.length && column > 0 && column < width) {
    const cell = table.rows[row].cells[column];
    const next = cell && cell.querySelector("button");
    if (next) {
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      return void next.focus();
    }
    row += down;
    column += right;
  }
}

function heatCell(row, label) {
  const attack = row.attacks.get(label);
  const found = under(row, label);
  const [kind, text, words] = heatLook(attack, found);
  const name = `${row.scheme}, ${chain(label)}: ${words}`;
  const button = attack
    ? make(
        "button",
        { type: "button", "data-at": row.at, "data-attack": label, "aria-label": name, tabindex: "-1" },
        text,
      )
    : "";
  return make("td", { class: kind, title: name }, button);
}

function heatLook(attack, found) {
  if (!attack) return ["untried", "", "not tried"];
  if (attack.status === "not applicable") return ["na", "", "does not apply"];
  if (!found) return attack.status === "failed" ? ["gone", "✕", "failed to run"] : ["untried", "?", "undecided"];
  const words = `${of(found)} survive, weakest p ${pValue(found.p)}`;
  if (state.shade) return [evidenceKind(found.p), known(found.p) ? decades(found.p) : "", words];
  const kind = found.hits === found.trials ? "all" : found.hits ? "some" : "none";
  return [
    kind,
    { all: "●", some: found.trials < 100 ? `${found.hits}/${found.trials}` : percent(found.share, 0), none: "○" }[kind],
    words,
  ];
}
const decades = (p) => (p >= 0.01 ? p.toFixed(2).replace(/^0/, "") : p.toExponential(0).replace("-", "−"));
const evidenceKind = (p) =>
  !known(p) ? "untried" : p > data.fpr * 1.002 ? "p0" : p > 1e-4 ? "p2" : p > 1e-9 ? "p3" : "p4";
