// What was measured about a scheme beside its records: false claims by kind of null, and how visible the mark is.
const NULLS = ["Null", "Rate", "95 % interval", "Claims", "Networks", "Held to"];
const SIGHTS = ["Test", "Best seen in", "p", "AUC", "95 % interval", "Marked", "Clean", "Verdict"];
const TESTS = {
  ks: "distribution of weights (Kolmogorov-Smirnov)",
  variance: "variance of weights",
  classifier: "classifier, from other seeds",
};
const within = (found) => (known(found.low) ? `${percent(found.low)}–${percent(found.high)} %` : MISSING);
const nullName = ({ null: kind, attack }) => (attack === "none" ? kind : `${kind}: ${chain(attack)}`);
const flagged = (text, over) => make("span", { class: over ? "over" : null }, over ? `▲ ${text}` : text);

function rateCells(found) {
  const of = `${+(100 * found.nominal).toPrecision(3)} %`;
  return [flagged(`${percent(found.rate)} %`, found.beyond), within(found), found.n, found.networks || MISSING, of];
}

function sightCells({ part, p, auc, low, high, seeds, clean, verdict }) {
  const ends = known(low) ? `${fixed(low, 2)}–${fixed(high, 2)}` : MISSING;
  const said = flagged(verdict, verdict === "visible");
  return [part ?? MISSING, pValue(p), fixed(auc, 2), ends, plural(seeds, "seed"), clean, said];
}

// A table, below a head for each row of the leaderboard where there are several; lines are [row, first cell, cells].
function measuredTable(title, heads, lines, words) {
  const rows = [...new Set(lines.map(([row]) => row))];
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.flatMap((row) => {
    const above = make("th", { scope: "colgroup", class: "of", colspan: heads.length }, placeOf(row));
    const mine = lines
      .filter(([each]) => each === row)
      .map(([, name, cells]) =>
        make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell))),
      );
    return rows.length > 1 ? [make("tr", {}, above), ...mine] : mine;
  });
  const table = make("table", { class: "plain" }, make("thead", {}, head), make("tbody", {}, ...body));
  const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table);
  return block(title, make("p", { class: "sub" }, words), scroll);
}

function falseTable(rows) {
  const lines = rows.flatMap((row) => row.details.calibration.map((found) => [row, nullName(found), rateCells(found)]));
  const words =
    "Claims that are false by construction and accepted, on networks and with keys of their own, at the measured " +
    "rate nearest to the one of this page. ▲ marks more than chance explains.";
  return lines.length ? measuredTable("False claims", NULLS, lines, words) : null;
}

function visibleTable(rows) {
  const name = (found) => TESTS[found.test] || found.test;
  const lines = rows.flatMap((row) => row.details.detectability.map((found) => [row, name(found), sightCells(found)]));
  const words =
    "To somebody with the network's weights and clean networks of its kind, and no key. AUC: the chance that a " +
    "marked network stands out more than a clean one, 0.5 where nothing shows. p is adjusted for the number of tests.";
  return lines.length ? measuredTable("Is the mark visible in the weights?", SIGHTS, lines, words) : null;
}

const PICTURED = { before: "before the mark", after: "marked", triggers: "triggers" };

function picturesOf(rows) {
  const row = rows.find(({ details }) => details.pictures.length);
  if (!row) return null;
  const figures = row.details.pictures.map(({ what, images, png }) => {
    const named = PICTURED[what] || `left by ${chain(what)}`;
    const picture = make("img", { src: `data:image/png;base64,${png}`, alt: `${plural(images, "image")}, ${named}` });
    return make("figure", {}, picture, make("figcaption", {}, named));
  });
  const words = `Images of ${row.dataset}: the same ones before the mark, with it, and at the strongest rung of attacks.`;
  return block("What it looks like", make("p", { class: "sub" }, words), make("div", { class: "pictures" }, ...figures));
}

const calibratedText = (found) =>
  `${nullName(found)}: ${percent(found.rate)} % of ${plural(found.n, "claim")} (95 %: ${within(found)}), ` +
  `held to ${+(100 * found.nominal).toPrecision(3)} %${found.beyond ? ", beyond chance" : ""}`;
const visibleText = (found) =>
  `${TESTS[found.test] || found.test}: ${found.verdict}` +
  (known(found.p) ? `, p ${pValue(found.p)}, AUC ${fixed(found.auc, 2)}${found.part ? `, in ${found.part}` : ""}` : "");

// Cells of the table of schemes.
function calibratedCell(row) {
  const found = row.calibrated;
  const parts = [flagged(`${percent(found.rate)} %`, found.beyond), sub(within(found))];
  return { parts, kind: "num", tip: calibratedText(found) };
}

function visibleCell(row) {
  const found = row.visible;
  if (!found) return { parts: [MISSING], kind: "num missing" };
  const parts = [flagged(pValue(found.p), found.verdict === "visible"), sub(`AUC ${fixed(found.auc, 2)}`)];
  return { parts, kind: "num", tip: visibleText(found) };
}
