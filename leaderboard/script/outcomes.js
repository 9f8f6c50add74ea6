// What each claim showed at each rung, and what survives of it: the definitions of `bench.metrics.robustness`.
const UNKNOWN = 65535; // a loss or a time that was not measured
const ZERO = 32768; // the code of a loss of nothing
const PER_POINT = 300; // codes a percentage point
const [FINE, COARSE, DECADES] = [1000, 50, 16]; // codes a power of ten of a p-value: up to so many, and beyond
const pOf = (code) => 10 ** -(code <= FINE * DECADES ? code / FINE : DECADES + (code - FINE * DECADES) / COARSE);
const PER_TRAINING = 1000; // codes the time of one training
const UNLIMITED = { loss: ZERO + 100 * PER_POINT, time: UNKNOWN - 1, queries: Infinity, images: Infinity };
let codes = new Uint16Array();

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

// The codes stand in the order of rows and attacks: seed by seed, point by point a loss, a time, and a code an owner.
function readOutcomes() {
  codes = new Uint16Array(bytesOf(byId("outcomes").textContent).buffer);
  const layouts = data.layouts.map((layout) =>
    layout.map(([seed, points, owners, time, queries, images]) => ({
      ...{ seed, points, owners, time, queries, images },
      timed: time === null ? 1 : 0, // whether the codes hold times
    })),
  );
  const sizes = layouts.map((layout) => layout.reduce((all, { points, owners, timed }) => all + points * (1 + timed + owners), 0));
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
  constructor() {
    this.clear();
  }
  clear() {
    this.broken = UNKNOWN; // least loss at which it broke
    this.held = 0; // largest loss at which it held; 0 for none
    this.open = false; // it broke at a loss that nobody measured
    this.weakest = UNKNOWN; // least evidence within the limits
    return this;
  }
  add(loss, code, most) {
    if (code & 1) {
      if (loss !== UNKNOWN && loss > this.held) this.held = loss;
    } else if (loss === UNKNOWN) this.open = true;
    else if (loss < this.broken) this.broken = loss;
    if (loss <= most && code < this.weakest) this.weakest = code;
  }
}

// The trials of each seed under all these attacks at once; `met` counts the attacks that the seed has a result of.
// They are valid until the next call, which uses them again: new ones for each row cost more than all the arithmetic.
const pool = [];
let taken = 0;
function fresh() {
  if (taken === pool.length) pool.push(new Trial());
  return pool[taken++].clear();
}
function trials(attacks, limits) {
  const found = [];
  taken = 0;
  for (const attack of attacks) {
    let at = attack.at;
    for (const layout of attack.seeds) {
      const seed = seedOf(found, layout);
      seed.met++;
      at = follow(layout, at, seed.all, limits);
    }
  }
  return found;
}

function seedOf(found, { seed, owners }) {
  let mine = found.find((each) => each.seed === seed);
  if (!mine) found.push((mine = { seed, met: 0, all: [] }));
  while (mine.all.length < owners) mine.all.push(fresh());
  return mine;
}

// Hands every rung within the limits to the trials; returns where the next codes stand.
function follow({ points, owners, time, timed, queries, images }, at, all, limits) {
  for (let i = 0; i < points; i++) {
    const loss = codes[at++];
    const spent = timed ? codes[at++] : time;
    const able = !i || ((spent === UNKNOWN || spent <= limits.time) && fits(queries, i, limits.queries) && fits(images, i, limits.images));
    if (able) for (let o = 0; o < owners; o++) all[o].add(loss, codes[at + o], limits.loss);
    at += owners;
  }
  return at;
}

// Decided claims that survive, of so many; what removal costs; the weakest evidence. Null where nothing is decided.
class Judged {
  constructor(attacks, limits) {
    this.attacks = attacks;
    this.limits = limits;
    this.hits = this.trials = this.undecided = 0;
    this.weakest = UNKNOWN;
    this.clusters = []; // hits and trials of each seed, one after another
    this.costs = []; // twice the code of a cost, and one more where it is a bound
    this.found = this.cost = this.alone = undefined;
    for (const { met, all } of trials(attacks, limits)) {
      const { hits, trials: before } = this;
      for (const trial of all) this.count(trial, met === attacks.length && !trial.open);
      this.clusters.push(this.hits - hits, this.trials - before);
    }
  }
  count(trial, complete) {
    if (trial.weakest < this.weakest) this.weakest = trial.weakest;
    const fell = trial.broken <= this.limits.loss;
    if (!fell && !complete) return void this.undecided++;
    this.trials++;
    if (!fell) this.hits++;
    if (complete && trial.broken !== UNKNOWN) this.costs.push(2 * Math.max(ZERO, trial.broken));
    else if (complete && trial.held) this.costs.push(2 * Math.max(ZERO, trial.held) + 1);
  }
  get p() {
    return this.weakest === UNKNOWN ? null : pOf(this.weakest >> 1);
  }
  get share() {
    return this.hits / this.trials;
  }
  get interval() {
    const pairs = () => this.clusters.flatMap((hits, i) => (i % 2 ? [] : [[hits, this.clusters[i + 1]]]));
    return (this.found = this.found || clustered(pairs()));
  }
  get low() {
    return this.interval.low;
  }
  get high() {
    return this.interval.high;
  }
  get removal() {
    if (this.cost === undefined) this.cost = this.costs.length ? lowerMedian(this.costs) : null;
    return this.cost;
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

// The lower median of what removal costs, of which some are lower bounds, with all of it. A code is rounded up.
function lowerMedian(costs) {
  const values = costs.length > 1 ? costs.sort((a, b) => a - b) : costs;
  const middle = (values.length - 1) >> 1;
  const points = (cost) => Math.max(0, (cost >> 1) - 0.5 - ZERO) / PER_POINT;
  return {
    pp: points(values[middle]),
    more: values.slice(0, middle + 1).some((cost) => cost & 1),
    get values() {
      return values.map((cost) => [points(cost), Boolean(cost & 1)]);
    },
  };
}

function judge(attacks, limits) {
  const found = attacks.length ? new Judged(attacks, limits) : null;
  return found && found.trials ? found : null;
}
