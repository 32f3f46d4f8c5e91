// Drawing: only what is in view, and what is thinner than a pixel as the share of the pixel that it fills.

const FONT = getComputedStyle(document.body).fontFamily;
const STACKED = DATA.modules;
/** The bars that stand out: those of some microbatches, and one among them. */
const marked = { bar: null, microbatches: null };
/** What the last drawing took. */
const drawn = { frames: 0, milliseconds: 0, shapes: 0 };

let theme = {};
let fills = [];
const widths = new Map();

/** Takes colours from the style sheet, and cuts the stripes for the screen's pixels. */
function readTheme(printing) {
  document.documentElement.classList.toggle("printing", printing);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  theme = Object.fromEntries(["ground", "ink", "dim", "track", "grid", "focus"].map((name) => [name, colour(name)]));
  fills = DATA.styles.map((style) => (style.hatched ? stripes(style) : style.fill));
}

function stripes({ fill, ink }) {
  const tile = document.createElement("canvas");
  const side = Math.round(7 * screenSize.ratio);
  tile.width = tile.height = side;
  const pen = tile.getContext("2d");
  pen.fillStyle = fill;
  pen.fillRect(0, 0, side, side);
  pen.strokeStyle = ink;
  pen.globalAlpha = 0.4;
  pen.lineWidth = 1.3 * screenSize.ratio;
  for (const shift of [-side, 0, side]) {
    pen.beginPath();
    pen.moveTo(shift - 1, side + 1);
    pen.lineTo(shift + side + 1, -1);
    pen.stroke();
  }
  const pattern = pen.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(1 / screenSize.ratio));
  return pattern;
}

/** Gives a canvas its size in device pixels, and clears it. `top` moves what is drawn up. */
function prepare(canvas, pen, height, top) {
  const { width, ratio } = screenSize;
  const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== columns || canvas.height !== rows) {
    [canvas.width, canvas.height] = [columns, rows];
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, -top * ratio);
  pen.clearRect(0, top, width, height);
}

const snap = (x) => Math.round(x * screenSize.ratio) / screenSize.ratio;

function text(pen, words, x, y, { colour = theme.dim, align = "left", size = 12 } = {}) {
  pen.font = `${size}px ${FONT}`;
  pen.fillStyle = colour;
  pen.textAlign = align;
  pen.textBaseline = "middle";
  pen.fillText(words, x, y);
}

function drawAxis(canvas, pen) {
  prepare(canvas, pen, 30, 0);
  const [, unit] = timeUnit(view.to, AXIS_UNIT);
  text(pen, unit ? `time, ${unit}` : "time", LEFT - 16, 14, { align: "right" });
  pen.fillStyle = theme.grid;
  pen.fillRect(LEFT, 29, plotWidth(), 1);
  for (const [time, words] of ticks(view.from, view.to, plotWidth() / 110)) {
    const x = xOf(time);
    if (x < LEFT - 1 || x > LEFT + plotWidth() + 1) continue;
    pen.fillStyle = theme.grid;
    pen.fillRect(snap(x), 25, 1, 5);
    text(pen, words, x, 14, { align: "center" });
  }
}

/** Draws the part of a timeline between `top` and `bottom`, measured from its own top. */
function drawSection(section, top, bottom) {
  const { pen, canvas, timeline, geometry: { row, lane, rowsEnd } } = section;
  section.top = top;
  canvas.style.top = `${top}px`;
  prepare(canvas, pen, bottom - top, top);
  pen.fillStyle = theme.grid;
  const gridEnd = timeline.memory.length ? laneTop(section, timeline.memory.length) - lane.gap : rowsEnd;
  for (const [time] of ticks(view.from, view.to, plotWidth() / 110)) {
    pen.fillRect(snap(xOf(time)), 2, 1 / screenSize.ratio, gridEnd);
  }
  const seen = (y, height) => y + height >= top && y <= bottom;
  const finish = Math.min(LEFT + plotWidth(), xOf(timeline.end));
  const lit = litWorks(timeline);
  timeline.ranks.forEach((rank, index) => {
    const y = rowTop(section, index);
    if (!seen(y, row.height)) return;
    text(pen, `rank ${index}`, LEFT - 10, y + row.height / 2, { align: "right" });
    pen.fillStyle = theme.track;
    if (finish > LEFT) pen.fillRect(LEFT, y, finish - LEFT, row.height);
    clipped(pen, y - 2, row.height + 4, () => drawBars(section, rank, index, y, lit));
  });
  if (timeline.memory.length) {
    const what = timeline.memoryUnit === "bytes" ? "" : " in microbatches";
    const full = amountInWords(timeline.memoryPeak, timeline);
    text(pen, `Activations kept for backwards${what} · full height is ${full}`, LEFT, lane.top - 13);
    text(pen, "peak", LEFT + plotWidth() + 8, lane.top - 13);
  }
  timeline.memory.forEach((points, index) => {
    const y = laneTop(section, index);
    if (seen(y, lane.height)) drawLane(section, points, index, y, finish);
  });
  if (xOf(timeline.end) <= LEFT + plotWidth() + 0.5 && finish >= LEFT) {
    pen.strokeStyle = theme.ink;
    pen.lineWidth = 1.5;
    pen.setLineDash([3, 3]);
    pen.beginPath();
    pen.moveTo(finish, 2);
    pen.lineTo(finish, gridEnd + 2);
    pen.stroke();
    pen.setLineDash([]);
  }
}

function clipped(pen, y, height, draw) {
  pen.save();
  pen.beginPath();
  pen.rect(LEFT, y, plotWidth(), height);
  pen.clip();
  draw();
  pen.restore();
}

/** By number of work: whether it belongs to a marked microbatch; null where none is marked. */
function litWorks(timeline) {
  if (!marked.microbatches) return null;
  return timeline.works.map(([, microbatches]) => microbatches.some((one) => marked.microbatches.has(one)));
}

function drawBars(section, rank, rankIndex, y, lit) {
  const { timeline } = section;
  const { start, end, kind, work } = rank;
  const { ratio } = screenSize;
  const thin = thinBars(section.pen, y, section.geometry.row.height);
  for (let i = firstAbove(end, view.from); i < start.length && start[i] < view.to; i++) {
    const [left, right] = [xOf(start[i]), xOf(end[i])];
    const [, style, beneath] = timeline.kinds[kind[i]];
    const faint = lit !== null && !lit[work[i]];
    if ((right - left) * ratio < 1.5) thin.add(left, right - left, style, faint);
    else drawBar(section, y, left, right, [style, beneath], timeline.works[work[i]][1], faint);
  }
  thin.draw();
  const { bar } = marked;
  if (bar && bar.section === section && bar.rank === rankIndex) {
    const { pen, geometry: { row } } = section;
    const left = snap(xOf(start[bar.index]));
    pen.strokeStyle = theme.ink;
    pen.lineWidth = 2;
    pen.strokeRect(left, y, Math.max(2, snap(xOf(end[bar.index])) - left), row.height);
  }
}

/** Bars too thin to be drawn one by one: each column of pixels is divided, from below, by the time they take of it. */
function thinBars(pen, y, height) {
  const column = 1 / screenSize.ratio;
  // By style, and whether faint: x, top and height of each piece.
  const pieces = fills.flatMap(() => [[], []]);
  const taken = new Float64Array(pieces.length);
  let current = -1;
  const close = () => {
    let floor = y + height;
    taken.forEach((width, look) => {
      if (width <= 0) return;
      const part = Math.min(floor - y, (width / column) * height);
      floor -= part;
      pieces[look].push(current * column, floor, part);
    });
    taken.fill(0);
  };
  return {
    add(left, width, style, faint) {
      const index = Math.floor(left / column);
      if (index !== current) {
        close();
        current = index;
      }
      taken[2 * style + (faint ? 1 : 0)] += width;
    },
    draw() {
      close();
      pieces.forEach((list, look) => {
        pen.globalAlpha = look % 2 ? 0.2 : 1;
        pen.fillStyle = DATA.styles[look >> 1].fill;
        for (let i = 0; i < list.length; i += 3) pen.fillRect(list[i], list[i + 1], column, list[i + 2]);
        drawn.shapes += list.length / 3;
      });
      pen.globalAlpha = 1;
    },
  };
}

/** Of two passes that run at once, the second is `beneath` the first. */
function drawBar(section, y, left, right, [style, beneath], microbatches, faint) {
  const { pen, geometry: { row } } = section;
  const edge = 1 / screenSize.ratio;
  // Far ends out of view are drawn just outside of it: canvases lose precision at large coordinates.
  const from = snap(Math.max(left, LEFT - 8));
  const to = snap(Math.min(right, LEFT + plotWidth() + 8));
  // A hair of track keeps neighbours of one colour apart.
  const width = to - from > 4 ? to - from - Math.max(edge, 0.5) : Math.max(edge, to - from);
  pen.globalAlpha = faint ? 0.2 : 1;
  pen.fillStyle = fills[style];
  if (width > 8) {
    pen.beginPath();
    pen.roundRect(from, y, width, row.height, 2);
    pen.fill();
  } else {
    pen.fillRect(from, y, width, row.height);
  }
  drawn.shapes++;
  if (beneath !== null) {
    pen.fillStyle = fills[beneath];
    pen.fillRect(from, y + row.height / 2, width, row.height / 2);
  }
  const inView = Math.min(to, LEFT + plotWidth()) - Math.max(from, LEFT);
  if (inView > 8) {
    const numbers = microbatches.join(",");
    const label = [DATA.styles[style].mark + numbers, numbers].find((label) => widthOf(pen, label) < inView - 4);
    if (label) {
      const x = (Math.min(to, LEFT + plotWidth()) + Math.max(from, LEFT)) / 2;
      const middle = y + row.height * (beneath === null ? 0.5 : 0.25);
      text(pen, label, x, middle + 0.5, { colour: DATA.styles[style].ink, align: "center", size: 11 });
    }
  }
  pen.globalAlpha = 1;
}

function widthOf(pen, label) {
  let width = widths.get(label);
  if (width === undefined) {
    pen.font = `11px ${FONT}`;
    width = pen.measureText(label).width;
    widths.set(label, width);
  }
  return width;
}

/** Stacked areas of what a rank keeps alive. */
function drawLane(section, points, rank, y, finish) {
  const { pen, timeline, geometry: { lane } } = section;
  const base = y + lane.height;
  text(pen, `rank ${rank}`, LEFT - 10, y + lane.height / 2, { align: "right" });
  pen.fillStyle = theme.track;
  if (finish > LEFT) pen.fillRect(LEFT, y, finish - LEFT, lane.height);
  const peak = points.live.length ? points.time.reduce((most, _, i) => Math.max(most, sumAt(points, i)), 0) : 0;
  text(pen, amountInWords(peak, timeline), LEFT + plotWidth() + 8, y + lane.height / 2);
  if (!(timeline.memoryPeak > 0)) return;
  const steps = stepsInView(points, finish);
  clipped(pen, y, lane.height, () => {
    for (let layer = STACKED.length - 1; layer >= 0; layer--) {
      if (!points.live[layer].some((level) => level > 0)) continue;
      const level = (step) => base - (step.levels[layer] / timeline.memoryPeak) * lane.height;
      pen.fillStyle = STACKED[layer].fill;
      pen.strokeStyle = STACKED[layer].edge;
      pen.lineWidth = 1;
      trace(pen, steps, level, finish);
      pen.lineTo(finish, base);
      pen.lineTo(steps[0].x, base);
      pen.fill();
      trace(pen, steps, level, finish);
      pen.stroke();
      drawn.shapes += 2;
    }
  });
}

function trace(pen, steps, level, finish) {
  pen.beginPath();
  steps.forEach((step, i) => {
    if (i === 0) pen.moveTo(step.x, level(step));
    else pen.lineTo(step.x, level(step));
    pen.lineTo(steps[i + 1]?.x ?? finish, level(step));
  });
}

const sumAt = (points, i) => points.live.reduce((sum, column) => sum + column[i], 0);

/** Levels from below upwards, layer on layer, from each x on; steps that lie too close together become their highest. */
function stepsInView(points, finish) {
  const near = 1.5;
  const zero = points.live.map(() => 0);
  const stackedAt = (i) => {
    let sum = 0;
    return i < 0 ? zero : points.live.map((column) => (sum += Math.max(0, column[i])));
  };
  const first = firstAbove(points.time, view.from) - 1;
  const steps = [{ x: LEFT, levels: stackedAt(first) }];
  // The level that a merged step leaves behind, which shows where nothing follows it soon.
  let after = null;
  const settle = (x) => {
    const last = steps.at(-1);
    if (after && x - last.x > 2 * near) steps.push({ x: last.x + near, levels: after });
    after = null;
  };
  for (let i = first + 1; i < points.time.length && points.time[i] < view.to; i++) {
    const x = xOf(points.time[i]);
    const last = steps.at(-1);
    const levels = stackedAt(i);
    if (x - last.x < near) {
      after = levels;
      last.levels = last.levels.map((level, layer) => Math.max(level, levels[layer]));
    } else {
      settle(x);
      steps.push({ x, levels });
    }
  }
  settle(finish);
  return steps;
}
