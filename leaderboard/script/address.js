// The address, which holds everything that was chosen.
// What an address may say; anything else is the default.
function settle() {
  const oneOf = (name, allowed) => (state[name] = allowed.includes(state[name]) ? state[name] : defaults[name]);
  if (!profiles.includes(state.profile)) state.profile = profiles[0] || "";
  const { choices, rows, drawn, usual, schemes } = profile();
  for (const name of FILTERS) oneOf(name, choices[name]);
  oneOf("view", Object.keys(VIEWS));
  for (const [name, allowed] of [
    ["verify", VERIFY],
    ["has", HAS],
  ])
    oneOf(
      name,
      allowed.map(([value]) => value),
    );
  oneOf("give", GIVE);
  oneOf("by", Object.keys(BUDGETS));
  oneOf("shade", ["", "p"]);
  oneOf("whole", ["", "1"]);
  oneOf("most", BUDGETS[state.by].values.map(String));
  state.lacks = MEANS.map(([name]) => name)
    .filter((name) => state.lacks.split(" ").includes(name))
    .join(" ");
  const loss = +state.loss;
  if (!(loss >= LOSSES.least && loss <= LOSSES.most) || loss === data.budget_pp) state.loss = "";
  state.loss = state.loss && String(Math.round(loss / LOSSES.step) * LOSSES.step);
  if (!COLUMNS.some((column) => column.id === state.sort)) state.sort = state.order = "";
  if (!["up", "down"].includes(state.order)) state.order = "";
  state.cols = COLUMNS.map((column) => column.id)
    .filter((id) => state.cols.split(" ").includes(id))
    .join(" ");
  if (!rows.some((row) => row.id === state.row)) state.row = "";
  if (!cellOf(state.cell)) state.cell = "";
  if (!drawn.includes(state.curves))
    state.curves = drawn.includes(state.attack) ? state.attack : usual || drawn[0] || "";
  if (!schemes.includes(state.scheme))
    state.scheme = (schemes.find((name) => !rows.find((row) => row.scheme === name).baseline) || schemes[0]) ?? "";
  settleChoice();
}

// A cell is named by its row and its attack.
const cellName = (row, label) => `${row.id} ${label}`;
function cellOf(name) {
  const space = name.indexOf(" ");
  const row = profile().rows.find((each) => each.id === name.slice(0, space));
  const attack = row && row.attacks.get(name.slice(space + 1));
  return attack ? { row, attack } : null;
}

function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = { ...defaults };
  for (const name of Object.keys(defaults)) if (given.has(name)) state[name] = given.get(name);
  settle();
}

function writeHash() {
  const idle = { curves: state.view !== "attacks", scheme: state.view !== "schemes", shade: state.view !== "heatmap" };
  const kept = new URLSearchParams(
    Object.entries(state).filter(([name, value]) => value !== defaults[name] && !idle[name]),
  );
  history.replaceState(null, "", "#" + kept);
}
