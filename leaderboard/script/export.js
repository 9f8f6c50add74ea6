// What is shown, as CSV, JSON or LaTeX: the rows and columns of the table, or the cells of the heat map.
const ends = (name, found) => [
  [name, found && found.mean],
  [`${name}_low`, found && found.low],
  [`${name}_high`, found && found.high],
];
const counts = (name, found) => [
  [`${name}_hits`, found && found.hits],
  [`${name}_trials`, found && found.trials],
  [`${name}_low`, found && found.low],
  [`${name}_high`, found && found.high],
];
const PLAIN = ["origin", "carrier", "access", "arch", "dataset", "situation"];
// What a column says in figures.
const FIELDS = {
  scheme: (row) => [
    ["scheme", row.scheme],
    ["variant", row.variant],
  ],
  ...Object.fromEntries(PLAIN.map((name) => [name, (row) => [[name, row[name]]]])),
  seeds: (row) => [["seeds", row.seeds.length]],
  fidelity: (row) => ends("fidelity_pp", row.fidelity),
  effectiveness: (row) => counts("effectiveness", row.effectiveness),
  protection: (row) => [
    ...["hits", "trials", "refused", "others", "chance", "advantage"].map((name, i) => [
      `protection_${["matches", "trials", "heldout_refused", "heldout_users", "chance", "advantage"][i]}`,
      row.protection && row.protection[name],
    ]),
  ],
  evidence: (row) => [
    ["p_value", row.evidence.p_value],
    ["ber", row.evidence.ber],
  ],
  robustness: (row) => [
    ...counts("robustness", hardness(row)),
    ["robustness_mean", hardness(row) && hardness(row).mean],
    ["attacks_covered", hardness(row) && !state.attack ? hardness(row).covered : null],
    ["attacks_faced", hardness(row) && !state.attack ? hardness(row).of : null],
    ["rank_best", ranked(row) && row.rank.low],
    ["rank_worst", ranked(row) && row.rank.high],
    ["ranked", ranked(row) && row.rank.of],
  ],
  rank: () => [],
  removal: (row) => [
    ["removal_cost_pp", removal(row) && removal(row).pp],
    ["removal_cost_is_lower_bound", removal(row) && removal(row).more],
  ],
  security: (row) => [
    ...counts("false_claims", row.security && row.security.clean),
    ...["rate", "low", "high", "n", "null", "nominal"].map((name) => [
      `calibrated_${name}`,
      row.calibrated && row.calibrated[name],
    ]),
  ],
  detectability: (row) => [
    ["detectability_p_value", row.visible && row.visible.p],
    ["detectability_auc", row.visible && row.visible.auc],
    ["detectability_test", row.visible && row.visible.test],
  ],
  forged: (row) => [
    ["forged_p_value_committed", bestForgery(row) && bestForgery(row).committed],
    ["forged_p_value_uncommitted", bestForgery(row) && bestForgery(row).uncommitted],
  ],
  embedding: (row) => ends("embed_ratio", row.embed_ratio),
  runtime: (row) => [["cell_s", row.costs && row.costs.cell_s]],
  cost: (row) => [
    ["device_hours", row.costs && row.costs.hours],
    ["devices", row.costs && row.costs.devices.join(" ")],
  ],
  date: (row) => [["date", row.date]],
};

// The choice stands in every line: a number without it says nothing.
const chosenSo = () => [
  ["fpr", data.fpr],
  ["attack", state.attack || "worst case"],
  ["loss_allowed_pp", lossAllowed()],
  ["attacker_has", state.has || "white-box"],
  ["attacker_lacks", state.lacks],
  ["budget", state.most === "" ? "none" : `${state.by} ${state.most}`],
];

function tableLines() {
  return visible().map((row) => [
    ["profile", row.profile],
    ["origin", row.origin],
    ...shown()
      .filter((column) => column.id !== "origin")
      .flatMap((column) => FIELDS[column.id](row)),
    ["status", row.status],
    ["problems", reasons(row)],
    ...chosenSo(),
  ]);
}

function heatLines() {
  const [rows, labels] = heated(visible());
  return rows.flatMap((row) =>
    labels
      .filter((label) => row.attacks.has(label))
      .map((label) => {
        const found = under(row, label);
        const place = ["profile", "origin", "scheme", "variant", "arch", "dataset", "situation"].map((name) => [
          name,
          row[name],
        ]);
        const said = [
          ["attack", label],
          ["status", row.attacks.get(label).status],
          ...counts("survive", found),
          ["weakest_p_value", found && found.p],
        ];
        return [...place, ...said, ...removalOf(found), ...chosenSo().filter(([name]) => name !== "attack")];
      }),
  );
}
const removalOf = (found) => [
  ["removal_cost_pp", found && found.removal && found.removal.pp],
  ["removal_cost_is_lower_bound", found && found.removal && found.removal.more],
];
const exported = () => (["heatmap", "removal", "attacks"].includes(state.view) ? heatLines() : tableLines());

function csv() {
  const lines = exported();
  const quote = (value) => {
    if (!known(value)) return "";
    // A spreadsheet would run a text that begins like a formula.
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? "'" + value : String(value);
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const head = lines.length ? [lines[0].map(([name]) => name)] : [];
  const all = [...head, ...lines.map((each) => each.map(([, value]) => quote(value)))];
  return all.map((each) => each.join(",")).join("\r\n") + "\r\n";
}

const json = () =>
  JSON.stringify(
    exported().map((each) => Object.fromEntries(each)),
    null,
    1,
  ) + "\n";

// The table as it reads on the page, for the package booktabs.
const SPECIAL = {
  "\\": "\\textbackslash{}",
  "~": "\\textasciitilde{}",
  "^": "\\textasciicircum{}",
  "−": "$-$",
  "×": "$\\times$",
  "●": "$\\bullet$",
  "○": "$\\circ$",
  "◐": "$\\odot$",
  "±": "$\\pm$",
  "▲": "$\\triangle$",
  "–": "--",
  "→": "$\\rightarrow$",
  ">": "$>$",
  "<": "$<$",
  "✕": "$\\times$",
};
const tex = (text) =>
  text.replace(/[\\~^−×●○◐±▲–→><✕]|[&%$#_{}]/g, (letter) => SPECIAL[letter] || "\\" + letter).replace(/\s+/g, " ");
function latex() {
  const columns = shown();
  const said = (parts) =>
    parts
      .filter(known)
      .map((part) => (part instanceof Node ? part.textContent : String(part)))
      .join(" ")
      .trim();
  const cells = (row) =>
    columns.map((column) =>
      column.id === "scheme"
        ? [row.scheme, row.variant, hiddenPlace(row)].filter(Boolean).join(" ")
        : said(column.cell(row).parts),
    );
  const heads = columns.map((column) => tex(column.label + (column.unit ? ` (${column.unit})` : "")));
  const caveat = tex(`Profile ${state.profile}; ${question()}; ${100 * data.fpr} % false positives.`);
  const lines = visible().map((row) => cells(row).map(tex).join(" & ") + " \\\\");
  return [
    `% ${caveat}`,
    `\\begin{tabular}{${columns.map((column) => (column.number ? "r" : "l")).join("")}}`,
    "\\toprule",
    heads.join(" & ") + " \\\\",
    "\\midrule",
    ...lines,
    "\\bottomrule",
    "\\end{tabular}",
    "",
  ].join("\n");
}

function download(kind) {
  const [content, type, ending] = {
    csv: [csv, "text/csv", "csv"],
    json: [json, "application/json", "json"],
    latex: [latex, "application/x-tex", "tex"],
  }[kind];
  const url = URL.createObjectURL(new Blob([content()], { type }));
  make("a", { href: url, download: `watermark-bench-${state.profile}.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
