// Accuracy given up by the owner against what survives, with the front that no row betters in both.
function tradeoff(rows) {
  const points = rows
    .map((row) => ({ row, found: worst(row) }))
    .filter(({ row, found }) => row.fidelity && found && !baseline(row));
  if (!points.length) return [note("No row that is shown has both a fidelity and a worst case.")];
  const own = points.filter(({ row }) => !reported(row));
  const y = {
    worst: (p) => p.found.share,
    mean: (p) => p.found.mean,
    removal: (p) => p.found.removal && p.found.removal.pp,
  };
  const charts = [
    scatter(points, own, y.mean, "Mean survival over the attacks, %", (v) => 100 * v, {
      low: 0,
      high: 100,
      ticks: [0, 25, 50, 75, 100],
      label: String,
    }),
    scatter(points, own, y.worst, "Claims that survive every attack, %", (v) => 100 * v, {
      low: 0,
      high: 100,
      ticks: [0, 25, 50, 75, 100],
      label: String,
    }),
    scatter(
      points.filter((p) => known(y.removal(p))),
      own.filter((p) => known(y.removal(p))),
      y.removal,
      "Accuracy that removal costs, points (median)",
      (v) => v,
    ),
  ];
  return [
    make(
      "p",
      { class: "legend" },
      make(
        "span",
        {},
        make("span", { class: "dot on" }),
        " on the front: no other row loses less accuracy and keeps more",
      ),
      make("span", {}, make("span", { class: "dot off idle" }), " bettered by another row"),
    ),
    make("div", { class: "panels large" }, ...charts.filter(Boolean)),
    make(
      "p",
      { class: "sub" },
      "A bar spans the 95 % interval over seeds, where there is one. The mean is over attacks one by one, so it hides " +
        "that a single one may remove the mark.",
    ),
  ];
}

// Of own rows those that no other own row betters: at least as good in both, and better in one.
function front(points, value) {
  const better = (a, b) =>
    a.row.fidelity.mean >= b.row.fidelity.mean &&
    value(a) >= value(b) &&
    (a.row.fidelity.mean > b.row.fidelity.mean || value(a) > value(b));
  const sorted = [...points].sort((a, b) => b.row.fidelity.mean - a.row.fidelity.mean || value(b) - value(a));
  const kept = [];
  for (const point of sorted) if (!kept.some((each) => better(each, point))) kept.push(point);
  return kept;
}

const SCATTERED = 400; // points that are drawn
const FARTHEST = -15; // points of fidelity: what loses more stands at the left edge
function scatter(points, own, value, title, scale, axis = null) {
  if (!points.length) return null;
  const best = new Set(front(own, value));
  const shown = [...points.filter((p) => best.has(p)), ...points.filter((p) => !best.has(p))].slice(0, SCATTERED);
  const fidelity = (p) => Math.max(FARTHEST, p.row.fidelity.mean);
  const all = points.map(fidelity);
  const [least, most] = [Math.min(0, ...all), Math.max(0, ...all)];
  const pad = (most - least) * 0.05 || 1;
  const space = frame({
    label:
      `${title} against fidelity, ${plural(points.length, "row")}; ` +
      `on the front: ${[...best].map((p) => p.row.scheme).join(", ")}`,
    axis: axis || linear([0, ...points.map((p) => scale(value(p)))]),
    at: (x) => (x - least + pad) / (most - least + 2 * pad),
    marks: ticks(least, most, 6),
    unit: "fidelity, points" + (least === FARTHEST ? ` (the left edge: ${FARTHEST} or less)` : ""),
    size: [420, 280, 38],
  });
  const place = (p) => [space.x(fidelity(p)), space.y(scale(value(p)))];
  const steps = [...best].sort((a, b) => fidelity(a) - fidelity(b)).map(place);
  space.svg.append(
    make("path", {
      class: "front",
      d: line(
        steps.flatMap(([x, y], i) =>
          i
            ? [
                [steps[i - 1][0], y],
                [x, y],
              ]
            : [[x, y]],
        ),
      ),
    }),
  );
  for (const p of [...shown].reverse()) space.svg.append(...dot(p, place(p), best.has(p), space));
  names(
    space,
    shown.filter((p) => best.has(p)),
    shown.map(place),
    place,
  );
  return figure(title, "", space.svg);
}

function dot(p, [cx, cy], best, { x, left, right }) {
  const { mean, low, high } = p.row.fidelity;
  const within = (value) => Math.min(right, Math.max(left, x(value)));
  const survive = `${of(p.found)} survive, mean ${percent(p.found.mean)} %`;
  const text = `${nameOf(p.row, ["variant"])}: fidelity ${fixed(mean, 2)} points, ${survive}`;
  const kind = (best ? "on" : "idle") + (reported(p.row) ? " told" : "");
  const circle = make(
    "circle",
    { class: kind, r: best ? 5 : 4, cx: cx.toFixed(1), cy: cy.toFixed(1) },
    make("title", {}, text),
  );
  circle.addEventListener("click", () => change({ row: p.row.id, view: "table" }));
  return known(low)
    ? [make("line", { class: "grid", x1: within(low), x2: within(high), y1: cy, y2: cy }), circle]
    : [circle];
}

// Names of the points on the front, each where it covers neither a dot nor another name; else it has none.
function names({ svg, left, right, top, bottom }, best, dots, place) {
  const taken = dots.map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]);
  const free = ([a, b, c, d]) =>
    a >= left &&
    c <= right &&
    b >= top - 6 &&
    d <= bottom &&
    !taken.some(([e, f, g, h]) => a < g && c > e && b < h && d > f);
  for (const p of best) {
    const [x, y] = place(p);
    const width = 5.6 * p.row.scheme.length;
    const tries = [
      [x - 8 - width, y - 8],
      [x + 8, y - 8],
      [x - width / 2, y - 9],
      [x + 8, y + 3.5],
      [x - 8 - width, y + 3.5],
      [x - width / 2, y + 16],
      [x + 8, y + 14],
      [x - 8 - width, y + 14],
    ];
    const found = tries.map(([a, b]) => [a, b - 9, a + width, b + 2]).find(free);
    if (!found) continue;
    taken.push(found);
    svg.append(make("text", { class: "named", x: found[0].toFixed(1), y: (found[1] + 9).toFixed(1) }, p.row.scheme));
  }
}
