// Where things are: the part of time in view, and the rows of every timeline.

/** Pixels left of time for names, and right of it for the peaks of memory. */
const LEFT = 72;
const RIGHT = 76;

const WHOLE = DATA.end > 0 ? DATA.end : 1;
/** The part of time in view, the same for all timelines. */
const view = { from: 0, to: WHOLE };
/** Width of every canvas, and device pixels per pixel. */
const screenSize = { width: 0, ratio: 1 };

const plotWidth = () => Math.max(1, screenSize.width - LEFT - RIGHT);
const xOf = (time) => LEFT + ((time - view.from) / (view.to - view.from)) * plotWidth();
const timeAt = (x) => view.from + ((x - LEFT) / plotWidth()) * (view.to - view.from);

/** Shows a part of time: never more than the whole, never less than can be told apart. */
function setView(from, to) {
  const span = Math.min(WHOLE, Math.max(WHOLE * 1e-7, to - from));
  view.from = Math.min(Math.max(0, from), WHOLE - span);
  view.to = view.from + span;
}

/** The view in which the time under `x` stays there and `factor` times as much time is in view. */
function zoomed(factor, x) {
  const anchor = Math.min(view.to, Math.max(view.from, timeAt(x)));
  const span = Math.min(WHOLE, (view.to - view.from) * factor);
  const share = (anchor - view.from) / (view.to - view.from);
  return [anchor - share * span, anchor + (1 - share) * span];
}

/** Heights of a timeline's parts; many ranks get lower rows. */
function geometryOf(timeline) {
  const count = timeline.ranks.length;
  const dense = count > 16;
  const row = { top: 8, height: dense ? 16 : 24, gap: dense ? 3 : 5 };
  const rowsEnd = row.top + count * (row.height + row.gap) - row.gap;
  const lane = { top: rowsEnd + 36, height: dense ? 18 : 30, gap: dense ? 4 : 6 };
  const lanes = timeline.memory.length;
  const end = lanes ? lane.top + lanes * (lane.height + lane.gap) - lane.gap : rowsEnd;
  return { row, lane, rowsEnd, height: end + 8 };
}

/** One per timeline: its canvas and where it is. `top` is how far below the timeline's own top the canvas begins. */
const sections = [...document.querySelectorAll("main > section")].map((element, index) => {
  const plot = element.querySelector(".plot");
  const canvas = plot.querySelector("canvas");
  const geometry = geometryOf(TIMELINES[index]);
  plot.style.height = `${geometry.height}px`;
  return {
    index, plot, canvas, geometry, top: 0, timeline: TIMELINES[index],
    pen: canvas.getContext("2d"), cursor: plot.querySelector(".cursor"),
  };
});

const rowTop = ({ geometry: { row } }, rank) => row.top + rank * (row.height + row.gap);
const laneTop = ({ geometry: { lane } }, rank) => lane.top + rank * (lane.height + lane.gap);

/** What is at a point of a section: a bar, a moment of a rank's memory, or nothing. */
function hit(section, x, y) {
  if (x < LEFT || x > LEFT + plotWidth()) return null;
  const { geometry: { row, lane }, timeline } = section;
  const rank = Math.floor((y - row.top) / (row.height + row.gap));
  if (rank >= 0 && rank < timeline.ranks.length) {
    if (y - rowTop(section, rank) > row.height) return null;
    const index = barAt(timeline.ranks[rank], x);
    return index === null ? null : { section, rank, index };
  }
  const memory = Math.floor((y - lane.top) / (lane.height + lane.gap));
  return memory >= 0 && memory < timeline.memory.length ? { section, rank: memory, time: timeAt(x) } : null;
}

/** The bar under `x`, or one so close that it cannot be aimed at. */
function barAt(rank, x) {
  const time = timeAt(x);
  const near = (2 / plotWidth()) * (view.to - view.from);
  const index = firstAbove(rank.end, time);
  if (index < rank.start.length && rank.start[index] <= time) return index;
  if (index < rank.start.length && rank.start[index] - time < near) return index;
  return index > 0 && time - rank.end[index - 1] < near ? index - 1 : null;
}
