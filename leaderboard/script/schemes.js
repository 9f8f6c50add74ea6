// One scheme: its card, its results for each architecture, data set and situation, and under every attack.
async function byScheme(rows) {
  const { schemes } = profile();
  const select = make("select", { id: "scheme" });
  fill(select, schemes, state.scheme, null);
  select.addEventListener("change", () => change({ scheme: select.value }));
  const mine = profile().rows.filter((row) => row.scheme === state.scheme);
  for (const row of mine.slice(0, PLACES)) await detailsOf(row);
  return [
    make("div", { class: "tools" }, make("label", { class: "inline" }, "Scheme", select)),
    mine.length ? sources(mine[0]) : null,
    mine.length ? placesTable(mine) : note("No rows."),
    picturesOf(mine.slice(0, PLACES)),
    falseTable(mine.slice(0, PLACES)),
    visibleTable(mine.slice(0, PLACES)),
    ...mine.slice(0, PLACES).map((row) => attacksOf(row, mine)),
    mine.length > PLACES ? note(`${mine.length - PLACES} more rows of this scheme: see the table.`) : null,
  ];
}

const PLACES = 8; // rows of a scheme whose attacks are listed
const PLACE_COLUMNS = [
  "seeds",
  "fidelity",
  "effectiveness",
  "protection",
  "evidence",
  "robustness",
  "rank",
  "removal",
  "security",
  "forged",
  "embedding",
  "cost",
  "date",
];

const placeOf = (row) => [row.arch, row.dataset, row.situation, row.variant].filter(Boolean).join(", ");

function placesTable(rows) {
  const columns = PLACE_COLUMNS.map((id) => COLUMNS.find((column) => column.id === id));
  const head = ["Architecture, data, situation", ...columns.map((column) => column.label)].map((text) =>
    make("th", { scope: "col" }, text),
  );
  const body = rows.map((row) => {
    const cells = columns.map((column) => {
      const { parts, kind, tip } = column.cell(row);
      return make("td", { class: kind, title: tip || null }, ...parts);
    });
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, placeOf(row), row.origin === "computed here" ? null : sub(row.origin)),
      ...cells,
    );
  });
  return block(
    "Results by architecture and situation",
    make(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Results" },
      make("table", { class: "plain" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)),
    ),
  );
}

// Every attack that was tried, those that break the claim first: what is left, what removal costs, and a small curve.
function attacksOf(row, siblings) {
  const order = (found) => (found ? found.share : 2);
  const all = [...row.attacks.values()].filter(
    (attack) => attack.status !== "not applicable" && !["evidence", "none"].includes(attack.stage),
  );
  const each = all
    .map((attack) => ({ attack, found: under(row, attack.label) }))
    .sort((a, b) => order(a.found) - order(b.found));
  const telling = tellingOf(siblings);
  const none = [...row.attacks.values()].filter((attack) => attack.status === "not applicable").length;
  return block(
    `Under every attack${
      telling.length
        ? `: ${telling
            .map((name) => row[name])
            .filter(Boolean)
            .join(", ")}`
        : ""
    }`,
    make("div", { class: "panels small" }, ...each.map(({ attack, found }) => attackPanel(row, attack, found))),
    none ? make("p", { class: "sub" }, `${none} more attacks do not apply.`) : null,
  );
}

function attackPanel(row, attack, found) {
  const { curves, unit } = row.details.attacks[attack.label];
  const said = found
    ? `${of(found)} survive, removal ${found.removal ? costSaid(found.removal) : MISSING}`
    : attack.status === "failed"
      ? "failed to run"
      : "undecided";
  const words = said + (opened(attack.label) ? "" : "; not open to this attacker");
  const made =
    curves.length && flat(curves, accuracies).length
      ? chart({
          title: chain(attack.label),
          note: words,
          curves,
          unit,
          tips: tip(unit),
          axis: PERCENT,
          values: accuracies,
          limits: budgetLine(curves).map((each) => ({ ...each, label: "" })),
          size: SMALL,
        })
      : figure(chain(attack.label), words, make("p", { class: "empty" }, "no curve"));
  made.classList.toggle("shut", !opened(attack.label));
  const button = make("button", { type: "button", class: "plain" }, "command, provenance");
  button.addEventListener("click", () => showCell(row, attack.label));
  made.append(button);
  return made;
}
