// One curve a row under one attack, drawn after the table and a few at a time.
const PANELS = 24;
let drawing = 0;

async function overview(rows) {
  const mine = ++drawing;
  const faced = rows.filter((row) => (row.attacks.get(state.curves) || {}).drawn);
  const telling = ["variant", "arch", "dataset", "situation"].filter(
    (name) => new Set(faced.map((row) => row[name])).size > 1,
  );
  byId("overview").hidden = !profile().drawn.length;
  const panels = [];
  for (const row of faced.slice(0, PANELS)) {
    const attack = (row.details || (await detailsOf(row))).attacks[state.curves];
    if (mine !== drawing) return;
    if (flat(attack.curves, accuracies).length) panels.push(panel(row, attack, telling));
  }
  if (faced.length > PANELS) panels.push(note(`${faced.length - PANELS} more rows: filter the table to see their curves.`));
  byId("panels").replaceChildren(...(panels.length ? panels : [note("No row that is shown has curves for this attack.")]));
}

const note = (text) => make("p", { class: "empty" }, text);

function panel(row, attack, telling) {
  const words = telling.map((name) => row[name]).concat(reported(row) ? "self-reported" : "");
  const drawn = chart({
    title: row.scheme,
    note: words.filter(Boolean).join(", "),
    curves: attack.curves,
    unit: attack.unit,
    tips: tip(attack.unit),
    axis: { ...PERCENT, label: (v) => `${v} %` },
    values: accuracies,
    limits: budgetLine(attack.curves).map((each) => ({ ...each, label: "" })),
  });
  drawn.classList.toggle("told", reported(row));
  return drawn;
}
