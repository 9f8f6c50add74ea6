// Claims that are false by construction, by kind of null, and what forgeries reach.
function falseClaims(rows) {
  const told = rows.filter((row) => row.security);
  if (!told.length) return [note("No row that is shown was asked for false claims.")];
  const kinds = distinct(told.flatMap((row) => Object.keys((row.security.clean || {}).kinds || {})));
  const heads = [
    "Scheme",
    ...kinds,
    "fresh key after the attacks",
    "forged, committed",
    "forged, not committed",
    "forged at some rung",
  ];
  const telling = tellingOf(told);
  const body = told.slice(0, MORE).map((row) => {
    const { clean, attacked, forged, best_forgery: best } = row.security;
    const cells = [
      ...kinds.map((kind) => countCell(clean && Object.hasOwn(clean.kinds, kind) ? clean.kinds[kind] : null)),
      countCell(attacked),
    ];
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, nameOf(row, telling), row.origin === "computed here" ? null : sub(row.origin)),
      ...cells,
      forgeryCell(best && best.committed),
      forgeryCell(best && best.uncommitted),
      countCell(forged, true),
    );
  });
  return [
    make(
      "p",
      {},
      `Keys that claim a model they do not own, and are accepted: at most ${100 * data.fpr} % may be. The 95 % interval ` +
        "allows for trials that share a network or a key. ▲ marks a count that a valid scheme would reach once in a " +
        "thousand times. A forgery with a committed key worked with one published before the suspect was seen.",
    ),
    make(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "False claims" },
      make(
        "table",
        { class: "plain" },
        make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
        make("tbody", {}, ...body),
      ),
    ),
  ];
}

function countCell(count, forged = false) {
  if (!count) return make("td", { class: "num missing" }, MISSING);
  const bounds = known(count.low) ? `${percent(count.low)}–${percent(count.high)} %` : "no interval";
  const over = forged ? count.hits > 0 : count.beyond;
  return make(
    "td",
    { class: "num" },
    make("span", { class: over ? "over" : "" }, `${over ? "▲ " : ""}${count.hits}/${count.trials}`),
    sub(bounds),
  );
}
const forgeryCell = (p) =>
  make(
    "td",
    { class: known(p) ? "num" : "num missing" },
    known(p)
      ? make("span", { class: p <= data.fpr ? "over" : "" }, `${p <= data.fpr ? "▲ " : ""}${pValue(p)}`)
      : MISSING,
  );
