// The table: a header that sorts, groups, and as many rows as are asked for.
const MORE = 500;
const HEADS = {
  baselines: "Baselines, which mark nothing: what networks give away of their training data without a watermark",
  "self-reported":
    "Self-reported: these records arrived by pull request and nobody here has run them again. The numbers are their " +
    "authors' word: listed by name, never ranked, and compared with nothing above.",
  stale:
    "Stale: these records were verified, but the code has changed since. Listed by name, never ranked, until somebody " +
    "runs them again.",
  failed:
    "Failed verification: cells were run again here and disagree with what was sent. Listed by name, so that nobody " +
    "takes these numbers for evidence.",
};

const groupOf = (row) => (!reported(row) ? (baseline(row) ? "baselines" : "") : row.origin);

function groupRow(group) {
  const words = HEADS[group] || `${group}: listed by name, never ranked`;
  const cell = make("td", { role: "cell", class: "group", colspan: shown().length }, make("span", {}, words));
  return make("tr", { role: "row", class: group === "baselines" ? "group" : "group told" }, cell);
}

// Rows in sight are drawn at once. Those below follow when the reader pauses, so that a slider stays swift; until then
// columns keep their widths. A table that is scrolled, or of which a row is opened, is drawn whole.
const ROW_PX = 36; // no row is lower
const PAUSE_MS = 120;
const sight = { rows: 0, scrolled: false, widths: null, later: 0 }; // kept, as asking for them lays out the page
const look = () => (sight.rows = Math.ceil(innerHeight / ROW_PX));
addEventListener("resize", look);
look();
byId("board").parentElement.addEventListener("scroll", (event) => (sight.scrolled = event.target.scrollTop > 0), {
  passive: true,
});

const partly = (whole) => !whole && !sight.scrolled && state.view === "table";
function holdWidths() {
  const heads = [...byId("board").querySelectorAll("thead th")];
  sight.widths =
    sight.widths || new Map(heads.map((head) => [head.dataset.column, head.getBoundingClientRect().width]));
}

function drawTable(rows, part) {
  clearTimeout(sight.later);
  const board = byId("board");
  const most = limitOf(rows);
  const first = part ? Math.min(sight.rows, most) : most;
  if (first === most) sight.widths = null;
  board.tHead.replaceChildren(header());
  board.tBodies[0].replaceChildren(...body(rows, 0, first));
  if (first < most)
    sight.later = setTimeout(() => {
      sight.widths = null;
      board.tHead.replaceChildren(header());
      board.tBodies[0].append(...body(rows, first, most));
    }, PAUSE_MS);
}

function limitOf(rows) {
  const opened = rows.findIndex((row) => row.id === state.row);
  limit = Math.max(limit, opened + 1);
  return Math.min(limit, rows.length);
}

// Rows from one place to another, below the heads of their groups.
function body(rows, from, to) {
  let last = from ? groupOf(rows[from - 1]) : "";
  const drawn = rows.slice(from, to).flatMap((row) => {
    const group = groupOf(row);
    const head = group && group !== last ? [groupRow(group)] : [];
    last = group;
    return [...head, tableRow(row), ...(row.id === state.row ? [detail(row)] : [])];
  });
  if (!rows.length)
    drawn.push(wideRow(data.rows.length ? "No row fits these filters." : "No records yet: run `bench run` first."));
  if (rows.length > to && to === limit) drawn.push(moreRow(rows.length));
  return drawn;
}

const wideRow = (content) =>
  make("tr", { role: "row" }, make("td", { role: "cell", class: "empty", colspan: shown().length }, content));

function moreRow(all) {
  const button = make(
    "button",
    { type: "button", id: "more" },
    `Show ${Math.min(MORE, all - limit)} more of ${all} rows`,
  );
  button.addEventListener("click", () => {
    limit += MORE;
    draw(true);
  });
  return wideRow(button);
}

function header() {
  const cells = shown().map((column) => {
    const active = sorting() === column.id;
    const order = active ? (ordering() === "up" ? "down" : "up") : natural(column);
    const button = make("button", { type: "button", "data-sort": column.id }, column.label);
    button.addEventListener("click", () => {
      change({ sort: column.id, order });
      document.querySelector(`[data-sort="${column.id}"]`).focus();
    });
    const width = sight.widths && sight.widths.get(column.id);
    const sorted = active ? (ordering() === "up" ? "ascending" : "descending") : null;
    return make(
      "th",
      {
        ...{ scope: "col", role: "columnheader", "aria-sort": sorted, "data-column": column.id },
        class: (column.number ? "num" : "") + (column.id === "scheme" ? " scheme" : ""),
        style: width ? `min-width: ${width}px` : null,
      },
      button,
      column.unit ? sub(column.unit) : null,
    );
  });
  return make("tr", { role: "row" }, ...cells);
}

function tableRow(row) {
  const idle = row.status !== "ok";
  const cells = shown()
    .filter((column) => !idle || !measured(column))
    .map((column) => {
      const { parts, kind, tip } = column.cell(row);
      return make(
        "td",
        {
          role: "cell",
          class: kind,
          title: tip || null,
          "data-label": column.label + (column.unit ? `, ${column.unit}` : ""),
        },
        ...parts,
      );
    });
  const wide = shown().filter(measured).length;
  if (idle && wide)
    cells.push(
      make(
        "td",
        { role: "cell", class: `why wide ${row.status}`, colspan: wide, title: reasons(row) },
        `${row.status === "failed" ? "✕ failed" : "– not applicable"}: ${row.problems[0].reason}`,
      ),
    );
  const element = make(
    "tr",
    {
      role: "row",
      class: `row${state.row === row.id ? " open" : ""}${reported(row) ? " told" : ""}`,
      "data-id": row.id,
    },
    ...cells,
  );
  element.addEventListener("click", (event) => {
    if (String(getSelection()) || event.target.closest("a")) return;
    change({ row: state.row === row.id ? "" : row.id });
    const again = document.querySelector(`tr[data-id="${row.id}"] .name`);
    if (again) again.focus({ preventScroll: true });
  });
  return element;
}
