// The timelines as typed columns, and numbers in words.

const DATA = JSON.parse(document.getElementById("data").textContent);

/** One per timeline of the page; `ranks[r]` holds the columns of its bars in order of time. */
const TIMELINES = DATA.timelines.map((raw) => ({
  ...raw,
  ranks: raw.ranks.map((rank) => ({
    start: Float64Array.from(rank.start),
    end: Float64Array.from(rank.end),
    kind: Uint32Array.from(rank.kind),
    work: Uint32Array.from(rank.work),
    bytes: rank.bytes,
  })),
  memory: raw.memory.map((points) => ({
    time: Float64Array.from(points.time),
    live: points.live.map((column) => Float64Array.from(column)),
  })),
}));

/** What 1 on the shared axis is: seconds where all timelines are in seconds. */
const AXIS_UNIT = TIMELINES.length && TIMELINES.every((timeline) => timeline.unit === "seconds") ? "seconds" : "cost";

/** The position of the first number above `value` in an ascending column. */
function firstAbove(column, value) {
  let low = 0;
  let high = column.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (column[middle] > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** A number without trailing zeros. */
function number(value, decimals = 3) {
  const text = value.toFixed(decimals);
  const short = decimals > 0 ? text.replace(/\.?0+$/, "") : text;
  return short === "-0" ? "0" : short;
}

/** The unit in which times up to `largest` read well: its size and name. */
function timeUnit(largest, unit) {
  if (unit === "cost") return [1, ""];
  const units = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]];
  return units.find(([size]) => largest >= size || largest === 0) ?? [1e-9, "ns"];
}

function timeInWords(time, unit) {
  const [size, name] = timeUnit(time, unit);
  return `${number(time / size)} ${name}`.trim();
}

function bytesInWords(count) {
  const units = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];
  const [size, name] = units.find(([size]) => count >= size) ?? [1, "B"];
  return `${number(count / size, 2)} ${name}`;
}

/** An amount of activations: bytes with their unit, microbatches as a number. */
function amountInWords(amount, timeline) {
  return timeline.memoryUnit === "bytes" ? bytesInWords(amount) : number(amount);
}

/** Round moments between `from` and `to`, about `count` of them, each with its number in the axis's unit. */
function ticks(from, to, count) {
  const [size] = timeUnit(to, AXIS_UNIT);
  const rough = (to - from) / size / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((nice) => nice >= rough * 0.999);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const list = [];
  for (let index = Math.ceil(from / size / step - 1e-9); index * step * size <= to * (1 + 1e-12); index++) {
    list.push([index * step * size, (index * step).toFixed(decimals)]);
  }
  return list;
}
