// What each claim showed at each rung, and what survives of it: the definitions of `bench.metrics.robustness`.
const UNKNOWN = 65535; // a loss or a time that was not measured
const ZERO = 32768; // the code of a loss of nothing
const PER_POINT = 300; // codes a percentage point
const [FINE, COARSE, DECADES] = [1000, 50, 16]; // codes a power of ten of a p-value: up to so many, and beyond
const pOf = (code) => 10 ** -(code <= FINE * DECADES ? code / FINE : DECADES + (code - FINE * DECADES) / COARSE);
const PER_TRAINING = 1000; // codes the time of one training
const UNLIMITED = { loss: ZERO + 100 * PER_POINT, time: UNKNOWN - 1, queries: Infinity, images: Infinity };
let codes = new Uint16Array();

async function inflated(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")));
}

// The codes stand in the order of rows and attacks: seed by seed, point by point a loss, a time, and a code an owner.
async function readOutcomes() {
  codes = new Uint16Array(await (await inflated(byId("outcomes").textContent)).arrayBuffer());
  const layouts = data.layouts.map((layout) =>
    layout.map(([seed, points, owners, queries, images]) => ({ seed, points, owners, queries, images })),
  );
  const sizes = layouts.map((layout) => layout.reduce((all, { points, owners }) => all + points * (2 + owners), 0));
  let at = 0;
  for (const row of data.rows)
    for (const attack of row.judged) {
      attack.at = at;
      attack.seeds = layouts[attack.place];
      at += sizes[attack.place];
    }
}

const fits = (amounts, i, limit) => {
  if (limit === Infinity) return true;
  const amount = Array.isArray(amounts) ? amounts[i] : amounts;
  return !known(amount) || amount <= limit;
};

// One claim of one owner on one seed's model.
class Trial {
  broken = UNKNOWN; // least loss at which it broke
  held = 0; // largest loss at which it held; 0 for none
  open = false; // it broke at a loss that nobody measured
  weakest = UNKNOWN; // least evidence within the limits
  add(loss, code, limits) {
    if (code & 1) {
      if (loss !== UNKNOWN && loss > this.held) this.held = loss;
    } else if (loss === UNKNOWN) this.open = true;
    else if (loss < this.broken) this.broken = loss;
    if (loss <= limits.loss && code < this.weakest) this.weakest = code;
  }
}

// The trials of each seed under all these attacks at once; `met` counts the attacks that the seed has a result of.
function trials(attacks, limits) {
  const seeds = new Map();
  for (const attack of attacks) {
    let at = attack.at;
    for (const { seed, points, owners, queries, images } of attack.seeds) {
      let found = seeds.get(seed);
      if (!found) seeds.set(seed, (found = { met: 0, all: [] }));
      found.met++;
      while (found.all.length < owners) found.all.push(new Trial());
      for (let i = 0; i < points; i++, at += 2 + owners) {
        const loss = codes[at];
        const time = codes[at + 1];
        if (i && !((time === UNKNOWN || time <= limits.time) && fits(queries, i, limits.queries) && fits(images, i, limits.images))) continue;
        for (let o = 0; o < owners; o++) found.all[o].add(loss, codes[at + 2 + o], limits);
      }
    }
  }
  return seeds;
}

// Decided claims that survive, of so many; what removal costs; the weakest evidence. Null where nothing is decided.
class Judged {
  constructor(attacks, limits) {
    [this.attacks, this.limits] = [attacks, limits];
    [this.hits, this.trials, this.undecided, this.clusters, this.bounds] = [0, 0, 0, [], []];
    let weakest = UNKNOWN;
    for (const { met, all } of trials(attacks, limits).values()) {
      const before = [this.hits, this.trials];
      for (const trial of all) {
        this.count(trial, met === attacks.length && !trial.open);
        weakest = Math.min(weakest, trial.weakest);
      }
      this.clusters.push([this.hits - before[0], this.trials - before[1]]);
    }
    this.p = weakest === UNKNOWN ? null : pOf(weakest >> 1);
  }
  count(trial, complete) {
    const fell = trial.broken <= this.limits.loss;
    if (!fell && !complete) return void this.undecided++;
    this.trials++;
    this.hits += !fell;
    const points = (code) => Math.max(0, code - 0.5 - ZERO) / PER_POINT; // a code is rounded up
    if (complete && trial.broken !== UNKNOWN) this.bounds.push([points(trial.broken), false]);
    else if (complete && trial.held) this.bounds.push([points(trial.held), true]);
  }
  get share() {
    return this.hits / this.trials;
  }
  get interval() {
    return (this.found = this.found || clustered(this.clusters));
  }
  get low() {
    return this.interval.low;
  }
  get high() {
    return this.interval.high;
  }
  // The lower median of what removal costs, of which some are lower bounds.
  get removal() {
    if (this.cost === undefined) this.cost = this.bounds.length ? this.lowerMedian() : null;
    return this.cost;
  }
  lowerMedian() {
    const values = [...this.bounds].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const middle = (values.length - 1) >> 1;
    return { pp: values[middle][0], more: values.slice(0, middle + 1).some(([, more]) => more), values };
  }
  // Under the attacks one by one.
  get each() {
    this.alone = this.alone || this.attacks.map((attack) => judge([attack], this.limits));
    return this.alone;
  }
  get mean() {
    const found = this.each.filter(Boolean);
    return found.reduce((sum, one) => sum + one.share, 0) / found.length;
  }
  // The labels of attacks that break some claim by themselves.
  get breakers() {
    return this.attacks.filter((_, i) => this.each[i] && this.each[i].share < 1).map((attack) => attack.label);
  }
}

function judge(attacks, limits) {
  const found = attacks.length ? new Judged(attacks, limits) : null;
  return found && found.trials ? found : null;
}
