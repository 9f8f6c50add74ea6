// What a row hides: its curves, numbers, commands and provenance.
// Accepted false claims of one kind; the interval allows for trials that share a network or a key.
const claims = (count) =>
  `${of(count)} accepted (${percent(count.low)} to ${percent(count.high)} %)${count.beyond ? ", beyond chance" : ""}`;

function securityText(row) {
  const { clean, attacked, forged } = row.security || {};
  return [
    ...Object.entries((clean && clean.kinds) || {}).map(([kind, count]) => `${kind}: ${claims(count)}`),
    attacked && `fresh key after the attacks: ${claims(attacked)}, all rungs together`,
    forged && `forged claims accepted at some rung: ${proportion(forged)}`,
  ].filter(Boolean);
}

const inUnit = (unit) => (unit ? ` ${unit}` : "");
const ofUnit = (unit) => (unit ? ` (${unit})` : "");
const heldoutText = ({ users, inferred, unit, unmarked, detected }) =>
  [
    plural(users, "user"),
    inferred &&
      `inferred mean |k| = ${shortly(inferred.mean)}${inUnit(unit)}` +
        (known(inferred.low) ? ` (Student-t over users, ${shortly(inferred.low)} to ${shortly(inferred.high)})` : ""),
    unmarked && `${of(unmarked)} infer no watermark (0)`,
    detected && `${of(detected)} wrongly detected`,
  ]
    .filter(Boolean)
    .join("; ");

function facts(pairs) {
  const kept = pairs.filter(([, value]) => known(value) && value !== "");
  return make(
    "dl",
    { class: "facts" },
    ...kept.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );
}

const block = (title, ...children) => make("div", { class: "block" }, make("h3", {}, title), ...children);

function numbers(row) {
  const worstCase = worst(data.rows[row.at]);
  const survived = data.rows[row.at].judged
    .map(({ label }) => [label, under(data.rows[row.at], label)])
    .filter(([, found]) => found);
  return block(
    "Numbers",
    facts([
      ["Fidelity", row.fidelity && mean(row.fidelity, 2, " pp")],
      ["Effectiveness", row.effectiveness && proportion(row.effectiveness)],
      ["Protection", row.protection && protection(row.protection)],
      ["Held-out users", row.heldout && heldoutText(row.heldout)],
      [
        "Worst case",
        worstCase && `survives ${proportion(worstCase)}, over ${coverage(worstCase)}; ${worstCase.undecided} undecided`,
      ],
      ["Rank", row.rank && rankText(row.rank)],
      ...survived.map(([label, found]) => [`Under ${chain(label)}`, `survives ${proportion(found)}`]),
      [
        "Removal cost",
        worstCase && worstCase.removal && `${bounds(worstCase.removal)} pp, one for each of the decided ${units(row)}`,
      ],
      ["False claims", [...row.calibration.map(calibratedText), ...securityText(row)].join("; ")],
      ["Detectability", row.detectability.map(visibleText).join("; ")],
      ["Capacity", row.capacity && mean(row.capacity, 0, " bits without an error, for one point at most")],
      ["Embedding", row.embed_ratio && mean(row.embed_ratio, 2, "×")],
      [
        "Parameters",
        Object.entries(row.params)
          .map((pair) => pair.join(" = "))
          .join(", "),
      ],
    ]),
  );
}

function problems(row) {
  if (!row.problems.length && !row.warnings.length) return null;
  const items = row.problems.map((p) =>
    make(
      "li",
      {},
      make("b", {}, `${chain(p.attack)}, seed ${p.seeds.join(", ")}: ${p.status}`),
      ` ${MISSING} ${p.reason}`,
    ),
  );
  items.push(...row.warnings.map((warning) => make("li", {}, make("b", {}, "warning"), ` ${MISSING} ${warning}`)));
  return block("Cells without numbers, and warnings", make("ul", { class: "reasons" }, ...items));
}

const commands = (row) => block("Reproduce", ...row.commands.map(command));

function command(text) {
  const button = make("button", { type: "button" }, "Copy");
  const code = make("code", {}, text);
  button.addEventListener("click", () => copy(code, button));
  return make("div", { class: "command" }, code, button);
}

function copy(code, button) {
  getSelection().selectAllChildren(code);
  const done = document.execCommand("copy");
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  if (done) getSelection().removeAllRanges();
}

function provenance(row) {
  const all = row.environments.map((i) => data.environments[i]);
  const distinct = (pick) => [...new Set(all.map(pick).filter(Boolean))].join(" | ");
  return block(
    "Provenance",
    facts([
      [
        "Revision",
        distinct((e) =>
          e.git_revision ? e.git_revision.slice(0, 12) + (e.git_dirty ? " (with uncommitted changes)" : "") : "unknown",
        ),
      ],
      ["Finished", [...new Set(row.finished)].join(" to ")],
      ["Device", distinct((e) => `${e.device}, ${plural(e.threads, "thread")}`)],
      ["Processor", distinct((e) => [e.cpu_model, e.cpu_capability].filter(Boolean).join(", "))],
      ["Mathematics", distinct((e) => e.math_library)],
      ["Data", distinct((e) => e.data_checksum.slice(0, 24))],
      ["Harness", distinct((e) => e.bench_version)],
      ["Python", distinct((e) => e.python)],
      ["Platform", distinct((e) => e.platform)],
      [
        "Packages",
        distinct((e) =>
          Object.entries(e.packages)
            .map((pair) => pair.join(" "))
            .join(", "),
        ),
      ],
    ]),
  );
}

function protocol(row) {
  const button = make("button", { type: "button" }, "How the columns are defined");
  button.addEventListener("click", () => {
    byId("help").open = true;
    byId("help").scrollIntoView();
  });
  const sizes = [...new Set(row.environments.map((i) => JSON.stringify(data.environments[i].split)))].map((split) =>
    Object.entries(JSON.parse(split))
      .filter(([part]) => part !== "split_seed")
      .map(([part, images]) => `${part} ${images}`)
      .join(", "),
  );
  return block(
    "Protocol",
    facts([
      ["Profile", [row.profile, WORTH[row.profile]].filter(Boolean).join(": ")],
      ["Images", sizes.join(" | ")],
      [
        "Held to",
        `a false positive rate of ${100 * data.fpr} %, and ${lossAllowed()} points of accuracy given up at most`,
      ],
    ]),
    button,
  );
}

function sources(row) {
  const { title, paper, extensions } = card("schemes", row.scheme) || {};
  if (!title) return null;
  const links = cardLinks("schemes", row.scheme);
  return block(
    title,
    make("p", {}, `${paper}. `, ...links.flatMap((link) => [link, " "])),
    extensions && extensions.length ? sub(`Ours, not the authors': ${extensions.join("; ")}.`) : null,
  );
}

// Each attack of a chain: what it is, what its adversary has, where it comes from.
function attackSources(label) {
  const names = label
    .replace(/ \([0-9a-f]{4}\)$/, "")
    .split("+")
    .map((step) => step.split("=")[0]);
  return names
    .filter((name) => card("attacks", name))
    .map((name) => {
      const { title, adversary } = card("attacks", name);
      const links = cardLinks("attacks", name).flatMap((link) => [link, " "]);
      return make("p", { class: "sub" }, `${title}. The adversary has ${adversary}. `, ...links);
    });
}

function rocOf(row, label) {
  const attack = data.rows[row.at].judged.find((each) => each.label === label);
  return attack ? rocChart(attack) : null;
}

function inside(row) {
  const curves = Object.entries(row.attacks)
    .filter(([, attack]) => attack.curves.length)
    .map(([label, attack]) =>
      block(
        `${chain(label)}: what each seed shows`,
        ...attackSources(label),
        make("div", { class: "panels" }, ...attackCharts(row, attack), rocOf(row, label)),
        ...(attack.searches.length ? rungSearches(attack) : []),
      ),
    );
  const told = reported(row) ? make("p", { class: "told" }, HEADS[row.origin] || row.origin) : null;
  const found = [told, sources(row), searches(row), ...curves, histories(row), problems(row), numbers(row)];
  return [...found, commands(row), protocol(row), provenance(row)].filter(Boolean);
}

function detail(row) {
  const inner = make("div", { class: "inner" });
  const fill = (details) => inner.replaceChildren(...inside({ ...row, ...details }));
  if (row.details) fill(row.details);
  else detailsOf(row).then(fill);
  const cell = make("td", { role: "cell", colspan: shown().length }, inner);
  return make("tr", { role: "row", class: "detail" }, cell);
}
