// The rows that are shown, as CSV.
function csv() {
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
  const lines = visible().map((row) => [
    ...["profile", "origin", "scheme", "variant", "carrier", "access", "arch", "dataset", "situation", "status"].map(
      (name) => [name, row[name]],
    ),
    ["fpr", data.fpr],
    ["seeds", row.seeds.length],
    ...ends("fidelity_pp", row.fidelity),
    ...counts("effectiveness", row.effectiveness),
    ["p_value", row.evidence.p_value],
    ["ber", row.evidence.ber],
    ["attack", state.attack || "worst case"],
    ...counts("robustness", hardness(row)),
    ["attacks_covered", state.attack ? null : row.robustness && row.robustness.covered],
    ["attacks_faced", state.attack ? null : row.robustness && row.robustness.of],
    ["rank_best", row.rank && row.rank.low],
    ["rank_worst", row.rank && row.rank.high],
    ["ranked", row.rank && row.rank.of],
    ["removal_cost_pp", removal(row) && removal(row).pp],
    ["removal_cost_is_lower_bound", removal(row) && removal(row).more],
    ...counts("false_claims", row.security && row.security.clean),
    ["forged_p_value_committed", bestForgery(row) && bestForgery(row).committed],
    ["forged_p_value_uncommitted", bestForgery(row) && bestForgery(row).uncommitted],
    ...ends("embed_ratio", row.embed_ratio),
    ["problems", reasons(row)],
    ["protection_matches", row.protection && row.protection.hits],
    ["protection_trials", row.protection && row.protection.trials],
    ["protection_heldout_refused", row.protection && row.protection.refused],
    ["protection_heldout_users", row.protection && row.protection.others],
    ["protection_chance", row.protection && row.protection.chance],
    ["protection_advantage", row.protection && row.protection.advantage],
  ]);
  const quote = (value) => {
    if (!known(value)) return "";
    // A spreadsheet would run a text that begins like a formula.
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? "'" + value : String(value);
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const head = lines.length ? [lines[0].map(([name]) => name)] : [];
  return (
    [...head, ...lines.map((line) => line.map(([, value]) => quote(value)))]
      .map((line) => line.join(","))
      .join("\r\n") + "\r\n"
  );
}

function download() {
  const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  make("a", { href: url, download: `watermark-bench-${state.profile}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
