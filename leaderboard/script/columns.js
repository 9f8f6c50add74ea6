// Columns: the value that sorts, and the cell that shows it.
const COLUMNS = [
  { id: "scheme", label: "Scheme", value: (row) => row.scheme, cell: schemeCell },
  {
    ...text("origin", "Origin"),
    extra: true,
    cell: (row) => ({ parts: [row.origin], kind: "tag", tip: ORIGINS[row.origin] }),
  },
  text("carrier", "Carrier"),
  text("access", "Access"),
  text("arch", "Arch"),
  text("dataset", "Data set"),
  text("situation", "Situation"),
  {
    id: "seeds",
    label: "Seeds",
    number: true,
    value: (row) => row.seeds.length,
    cell: (row) => ({ parts: [row.seeds.length], kind: "num tag" }),
  },
  {
    id: "fidelity",
    label: "Fidelity",
    unit: "pp",
    number: true,
    value: (row) => row.fidelity && row.fidelity.mean,
    cell: (row) => meanCell(row.fidelity, 2, ""),
  },
  {
    id: "effectiveness",
    label: "Effective",
    unit: "detected",
    number: true,
    value: (row) => rate(row.effectiveness),
    cell: (row) => stateCell(row.effectiveness, [], row.effectiveness && `detected ${proportion(row.effectiveness)}`),
  },
  {
    id: "protection",
    label: "Protection",
    unit: "advantage",
    number: true,
    value: (row) => row.protection && row.protection.advantage,
    cell: protectionCell,
  },
  {
    id: "evidence",
    label: "Evidence",
    unit: "p-value",
    number: true,
    up: true,
    value: (row) => row.evidence.p_value,
    cell: (row) => ({
      parts: [pValue(row.evidence.p_value), known(row.evidence.ber) ? sub(`BER ${percent(row.evidence.ber)} %`) : null],
      kind: "num",
    }),
  },
  {
    id: "robustness",
    label: "Robustness",
    unit: "survives",
    number: true,
    // A worst case over few attacks is an easy one: coverage first, then survival, then the cost of removal.
    keys: [covered, (row) => rate(hardness(row)), (row) => hardness(row) && hardness(row).pp],
    cell: robustnessCell,
  },
  {
    id: "rank",
    label: "Rank",
    unit: "possible",
    number: true,
    up: true,
    extra: true,
    value: (row) => ranked(row) && row.rank.low,
    cell: (row) =>
      ranked(row)
        ? { parts: [ranks(row.rank), sub(`of ${row.rank.of}`)], kind: "num", tip: rankText(row.rank) }
        : { parts: [MISSING], kind: "num missing", tip: settled.usual ? null : "ranks are of the usual choice" },
  },
  {
    id: "removal",
    label: "Removal",
    unit: "pp",
    number: true,
    value: (row) => (removes(row) ? hardness(row).pp + (hardness(row).more ? 1e-6 : 0) : null),
    cell: removalCell,
  },
  {
    id: "security",
    label: "False claims",
    unit: "all nulls",
    number: true,
    up: true,
    value: (row) => (row.calibrated ? row.calibrated.rate : row.security && rate(row.security.clean)),
    cell: securityCell,
  },
  {
    id: "detectability",
    label: "Detectability",
    unit: "p-value",
    number: true,
    extra: true,
    value: (row) => row.visible && row.visible.p,
    cell: visibleCell,
  },
  {
    id: "forged",
    label: "Forged",
    unit: "committed / not",
    number: true,
    value: (row) => bestForgery(row) && bestForgery(row).committed,
    cell: forgedCell,
  },
  {
    id: "embedding",
    label: "Embedding",
    unit: "× training",
    number: true,
    up: true,
    value: (row) => row.embed_ratio && row.embed_ratio.mean,
    cell: (row) => meanCell(row.embed_ratio, 2, "×"),
  },
  {
    id: "runtime",
    label: "Run time",
    unit: "a cell",
    number: true,
    up: true,
    extra: true,
    value: (row) => row.costs && row.costs.cell_s,
    cell: (row) =>
      row.costs ? { parts: [duration(row.costs.cell_s)], kind: "num" } : { parts: [MISSING], kind: "num missing" },
  },
  {
    id: "cost",
    label: "Cost",
    unit: "device hours",
    number: true,
    up: true,
    extra: true,
    value: (row) => row.costs && row.costs.hours,
    cell: (row) =>
      row.costs
        ? { parts: [shortly(+row.costs.hours.toPrecision(2)), sub(row.costs.devices.join(", "))], kind: "num" }
        : { parts: [MISSING], kind: "num missing" },
  },
  {
    id: "date",
    label: "Date",
    unit: "newest",
    extra: true,
    value: (row) => row.date,
    cell: (row) => ({ parts: [row.date ? row.date.slice(0, 10) : MISSING], kind: "tag", tip: row.date }),
  },
];
const natural = (column) => (column.number && !column.up ? "down" : "up");
const METRICS = COLUMNS.findIndex((column) => column.id === "fidelity");
const reasons = (row, attack) =>
  row.problems
    .filter((p) => !attack || p.attack === attack)
    .map((p) => `${p.attack}: ${p.status}: ${p.reason}`)
    .join("\n");
// The scheme always, then what the reader chose; by default no extras, and no data set where only one is shown.
const usualColumns = () => COLUMNS.filter((column) => !column.extra && (column.id !== "dataset" || !state.dataset));
const shown = () =>
  state.cols
    ? COLUMNS.filter((column) => column.id === "scheme" || state.cols.split(" ").includes(column.id))
    : usualColumns();
const measured = (column) => COLUMNS.indexOf(column) >= METRICS;
