// Mouse, touch and keys; and what the page says about what they point at.

const axis = document.querySelector("#axis canvas");
const axisPen = axis.getContext("2d");
const moment = document.querySelector("#axis output");
const tip = document.getElementById("tip");
const live = document.getElementById("live");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let printing = false;
let frame = 0;
let motion = 0;
/** The bar that keys or a click chose: it stays marked while nothing else is pointed at. */
let chosen = null;
/** Fingers and buttons that are down, by pointer. */
const down = new Map();
let dragged = false;

function redraw() {
  frame ||= requestAnimationFrame(drawAll);
}

function drawAll() {
  cancelAnimationFrame(frame);
  frame = 0;
  const begin = performance.now();
  drawn.shapes = 0;
  drawAxis(axis, axisPen);
  for (const section of sections) {
    // A canvas covers what is in sight and some more, not the whole of a timeline that may be very high.
    const { top } = section.plot.getBoundingClientRect();
    const { height } = section.geometry;
    const [above, below] = printing ? [0, height] : [-top - 300, innerHeight - top + 300];
    const from = Math.floor(Math.min(Math.max(0, above), height));
    const to = Math.ceil(Math.max(0, Math.min(height, below)));
    if (to > from) drawSection(section, from, to);
  }
  drawn.frames++;
  drawn.milliseconds = performance.now() - begin;
}

function refit() {
  screenSize.width = document.querySelector("main").clientWidth;
  screenSize.ratio = devicePixelRatio || 1;
  readTheme(printing);
  drawAll();
}

function show([from, to], smooth) {
  cancelAnimationFrame(motion);
  const [a, b] = [view.from, view.to];
  if (!smooth || calm.matches) {
    setView(from, to);
    return redraw();
  }
  const begin = performance.now();
  const step = (now) => {
    const part = Math.min(1, Math.max(0, now - begin) / 140);
    const eased = 1 - (1 - part) ** 3;
    setView(a + (from - a) * eased, b + (to - b) * eased);
    if (part < 1) motion = requestAnimationFrame(step);
    drawAll();
  };
  motion = requestAnimationFrame(step);
}

const shifted = (share) => {
  const by = (view.to - view.from) * share;
  const from = Math.min(Math.max(0, view.from + by), WHOLE - (view.to - view.from));
  return [from, from + (view.to - view.from)];
};

// What is pointed at

function barInWords({ section: { timeline }, rank, index }) {
  const bars = timeline.ranks[rank];
  const [operation, style] = timeline.kinds[bars.kind[index]];
  const [work] = timeline.works[bars.work[index]];
  const { unit } = timeline;
  const { start, end, bytes } = bars;
  const rows = [
    ["works on", work],
    ["rank", String(rank)],
    ["start", timeInWords(start[index], unit)],
    ["end", timeInWords(end[index], unit)],
    ["lasts", timeInWords(end[index] - start[index], unit)],
  ];
  if (bytes) rows.push([DATA.styles[style].moves, bytesInWords(bytes[index])]);
  return [operation, rows];
}

function memoryInWords({ section: { timeline }, rank, time }) {
  const points = timeline.memory[rank];
  const at = firstAbove(points.time, time) - 1;
  const rows = STACKED.map(({ name }, layer) => [name, amountInWords(at < 0 ? 0 : points.live[layer][at], timeline)]);
  const used = rows.filter((_, layer) => points.live[layer].some((level) => level > 0));
  const unit = timeline.memoryUnit === "bytes" ? "" : ", in microbatches";
  return [`rank ${rank} keeps at ${timeInWords(time, timeline.unit)}${unit}`, used];
}

function explain([title, rows], x, y) {
  const list = document.createElement("dl");
  for (const [name, value] of rows) {
    list.append(
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: value }),
    );
  }
  tip.replaceChildren(Object.assign(document.createElement("strong"), { textContent: title }), list);
  tip.hidden = false;
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = x + 16 + width > innerWidth - 8 ? x - 16 - width : x + 16;
  const top = y + 18 + height > innerHeight - 8 ? y - 14 - height : y + 18;
  tip.style.transform = `translate(${Math.round(Math.max(8, left))}px, ${Math.round(Math.max(8, top))}px)`;
}

function mark(bar) {
  if (marked.bar === bar || (bar && marked.bar && sameBar(bar, marked.bar))) return;
  marked.bar = bar;
  marked.microbatches = bar && new Set(microbatchesOf(bar));
  redraw();
}

const sameBar = (a, b) => a.section === b.section && a.rank === b.rank && a.index === b.index;

function microbatchesOf({ section: { timeline }, rank, index }) {
  return timeline.works[timeline.ranks[rank].work[index]][1];
}

function point(section, event) {
  const box = section.plot.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const found = hit(section, x, y);
  mark(found && "index" in found ? found : chosen);
  if (found) explain("index" in found ? barInWords(found) : memoryInWords(found), event.clientX, event.clientY);
  else tip.hidden = true;
  const inside = x >= LEFT && x <= LEFT + plotWidth();
  for (const { cursor } of sections) {
    cursor.style.visibility = inside ? "visible" : "hidden";
    cursor.style.transform = `translateX(${x}px)`;
  }
  moment.style.visibility = inside ? "visible" : "hidden";
  if (inside) {
    const [size, name] = timeUnit(view.to, AXIS_UNIT);
    const decimals = Math.max(0, Math.min(9, 2 - Math.floor(Math.log10((view.to - view.from) / size))));
    moment.textContent = `${(timeAt(x) / size).toFixed(decimals)} ${name}`;
    moment.style.transform = `translateX(${x - moment.offsetWidth / 2}px)`;
  }
  return found;
}

function leave() {
  tip.hidden = true;
  moment.style.visibility = "hidden";
  sections.forEach(({ cursor }) => (cursor.style.visibility = "hidden"));
  mark(chosen);
}

/** Chooses a bar by key: brings it into view and says what it is. */
function choose(bar) {
  chosen = bar;
  if (!bar) {
    live.textContent = "";
    return leave();
  }
  const { section, rank, index } = bar;
  const { start, end } = section.timeline.ranks[rank];
  const span = view.to - view.from;
  if (start[index] < view.from || end[index] > view.to) {
    const middle = (start[index] + end[index]) / 2;
    setView(middle - span / 2, middle + span / 2);
  }
  const y = section.plot.getBoundingClientRect().top + rowTop(section, rank);
  if (y < 60 || y > innerHeight - 60) scrollBy(0, y - innerHeight / 2);
  mark(bar);
  const words = barInWords(bar);
  const { x, bottom } = place(section, rank, index);
  explain(words, x, bottom);
  live.textContent = `${words[0]}, ${words[1].map(([name, value]) => `${name} ${value}`).join(", ")}`;
  redraw();
}

/** The bar that lies in a direction from the chosen one. */
function neighbour(key) {
  if (!chosen) {
    const focused = sections.find(({ canvas }) => canvas === document.activeElement) ?? sections[0];
    const rank = focused ? focused.timeline.ranks.findIndex(({ start }) => start.length) : -1;
    if (rank < 0) return null;
    const { start, end } = focused.timeline.ranks[rank];
    return { section: focused, rank, index: Math.min(firstAbove(end, view.from), start.length - 1) };
  }
  const { section, rank, index } = chosen;
  const { ranks } = section.timeline;
  if (key === "ArrowLeft" || key === "ArrowRight") {
    const next = index + (key === "ArrowRight" ? 1 : -1);
    return next >= 0 && next < ranks[rank].start.length ? { section, rank, index: next } : chosen;
  }
  const other = rank + (key === "ArrowDown" ? 1 : -1);
  if (!ranks[other]?.start.length) return chosen;
  const middle = (ranks[rank].start[index] + ranks[rank].end[index]) / 2;
  return { section, rank: other, index: Math.min(firstAbove(ranks[other].end, middle), ranks[other].start.length - 1) };
}

/** Where a bar is in the window, as far as it is in view. */
function place(section, rank, index) {
  const box = section.plot.getBoundingClientRect();
  const { start, end } = section.timeline.ranks[rank];
  const clamp = (x) => Math.min(LEFT + plotWidth(), Math.max(LEFT, x));
  const [left, right] = [box.left + clamp(xOf(start[index])), box.left + clamp(xOf(end[index]))];
  const top = box.top + rowTop(section, rank);
  const bottom = top + section.geometry.row.height;
  return { left, right, top, bottom, x: (left + right) / 2, y: (top + bottom) / 2 };
}

// Mouse and touch

function wheel(section, event) {
  const x = event.clientX - section.plot.getBoundingClientRect().left;
  // Over the names the wheel scrolls the page.
  if (x < LEFT) return;
  event.preventDefault();
  const pixels = [1, 16, 400][event.deltaMode];
  const [across, along] = [event.deltaX * pixels, event.deltaY * pixels];
  if (event.shiftKey || Math.abs(across) > Math.abs(along)) show(shifted((across || along) / plotWidth()), false);
  else show(zoomed(Math.exp(along * (event.ctrlKey ? 0.01 : 0.0016)), x), false);
  point(section, event);
}

function press(section, event) {
  if (event.button !== 0) return;
  down.set(event.pointerId, { x: event.clientX, y: event.clientY });
  section.canvas.setPointerCapture(event.pointerId);
  if (down.size === 1) dragged = false;
}

function move(section, event) {
  const before = down.get(event.pointerId);
  if (!before) return void point(section, event);
  const now = { x: event.clientX, y: event.clientY };
  if (!dragged && Math.hypot(now.x - before.x, now.y - before.y) < 4) return;
  dragged = true;
  const box = section.plot.getBoundingClientRect();
  const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
  if (other) {
    const [was, is] = [Math.max(8, Math.abs(before.x - other.x)), Math.max(8, Math.abs(now.x - other.x))];
    show(zoomed(was / is, (before.x + other.x) / 2 - box.left), false);
    show(shifted((before.x - now.x) / 2 / plotWidth()), false);
  } else {
    show(shifted((before.x - now.x) / plotWidth()), false);
    if (event.pointerType === "mouse") scrollBy(0, before.y - now.y);
  }
  down.set(event.pointerId, now);
  section.canvas.classList.add("dragged");
  leave();
}

function release(section, event) {
  if (!down.delete(event.pointerId)) return;
  section.canvas.classList.remove("dragged");
  if (dragged || event.type === "pointercancel") return;
  const found = point(section, event);
  chosen = found && "index" in found ? found : null;
  mark(chosen);
}

for (const section of sections) {
  const { canvas } = section;
  canvas.addEventListener("wheel", (event) => wheel(section, event), { passive: false });
  canvas.addEventListener("pointerdown", (event) => press(section, event));
  canvas.addEventListener("pointermove", (event) => move(section, event));
  canvas.addEventListener("pointerup", (event) => release(section, event));
  canvas.addEventListener("pointercancel", (event) => release(section, event));
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("dblclick", () => show([0, WHOLE], true));
}

// Keys

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key } = event;
  const middle = LEFT + plotWidth() / 2;
  if (event.shiftKey && key.startsWith("Arrow")) choose(neighbour(key));
  else if (key === "+" || key === "=") show(zoomed(1 / 1.5, middle), true);
  else if (key === "-" || key === "_" || key === "−") show(zoomed(1.5, middle), true);
  else if (key === "ArrowLeft") show(shifted(-0.15), true);
  else if (key === "ArrowRight") show(shifted(0.15), true);
  else if (key === "0" || key === "Home") show([0, WHOLE], true);
  else if (key === "Escape") choose(null);
  else return;
  event.preventDefault();
});

// The window

addEventListener("scroll", redraw, { passive: true });
addEventListener("resize", refit);
new ResizeObserver(refit).observe(document.querySelector("main"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refit);
for (const [event, now] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(event, () => {
    printing = now;
    refit();
  });
}
refit();

/** For tests and for scripts on top of the page: where bars are in the window, what is in view, what drawing took. */
window.bigmac = {
  locate: (timeline, rank, index) => place(sections[timeline], rank, index),
  locateMemory: (timeline, rank, time) => {
    const section = sections[timeline];
    const box = section.plot.getBoundingClientRect();
    return { x: box.left + xOf(time), y: box.top + laneTop(section, rank) + section.geometry.lane.height / 2 };
  },
  bars: (timeline, rank) => TIMELINES[timeline].ranks[rank].start.length,
  view: () => ({ ...view, whole: WHOLE }),
  drawn: () => ({ ...drawn }),
};
