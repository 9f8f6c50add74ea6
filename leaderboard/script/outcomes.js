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
  trials.stride = layouts.flat().reduce((most, { owners }) => Math.max(most, owners), 1);
  const size = ({ points, owners, timed }) => points * (1 + timed + owners);
  const sizes = layouts.map((layout) => layout.reduce((all, each) => all + size(each), 0));
  let at = 0;
  for (const row of data.rows)
    for (const attack of row.judged) {
      attack.at = at;
      attack.seeds = layouts[attack.place];
      at += sizes[attack.place];
    }
}

// Whether each rung of a layout is affordable; the time, where it differs from point to point, stands among the codes.
function affordableRungs(layout, limits) {
  if (layout.limits === limits) return layout.able;
  const { points, time, timed, queries, images } = layout;
  const within = (amounts, i, limit) => {
    const amount = Array.isArray(amounts) ? amounts[i] : amounts;
    return !known(amount) || amount <= limit;
  };
  const quick = timed || time === UNKNOWN || time <= limits.time;
  const able = (i) => quick && within(queries, i, limits.queries) && within(images, i, limits.images);
  layout.able = Uint8Array.from({ length: points }, (_, i) => !i || able(i));
  layout.limits = limits;
  return layout.able;
}

// The claims of each seed under all attacks at once. They stand in flat arrays, which the next call uses again: an
// object for each claim of ten thousand rows costs more than all the arithmetic.
class Trials {
  constructor() {
    this.count = 0; // seeds
    [this.seed, this.met, this.owners] = [[], [], []]; // of each: its number, attacks with a result, claims
    this.stride = 1; // the most claims of any seed: seed i has its own from i * stride on
    this.grow(16);
  }
  grow(size) {
    const larger = (kind, old) => {
      const made = new kind(size);
      if (old) made.set(old);
      return made;
    };
    this.broken = larger(Uint16Array, this.broken); // least loss at which a claim broke
    this.held = larger(Uint16Array, this.held); // largest loss at which it held; 0 for none
    this.weakest = larger(Uint16Array, this.weakest); // least evidence within the limits
    this.open = larger(Uint8Array, this.open); // whether it broke at a loss that nobody measured
  }
  // The number of a seed, which the attacks mostly have in the same order.
  place({ seed, owners }, guess) {
    let i = guess < this.count && this.seed[guess] === seed ? guess : 0;
    while (i < this.count && this.seed[i] !== seed) i++;
    if (i === this.count) {
      this.count++;
      [this.seed[i], this.met[i], this.owners[i]] = [seed, 0, 0];
      if (this.count * this.stride > this.broken.length) this.grow(2 * this.count * this.stride);
    }
    for (; this.owners[i] < owners; this.owners[i]++) {
      const t = i * this.stride + this.owners[i];
      this.broken[t] = this.weakest[t] = UNKNOWN;
      this.held[t] = this.open[t] = 0;
    }
    this.met[i]++;
    return i;
  }
  follow(attacks, limits) {
    this.count = 0;
    for (const attack of attacks) {
      let at = attack.at;
      for (let k = 0; k < attack.seeds.length; k++) {
        const layout = attack.seeds[k];
        const from = this.place(layout, k) * this.stride;
        at = this.climb(layout, at, from, limits, affordableRungs(layout, limits));
      }
    }
  }
  // Every rung within the limits; returns where the next codes stand.
  climb(layout, at, from, { loss: most, time: longest }, able) {
    const { points, owners, timed } = layout;
    const { broken, held, weakest, open } = this;
    const all = codes;
    for (let i = 0; i < points; i++) {
      const loss = all[at];
      const spent = timed && i ? all[at + 1] : UNKNOWN;
      at += 1 + timed;
      if (able[i] && (spent === UNKNOWN || spent <= longest))
        for (let o = 0, t = from; o < owners; o++, t++) {
          const code = all[at + o];
          if (code & 1) {
            if (loss !== UNKNOWN && loss > held[t]) held[t] = loss;
          } else if (loss === UNKNOWN) open[t] = 1;
          else if (loss < broken[t]) broken[t] = loss;
          if (loss <= most && code < weakest[t]) weakest[t] = code;
        }
      at += owners;
    }
    return at;
  }
}
const trials = new Trials();

const costs = []; // of the row in hand: twice the code of a cost, and one more where it is a bound
const pointsOf = (cost) => Math.max(0, (cost >> 1) - 0.5 - ZERO) / PER_POINT; // a code is rounded up

// Decided claims that survive, of so many; what removal costs; the weakest evidence. Null where nothing is decided.
class Judged {
  constructor(attacks, limits) {
    this.attacks = attacks;
    this.limits = limits;
    this.hits = this.trials = this.undecided = 0;
    this.weakest = UNKNOWN;
    this.pp = null; // what removal costs, of which `more` says whether it is a bound
    this.more = false;
    this.found = this.alone = undefined; // what few rows are asked for is found then
    costs.length = 0;
    trials.follow(attacks, limits);
    for (let i = 0; i < trials.count; i++) this.seed(i);
    if (costs.length) this.price();
  }
  // The claims of one seed; returns how many survive, of how many.
  seed(i) {
    const { hits, trials: before } = this;
    const whole = trials.met[i] === this.attacks.length;
    const from = i * trials.stride;
    for (let t = from; t < from + trials.owners[i]; t++) {
      const broken = trials.broken[t];
      const complete = whole && !trials.open[t];
      const fell = broken <= this.limits.loss;
      if (trials.weakest[t] < this.weakest) this.weakest = trials.weakest[t];
      if (fell || complete) this.trials++;
      else this.undecided++;
      if (!fell && complete) this.hits++;
      if (complete && broken !== UNKNOWN) costs.push(2 * Math.max(ZERO, broken));
      else if (complete && trials.held[t]) costs.push(2 * Math.max(ZERO, trials.held[t]) + 1);
    }
    return [this.hits - hits, this.trials - before];
  }
  // The lower median of what removal costs, of which some are lower bounds.
  price() {
    if (costs.length > 1) costs.sort((a, b) => a - b);
    const middle = (costs.length - 1) >> 1;
    this.pp = pointsOf(costs[middle]);
    for (let i = 0; i <= middle; i++) if (costs[i] & 1) this.more = true;
  }
  // Hits and trials of each seed, and all costs of removal.
  get all() {
    if (this.found) return this.found;
    const again = new Judged([], this.limits);
    again.attacks = this.attacks;
    trials.follow(this.attacks, this.limits);
    const clusters = Array.from({ length: trials.count }, (_, i) => again.seed(i));
    const sorted = [...costs].sort((a, b) => a - b);
    this.found = { interval: clustered(clusters), costs: sorted.map((cost) => [pointsOf(cost), Boolean(cost & 1)]) };
    return this.found;
  }
  get p() {
    return this.weakest === UNKNOWN ? null : pOf(this.weakest >> 1);
  }
  get share() {
    return this.hits / this.trials;
  }
  get low() {
    return this.all.interval.low;
  }
  get high() {
    return this.all.interval.high;
  }
  get removal() {
    return known(this.pp) ? { pp: this.pp, more: this.more, values: this.all.costs } : null;
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
