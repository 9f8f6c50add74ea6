// Detection over the false positive rate: what share of the claims each rate accepts, before an attack and after it.
const LEAST_RATE = 1e-4;
const FEWEST_CLAIMS = 4; // with fewer, the steps say nothing

// The p-values of all claims, on the marked models and at the weakest rung that the reader's choice allows.
function evidenceOf(attack, limits) {
  const marked = [];
  let at = attack.at;
  for (const { points, owners, timed } of attack.seeds) {
    const first = at + 1 + timed;
    for (let o = 0; o < owners; o++) marked.push(pOf(codes[first + o] >> 1));
    at += points * (1 + timed + owners);
  }
  trials.follow([attack], limits);
  const attacked = [];
  for (let i = 0; i < trials.count; i++)
    for (let o = 0; o < trials.owners[i]; o++) {
      const code = trials.weakest[i * trials.stride + o];
      attacked.push(code === UNKNOWN ? 1 : pOf(code >> 1));
    }
  return { marked, attacked };
}

const accepted = (values, rate) => (100 * values.filter((p) => p <= rate).length) / values.length;

// A step at each p-value.
function steps(values, x, y) {
  const inner = [...new Set(values)].filter((p) => p > LEAST_RATE && p <= 1).sort((a, b) => a - b);
  const found = [[x(LEAST_RATE), y(accepted(values, LEAST_RATE))]];
  for (const p of [...inner, 1]) found.push([x(p), found[found.length - 1][1]], [x(p), y(accepted(values, p))]);
  return line(found);
}

function rocChart(attack) {
  const { marked, attacked } = evidenceOf(attack, choice().limits);
  if (marked.length < FEWEST_CLAIMS) return null;
  const said = (values) => `${Math.round(accepted(values, data.fpr))} % at ${100 * data.fpr} %`;
  const label =
    `Detection over the false positive rate, ${plural(marked.length, "claim")}: ` +
    `unattacked ${said(marked)}, attacked ${said(attacked)}`;
  const at = (rate) => 1 - Math.log10(rate) / Math.log10(LEAST_RATE);
  const { svg, x, y, top, bottom } = frame({
    label,
    axis: PERCENT,
    at,
    marks: [1e-4, 1e-3, 0.01, 0.1, 1],
    unit: "false positive rate",
  });
  svg.append(
    make("line", { class: "limit", x1: x(data.fpr), x2: x(data.fpr), y1: top, y2: bottom }),
    make("path", { class: "roc", d: steps(marked, x, y) }),
    make("path", { class: "roc off", d: steps(attacked, x, y) }),
    make("title", {}, label),
  );
  return figure(
    "Detected, %",
    `of ${plural(marked.length, "claim")}, by rate; orange: within the losses and budgets chosen above`,
    svg,
  );
}
