// Cells of the table: what a column shows of a row.
const chosen = (row) => (state.attack && row.attacks.get(state.attack)) || {};
const hardness = worst;
const removes = (row) => hardness(row) && known(hardness(row).pp);
const removal = (row) => hardness(row) && hardness(row).removal;
const rate = (count) => (count ? count.hits / count.trials : null);
const text = (id, label) => ({
  id,
  label,
  value: (row) => row[id],
  cell: (row) => ({ parts: [row[id] ?? MISSING], kind: "tag", tip: row[id] }),
});

function stateCell(count, lines, tip) {
  if (!count) return { parts: [MISSING], kind: "num missing", tip };
  const kind = count.hits === count.trials ? "all" : count.hits === 0 ? "none" : "some";
  const glyph = { all: "● ", some: "◐ ", none: "○ " }[kind];
  return {
    parts: [make("span", { class: "pill" }, glyph + of(count)), ...lines.map((line) => sub(line))],
    kind: "num state " + kind,
    tip,
  };
}

// What tells rows of one scheme apart, where no column says it.
function hiddenPlace(row) {
  const said = shown().map((column) => column.id);
  const told = (name) => said.includes(name) || state[name] || profile().choices[name].length < 2;
  return ["arch", "dataset", "situation"]
    .filter((name) => !told(name))
    .map((name) => row[name])
    .join(" · ");
}

const originClass = (row) => (row.origin === "verified" ? "sure" : row.origin === "failed" ? "told fail" : "told");

function schemeCell(row) {
  const badges = [];
  for (const [status, word] of [
    ["failed", "failed"],
    ["not applicable", "n/a"],
  ]) {
    const found = row.problems.filter((each) => each.status === status);
    const cells = found.reduce((sum, problem) => sum + problem.seeds.length, 0);
    const why = found.map((p) => `${p.attack}: ${p.reason}`).join("\n");
    if (cells)
      badges.push(
        make(
          "span",
          { class: `badge ${status === "failed" ? "fail" : ""}`, title: why },
          `${plural(cells, "cell")} ${word}`,
        ),
        " ",
      );
  }
  if (row.origin !== "computed here")
    badges.push(
      make("span", { class: `badge ${originClass(row)}`, title: ORIGINS[row.origin] || null }, row.origin),
      " ",
    );
  if (row.warnings.length)
    badges.push(make("span", { class: "badge warn", title: row.warnings.join("\n") }, "warning"));
  const tags = [row.carrier, row.access, row.arch, row.dataset, row.situation, plural(row.seeds.length, "seed")].map(
    (t) => t ?? MISSING,
  );
  const button = make(
    "button",
    { type: "button", class: "name", "aria-expanded": String(state.row === row.id) },
    row.scheme,
  );
  const links = cardLinks("schemes", row.scheme);
  return {
    parts: [
      button,
      row.variant ? sub(row.variant, "wrap") : null,
      hiddenPlace(row) ? sub(hiddenPlace(row), "wrap only-wide") : null,
      sub(tags.join(" · "), "only-narrow"),
      badges.length ? make("span", { class: "badges" }, ...badges) : null,
      links.length ? make("span", { class: "sub links" }, ...links) : null,
    ],
    kind: "wide scheme",
    tip: (card("schemes", row.scheme) || {}).title,
  };
}

const card = (kind, name) => (Object.hasOwn(data.cards[kind] || {}, name) ? data.cards[kind][name] : null);
function cardLinks(kind, name) {
  const { link, code, paper } = card(kind, name) || {};
  const anchor = (href, text, title) =>
    /^https?:/.test(href || "") ? [make("a", { href, title, rel: "noopener noreferrer" }, text)] : [];
  return [...anchor(link, "paper", paper), ...anchor(code, "code", "the authors' implementation")];
}

const covered = (row) => (state.attack || !hardness(row) ? null : hardness(row).covered / hardness(row).of);
const coverage = (found) => `${found.covered} of ${plural(found.of, "attack")}`;

const brokenBy = (found) => {
  const names = found.breakers.map(chain);
  const more = names.length > 8 ? ` and ${names.length - 8} more` : "";
  return names.length ? `; broken under ${names.slice(0, 8).join(", ")}${more}` : "";
};

function robustnessCell(row) {
  const found = hardness(row);
  const one = chosen(row);
  if (one.status && one.status !== "ok") {
    const word = one.status === "failed" ? "✕ failed" : "n/a";
    return { parts: [word], kind: "num missing", tip: reasons(row, one.label) };
  }
  const lines = found && !state.attack ? [coverage(found), `mean ${percent(found.mean, 0)} %`] : [];
  const failed = state.attack ? 0 : [...row.attacks.values()].filter((each) => each.status === "failed").length;
  const told = ranked(row) ? `; ${rankText(row.rank)}` : "";
  if (told) lines.push(`rank ${ranks(row.rank)} of ${row.rank.of}`);
  if (failed) lines.push(`${plural(failed, "attack")} failed`);
  if (found && found.undecided) lines.push(`${found.undecided} undecided`);
  return stateCell(
    found,
    lines,
    found
      ? `survives ${proportion(found)}${state.attack ? "" : `, over ${coverage(found)}${brokenBy(found)}`}${told}`
      : "no attack of this row has been judged",
  );
}

function removalCell(row) {
  const found = removal(row);
  if (!found) return { parts: [MISSING], kind: "num missing" };
  return {
    parts: [(found.more ? "> " : "") + fixed(found.pp, 1)],
    kind: "num",
    tip: found.values ? `each of the decided ${units(row)}: ${bounds(found)} points` : null,
  };
}

// Ranks are of the whole table at the usual choice: every attack, and the usual loss.
const ranked = (row) => (settled.usual ? row.rank : null);

function rankText(found) {
  const few =
    found.seeds < found.needed
      ? `; with ${plural(found.seeds, "seed")} no two can be told apart: it takes ${found.needed}`
      : "";
  const end = known(found.score.low) ? ` (95 %: ${percent(found.score.low)} to ${percent(found.score.high)} %)` : "";
  const survives = `survives ${percent(found.score.mean)} % of the attacks${end}, mean over seeds`;
  return `rank ${ranks(found)} of ${found.of}; ${survives}${few}`;
}

function securityCell(row) {
  if (row.calibrated) return calibratedCell(row);
  const count = row.security && row.security.clean;
  if (!count) return { parts: [MISSING], kind: "num missing" };
  const over = count.beyond;
  const parts = [
    make("span", { class: over ? "over" : "" }, `${over ? "▲ " : ""}${count.hits}/${count.trials}`),
    sub(`${percent(count.low)}–${percent(count.high)} %`),
  ];
  return { parts, kind: "num", tip: securityText(row).join("\n") };
}

const bestForgery = (row) => row.security && row.security.best_forgery;

function forgedCell(row) {
  const found = bestForgery(row);
  if (!found) return { parts: [MISSING], kind: "num missing" };
  const shownAs = (value) => (known(value) ? pValue(value) : MISSING);
  return {
    parts: [shownAs(found.committed), sub(`/ ${shownAs(found.uncommitted)}`)],
    kind: "num",
    tip: "least p-value of a forgery: with a key committed to before the suspect was seen / without",
  };
}

function meanCell(found, digits, suffix) {
  if (!found) return { parts: [MISSING], kind: "num missing" };
  const half = known(found.low) ? fixed((found.high - found.low) / 2, digits) : MISSING;
  return {
    parts: [fixed(found.mean, digits) + suffix, sub(`± ${half}`)],
    kind: "num",
    tip: mean(found, digits, suffix),
  };
}

function protectionCell(row) {
  const found = row.protection;
  if (!found) return { parts: [MISSING], kind: "num missing" };
  const heldout = found.others ? ` · ${found.refused} of ${found.others}` : "";
  return { parts: [fixed(found.advantage, 2), sub(of(found) + heldout)], kind: "num", tip: protection(found) };
}
