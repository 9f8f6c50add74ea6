// Curves against the strength of an attack.
function ticks(low, high, wanted = 4) {
  const step = 10 ** Math.floor(Math.log10((high - low) / wanted || 1));
  const size = [1, 2, 2.5, 5, 10].map((m) => m * step).find((s) => (high - low) / s <= wanted + 0.5) || step;
  const found = [];
  for (let i = Math.ceil(low / size - 1e-9); i * size <= high + size * 1e-9; i++)
    found.push(+(i * size).toPrecision(10));
  return found;
}

// Ladders that span more than 50-fold are spaced evenly: their lower rungs would fall together otherwise.
function strengths(curves) {
  const all = [...new Set(curves.flatMap((curve) => curve.strength))].sort((a, b) => a - b);
  const positive = all.filter((x) => x > 0);
  const even = positive.length > 2 && positive[positive.length - 1] / positive[0] > 50;
  const at = (x) =>
    even ? all.indexOf(x) / Math.max(1, all.length - 1) : (x - all[0]) / (all[all.length - 1] - all[0] || 1);
  const marks = even
    ? all.filter((_, i) => i % Math.ceil(all.length / 6) === 0)
    : ticks(all[0], all[all.length - 1], 5);
  return { at, marks };
}

function frame({ label, axis, at, marks, unit, size = [300, 150, 38] }) {
  const [width, height, left] = size;
  const [right, top, bottom] = [8, 8, 32];
  const x = (value) => left + at(value) * (width - left - right);
  const y = (value) => height - bottom - ((value - axis.low) / (axis.high - axis.low || 1)) * (height - top - bottom);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of axis.ticks)
    svg.append(
      make("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      make("text", { x: left - 5, y: y(tick) + 3.5, "text-anchor": "end" }, axis.label(tick)),
    );
  for (const mark of width > 250 ? marks : marks.filter((_, i) => marks.length < 5 || i % 2 === 0))
    svg.append(make("text", { x: x(mark), y: height - bottom + 13, "text-anchor": "middle" }, mark));
  svg.append(make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, unit));
  return { svg, x, y, left, right: width - right, top, bottom: height - bottom };
}

const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
const figure = (title, note, svg) =>
  make("figure", { class: "panel" }, make("figcaption", {}, title, note ? " " : null, note ? sub(note) : null), svg);

const SMALL = [200, 120, 32]; // of charts that come by the dozen
const small = (charts) => make("div", { class: "panels small" }, ...charts);

function chart({ title, note, curves, unit, values, axis, limits, tips, size }) {
  const label = `${title} against strength in ${unit}, ${plural(curves.length, "seed")}`;
  const { svg, x, y, left, right } = frame({
    label,
    axis,
    unit: unit || "strength",
    ...(size ? { size } : {}),
    ...strengths(curves),
  });
  const drawn = limits.filter((each) => each.at > axis.low && each.at < axis.high);
  for (const { at } of drawn) svg.append(make("line", { class: "limit", x1: left, x2: right, y1: y(at), y2: y(at) }));
  const dots = curves.flatMap((curve) => {
    const found = values(curve)
      .map((value, i) => ({ curve, value, i, at: [x(curve.strength[i]), known(value) && y(value)] }))
      .filter((each) => known(each.value));
    svg.append(make("path", { class: "seed", d: line(found.map(({ at }) => at)) }));
    return found;
  });
  // Above the lines, which would strike them through, and below the dots, which they would hide.
  for (const { at, label, shift } of drawn)
    svg.append(make("text", { class: "said", x: left + 3, y: y(at) + shift }, label));
  for (const { curve, i, at } of dots) {
    const kind = curve.hits[i] === curve.trials[i] ? "on" : curve.hits[i] === 0 ? "off" : "part";
    const [cx, cy] = at.map((place) => place.toFixed(1));
    svg.append(make("circle", { class: kind, r: 2.6, cx, cy }, make("title", {}, tips(curve, i))));
  }
  return figure(title, note, svg);
}

const tip = (unit) => (curve, i) =>
  `seed ${curve.seed}, ${curve.strength[i]} ${unit}: ${curve.hits[i]} of ${curve.trials[i]} detected, ` +
  `p ${pValue(curve.p_value[i])}, accuracy ${percent(curve.accuracy[i])} %` +
  (known(curve.ber[i]) ? `, BER ${percent(curve.ber[i])} %` : "");
const flat = (curves, values) => curves.flatMap(values).filter(known);

// The same axis everywhere, so that two curves can be compared at a glance.
const PERCENT = { low: 0, high: 100, ticks: [0, 25, 50, 75, 100], label: String };

function linear(values, { label = String } = {}) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const pad = (most - least) * 0.06 || Math.abs(most) * 0.05 || 1;
  return { low: least - pad, high: most + pad, ticks: ticks(least - pad, most + pad), label };
}

function pAxis(curves) {
  const least = Math.min(...flat(curves, (curve) => curve.p_value).map((p) => (p > 0 ? p : 1e-300)));
  const high = Math.min(30, Math.max(3, Math.ceil(-Math.log10(least))));
  const marks = ticks(0, high).filter(Number.isInteger);
  const capped = -Math.log10(least) > high;
  const label = (e) => (e === 0 ? "1" : `${capped && e === high ? "≤" : ""}1e−${e}`);
  return { low: 0, high, ticks: marks, label };
}

const accuracies = (curve) => curve.accuracy.map((a) => (known(a) ? 100 * a : null));
const budgetLine = (curves) => {
  const marked = curves.map((curve) => curve.accuracy[0]).filter(known);
  return marked.length
    ? [
        {
          at: (100 * marked.reduce((a, b) => a + b, 0)) / marked.length - lossAllowed(),
          label: `${lossAllowed()} points below`,
          shift: 11,
        },
      ]
    : [];
};

function attackCharts(row, attack) {
  const curves = attack.curves;
  const common = { curves, unit: attack.unit, tips: tip(attack.unit), limits: [] };
  const axis = pAxis(curves);
  const forged = attack.stage === "evidence" ? "of the forged claim" : "higher is stronger evidence";
  const charts = [
    chart({
      ...common,
      title: "p-value",
      note: `(log) ${forged}`,
      axis,
      limits: [{ at: -Math.log10(data.fpr), label: `detected above: p ≤ ${data.fpr}`, shift: -3 }],
      values: (curve) =>
        curve.p_value.map((p) => (known(p) ? Math.min(axis.high, -Math.log10(Math.max(p, 1e-300))) : null)),
    }),
  ];
  if (flat(curves, accuracies).length)
    charts.push(
      chart({
        ...common,
        title: "Test accuracy",
        note: "%",
        axis: PERCENT,
        values: accuracies,
        limits: budgetLine(curves),
      }),
    );
  const errors = (curve) => curve.ber.map((b) => (known(b) ? 100 * b : null));
  if (flat(curves, errors).length)
    charts.push(
      chart({
        ...common,
        title: "Bit error rate",
        note: "%",
        axis: PERCENT,
        values: errors,
      }),
    );
  else
    charts.push(
      chart({
        ...common,
        title: "Statistic",
        note: "in the scheme's own unit",
        axis: linear(flat(curves, (c) => c.statistic)),
        values: (curve) => curve.statistic,
      }),
    );
  return charts;
}
