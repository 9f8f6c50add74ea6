// One attack: its card, what survives it, and a curve a row with every seed a dot.
const PANELS = 24;

async function byAttack(rows) {
  const { drawn } = profile();
  if (!drawn.length) return [note("No row of this profile has curves.")];
  const select = make("select", { id: "curves" });
  fill(select, drawn, state.curves, null, chain);
  select.addEventListener("change", () => change({ curves: select.value }));
  const legend = make(
    "span",
    { class: "legend inline" },
    make("span", { class: "dot on" }),
    " ownership detected ",
    make("span", { class: "dot off" }),
    " not detected ",
    make("span", { class: "rule" }),
    ` ${lossAllowed()} points below the marked models`,
  );
  const faced = rows.filter((row) => (row.attacks.get(state.curves) || {}).drawn);
  const telling = tellingOf(faced);
  const panels = [];
  for (const row of faced.slice(0, PANELS)) {
    const attack = (row.details || (await detailsOf(row))).attacks[state.curves];
    if (attack && flat(attack.curves, accuracies).length) panels.push(panel(row, attack, telling));
  }
  if (faced.length > PANELS)
    panels.push(note(`${faced.length - PANELS} more rows: filter the table to see their curves.`));
  return [
    make("div", { class: "tools" }, make("label", { class: "inline" }, "Attack", select), legend),
    make("div", { class: "about" }, ...attackSources(state.curves), attackFacts(rows)),
    make(
      "div",
      { id: "panels", class: "panels" },
      ...(panels.length ? panels : [note("No row that is shown has curves for this attack.")]),
    ),
  ];
}

function attackFacts(rows) {
  const lacks = lacked(state.curves);
  const own = rows.filter((row) => !reported(row) && !baseline(row));
  const found = own.map((row) => under(row, state.curves)).filter(Boolean);
  const survive = found.filter((each) => each.hits === each.trials).length;
  const open = lacks.length
    ? `Not open to the attacker chosen above, who lacks: ${lacks.join(", ")}.`
    : "Open to the attacker chosen above.";
  const counted = found.length
    ? ` For ${lossAllowed()} points at most, ${survive} of ${plural(found.length, "row")} keep every claim.`
    : "";
  return make("p", {}, open + counted);
}

function panel(row, attack, telling) {
  const words = telling.map((name) => row[name]).concat(reported(row) ? row.origin : "");
  const made = chart({
    title: row.scheme,
    note: words.filter(Boolean).join(", "),
    curves: attack.curves,
    unit: attack.unit,
    tips: tip(attack.unit),
    axis: { ...PERCENT, label: (v) => `${v} %` },
    values: accuracies,
    limits: budgetLine(attack.curves).map((each) => ({ ...each, label: "" })),
  });
  made.classList.toggle("told", reported(row));
  return made;
}
