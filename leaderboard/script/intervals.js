// 95 % intervals of counts, as `bench.metrics` defines them: Wilson's, or Clopper-Pearson with the hosts as trials.
const Z = 1.959963984540054;
const FEWEST_CLUSTERS = 5;

function wilson(hits, trials) {
  const [share, square] = [hits / trials, Z * Z];
  const middle = (share + square / (2 * trials)) / (1 + square / trials);
  const half = (Z / (1 + square / trials)) * Math.sqrt((share * (1 - share)) / trials + square / (4 * trials * trials));
  return { low: hits === 0 ? 0 : middle - half, high: hits === trials ? 1 : middle + half };
}

// log Gamma, Lanczos' approximation.
function logGamma(x) {
  const factors = [
    76.18009172947146, -86.50532032941677, 24.01409824083091, -1.231739572450155, 1.208650973866179e-3,
    -5.395239384953e-6,
  ];
  const sum = factors.reduce((all, factor, i) => all + factor / (x + i + 1), 1.000000000190015);
  return (x + 0.5) * Math.log(x + 5.5) - (x + 5.5) + Math.log((2.5066282746310005 * sum) / x);
}

// The regularised incomplete beta function, by its continued fraction (Lentz).
function beta(a, b, x) {
  if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - beta(b, a, 1 - x);
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log(1 - x)) / a;
  const away = (value) => (Math.abs(value) < 1e-300 ? 1e-300 : value);
  let [fraction, c, d] = [1, 1, 0];
  for (let i = 0; i < 400; i++) {
    const m = i >> 1;
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    const term = i === 0 ? 1 : i % 2 === 0 ? even : odd;
    d = 1 / away(1 + term * d);
    c = away(1 + term / c);
    fraction *= c * d;
    if (i && Math.abs(1 - c * d) < 1e-12) break;
  }
  return front * (fraction - 1);
}

function betaQuantile(a, b, share) {
  let [low, high] = [0, 1];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (beta(a, b, middle) < share) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

// Hosts of unequal size count as (sum n)^2 / sum n^2 equal ones.
function clusterInterval(clusters) {
  const asked = clusters.filter(([, trials]) => trials);
  if (asked.length < FEWEST_CLUSTERS) return { low: null, high: null };
  const sum = (of) => asked.reduce((all, each) => all + of(each), 0);
  const total = sum(([, trials]) => trials);
  const size = total ** 2 / sum(([, trials]) => trials ** 2);
  const found = (size * sum(([hits]) => hits)) / total;
  return {
    low: found > 1e-9 ? betaQuantile(found, size - found + 1, 0.025) : 0,
    high: size - found > 1e-9 ? betaQuantile(found + 1, size - found, 0.975) : 1,
  };
}

// Hits of trials, of which some share a host: [hits, trials] of each.
function clustered(clusters) {
  const asked = clusters.filter(([, trials]) => trials);
  const hits = asked.reduce((all, each) => all + each[0], 0);
  const trials = asked.reduce((all, each) => all + each[1], 0);
  return asked.every((each) => each[1] === 1) ? wilson(hits, trials) : clusterInterval(asked);
}
