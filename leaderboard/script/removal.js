// What removal costs under each attack: the least accuracy that breaks the claim, every seed and owner a dot.
const COST_ROWS = 24;
function removalCosts(rows) {
  const drawn = rows.filter((row) => row.status === "ok" && !baseline(row)).slice(0, COST_ROWS);
  const limits = { ...choice().limits, loss: UNLIMITED.loss };
  const telling = tellingOf(drawn);
  const costs = drawn.map((row) => [row, costsOf(row, limits)]).filter(([, found]) => found.length);
  const all = costs
    .flatMap(([, found]) => found.slice(0, CHEAPEST))
    .flatMap(([, found]) => found.removal.values.map(([pp]) => pp));
  const most = Math.min(40, Math.max(10, ...all)); // one axis for all, so that two can be compared
  const charts = costs.map(([row, found]) => costChart(nameOf(row, telling), found, most));
  if (!charts.length) return [note("No row that is shown faced an attack that is open to this attacker.")];
  return [
    make(
      "p",
      { class: "legend" },
      make("span", {}, make("span", { class: "dot off" }), " broken for so much accuracy"),
      make("span", {}, make("span", { class: "dot on" }), " still holds at the largest loss that was tried (a bound)"),
      make("span", {}, make("span", { class: "rule" }), ` ${lossAllowed()} points`),
    ),
    make(
      "p",
      { class: "sub" },
      `The cheapest attacks first; at most ${CHEAPEST} of each scheme, within the budget chosen above. ` +
        `What costs more than ${fixed(most, 1)} points stands at the right edge.`,
    ),
    make("div", { class: "panels costs" }, ...charts),
    rows.length > drawn.length
      ? make("p", { class: "sub" }, `Drawn: ${charts.length} of ${rows.length} rows. Filter to see others.`)
      : null,
  ];
}

const CHEAPEST = 12;
function costsOf(row, limits) {
  return row.judged
    .filter((attack) => opened(attack.label))
    .map((attack) => [attack.label, judge([attack], limits)])
    .filter(([, found]) => found && found.removal)
    .sort(([, a], [, b]) => a.removal.more - b.removal.more || a.removal.pp - b.removal.pp);
}

function costChart(name, costs, most) {
  const shown = costs.slice(0, CHEAPEST);
  const [width, left, pitch, top] = [340, 128, 15, 4];
  const x = (pp) => left + (Math.min(pp, most) / most) * (width - left - 10);
  const height = top + shown.length * pitch + 28;
  const svg = make("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `${name}: ${shown.map(([label, found]) => `${chain(label)} ${costSaid(found.removal)}`).join(", ")}`,
  });
  for (const tick of ticks(0, most, 5))
    svg.append(
      make("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: height - 28 }),
      make("text", { x: x(tick), y: height - 16, "text-anchor": "middle" }, tick),
    );
  svg.append(
    make("text", { x: (left + width) / 2, y: height - 3, "text-anchor": "middle" }, "accuracy given up, points"),
  );
  if (lossAllowed() <= most)
    svg.append(make("line", { class: "limit", x1: x(lossAllowed()), x2: x(lossAllowed()), y1: top, y2: height - 28 }));
  shown.forEach(([label, { removal }], i) => {
    const y = top + (i + 0.5) * pitch;
    const text = chain(label);
    svg.append(
      make(
        "text",
        { x: left - 6, y: y + 3.5, "text-anchor": "end" },
        text.length > 23 ? text.slice(0, 22) + "…" : text,
        make("title", {}, text),
      ),
    );
    for (const [pp, more] of removal.values)
      svg.append(
        make(
          "circle",
          { class: more ? "on" : "off", r: 3, cx: x(pp).toFixed(1), cy: y },
          make("title", {}, `${text}: ${more ? "more than " : ""}${fixed(pp, 1)} points`),
        ),
      );
  });
  const rest = costs.length - shown.length;
  return figure(name, rest ? `and ${rest} more` : "", svg);
}
const costSaid = (found) => `${found.more ? "> " : ""}${fixed(found.pp, 1)} points`;
