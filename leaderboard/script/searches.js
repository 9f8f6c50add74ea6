// Loss over signatures, and histories of trainings.
// Angles get quarters of a circle where they span more than one.
function signatures(found) {
  const all = found.flatMap((search) => data.spaces[search.candidates].concat(search.true ?? []));
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const quarters = found[0].unit === "degrees" && most - least > 180 && Math.max(-least, most) <= 720;
  const marks = quarters
    ? Array.from({ length: 17 }, (_, i) => 90 * (i - 8)).filter((k) => k >= least && k <= most)
    : least === most
      ? [least]
      : ticks(least, most, 5);
  return { at: (k) => (least === most ? 0.5 : (k - least) / (most - least)), marks };
}

const verdictOf = (search, own) =>
  [
    `least loss ${shortly(search.losses[search.best])} at ${shortly(best(search))}${inUnit(search.unit)}`,
    known(search.inferred) && `inferred ${shortly(search.inferred)}`,
    own && known(search.true) && `own ${shortly(search.true)}`,
    own && known(search.matched) && (search.matched ? "a match" : "no match"),
  ]
    .filter(Boolean)
    .join(", ");
const best = (search) => data.spaces[search.candidates][search.best];
const flatLosses = (found) => found.flatMap((search) => search.losses);

// One line a search, each with a square at its least loss, and a dashed line at the owner's own signature.
function searchChart({ title, note, found, axis, names, fading = false, own = true }) {
  const label = `${title}: mean loss against the signature${ofUnit(found[0].unit)}. ${found
    .map((search, i) => `${names[i]}: ${verdictOf(search, own)}`)
    .join("; ")}`;
  const unit = `signature${ofUnit(found[0].unit)}`;
  const { svg, x, y, top, bottom } = frame({ label, axis, unit, size: SMALL, ...signatures(found) });
  for (const k of new Set(own ? found.map((search) => search.true).filter(known) : []))
    svg.append(make("line", { class: "own", x1: x(k), x2: x(k), y1: top, y2: bottom }));
  found.forEach((search, i) => {
    const points = data.spaces[search.candidates].map((k, j) => [x(k), y(search.losses[j])]);
    const opacity = fading ? (0.3 + (0.7 * (i + 1)) / found.length).toFixed(2) : null;
    svg.append(make("path", { class: own ? "loss" : "seed", d: line(points), "stroke-opacity": opacity }));
  });
  found.forEach((search, i) => {
    const [left, up] = [x(best(search)) - 3, y(search.losses[search.best]) - 3];
    const kind = !own || !known(search.matched) ? "idle" : search.matched ? "on" : "off";
    const place = { x: left.toFixed(1), y: up.toFixed(1), width: 6, height: 6 };
    svg.append(make("rect", { class: kind, ...place }, make("title", {}, `${names[i]}: ${verdictOf(search, own)}`)));
  });
  return figure(title, note, svg);
}

const searchLegend = () =>
  make(
    "p",
    { class: "legend" },
    make("span", {}, make("span", { class: "rule own" }), " the owner's own signature"),
    make("span", {}, make("span", { class: "dot square on" }), " least loss, a match"),
    make("span", {}, make("span", { class: "dot square off" }), " least loss, no match"),
  );
const andMore = (n, what) => (n ? make("p", { class: "sub" }, `and ${n} more ${what}`) : null);

function searches(row) {
  const found = row.searches;
  if (!found) return null;
  const { owners, heldout } = found;
  const name = (each) => (row.seeds.length > 1 ? `seed ${each.seed}, ` : "") + `owner ${each.owner}`;
  const axis = linear(flatLosses([...owners, ...heldout]), { label: shortly });
  const charts = owners.map((each) => {
    const own = known(each.true) ? `own ${shortly(each.true)}` : "";
    return searchChart({ title: name(each), note: own, found: [each], axis, names: [name(each)] });
  });
  if (heldout.length)
    charts.push(
      searchChart({
        title: plural(heldout.length + found.heldout_more, "held-out user"),
        note: found.heldout_more ? `${heldout.length} drawn` : "",
        found: heldout,
        axis,
        names: heldout.map((each) => `held-out user ${each.owner}, seed ${each.seed}`),
        own: false,
      }),
    );
  return block(
    "Mean loss over the signatures tried, on the marked models",
    searchLegend(),
    small(charts),
    andMore(found.more, found.more === 1 ? "owner" : "owners"),
  );
}

function rungSearches(attack) {
  const owners = [...new Set(attack.searches.map((each) => each.owner))];
  const axis = linear(flatLosses(attack.searches), { label: shortly });
  const charts = owners.map((owner) => {
    const found = attack.searches.filter((each) => each.owner === owner);
    return searchChart({
      title: `Owner ${owner}`,
      note: "a line per rung",
      found,
      axis,
      names: found.map((each) => `seed ${each.seed}, ${each.strength} ${attack.unit}`),
      fading: true,
    });
  });
  const what = `Mean loss over the signatures tried, first owners of seed ${attack.searches[0].seed}: the stronger the `;
  return [make("p", { class: "sub" }, what + "attack, the stronger the line."), small(charts)];
}

function historyChart({ name, lines }) {
  const last = Math.max(...lines.map((each) => each.epochs));
  const all = lines.flatMap((each) => each.values);
  const marks =
    last === 1 ? [1] : [1, ...ticks(1, last, 5).filter((epoch) => epoch % 1 === 0 && epoch > 1 + last / 12)];
  const ends = lines.map((each) => `seed ${each.seed} ends at ${shortly(each.values[each.values.length - 1])}`);
  const label = `${name} against the epoch: ${ends.join(", ")}`;
  const at = (epoch) => (last === 1 ? 0.5 : (epoch - 1) / (last - 1));
  const { svg, x, y } = frame({ label, axis: linear(all, { label: shortly }), at, marks, unit: "epoch", size: SMALL });
  lines.forEach(({ epochs, values }, i) => {
    const apart = (epochs - 1) / (values.length - 1 || 1);
    const points = values.map((value, j) => [x(1 + j * apart), y(value)]);
    const [cx, cy] = points[points.length - 1].map((place) => place.toFixed(1));
    svg.append(
      make("path", { class: "loss", d: line(points) }),
      make("circle", { class: "on", r: 2.2, cx, cy }, make("title", {}, ends[i])),
    );
  });
  return figure(name, plural(lines.length, "seed"), svg);
}

function histories(row) {
  const found = row.histories;
  if (!found) return null;
  return block(
    "Training, per epoch",
    small(found.series.map(historyChart)),
    andMore(found.more, found.more === 1 ? "history" : "histories"),
  );
}
