//! The timeline as a self-contained page: the SVG, a tooltip, the ops of one microbatch lit up, zoom along time.

use super::{Timeline, svg::svg};

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">
<title>Pipeline timeline</title>
<style>
:root{color-scheme:light dark;--bg:#fff;--ink:#1f2937;--tip:#1f2937;--tip-ink:#fff}
@media (prefers-color-scheme:dark){:root{--bg:#0f141b;--ink:#e6e9ee;--tip:#e6e9ee;--tip-ink:#0f141b}}
body{margin:0;background:var(--bg);color:var(--ink);font:14px system-ui,sans-serif}
#bar{display:flex;gap:12px;align-items:center;padding:10px 20px;position:sticky;left:0;top:0;background:var(--bg)}
#scroll{overflow-x:auto}
#scroll svg{display:block;height:auto}
.bar{transition:opacity .08s}
.focus .bar{opacity:.22}.focus .bar.on{opacity:1}
#tip{position:fixed;display:none;white-space:pre;pointer-events:none;background:var(--tip);color:var(--tip-ink);
padding:7px 10px;border-radius:6px;font-size:12.5px;line-height:1.45;box-shadow:0 4px 14px #0004}
</style></head><body>
<div id=\"bar\"><label>Zoom <input id=\"zoom\" type=\"range\" min=\"100\" max=\"1600\" value=\"100\"></label>
<span>Point at an op to see it and the rest of its microbatch.</span></div>
<div id=\"scroll\">
";

const TAIL: &str = "</div><div id=\"tip\"></div>
<script>
const svg = document.querySelector('#scroll svg'), tip = document.getElementById('tip');
const zoom = document.getElementById('zoom'), bars = [...svg.querySelectorAll('.bar')];
const of = bar => bar.dataset.m.split(' ');
for (const shape of svg.querySelectorAll('.bar, path')) {
  const title = shape.querySelector('title');
  if (title) { shape.dataset.tip = title.textContent; title.remove(); }
}
const resize = () => { svg.setAttribute('width', zoom.value + '%'); svg.removeAttribute('height'); };
zoom.addEventListener('input', resize);
resize();
svg.addEventListener('mousemove', event => {
  const shape = event.target.closest('[data-tip]');
  tip.style.display = shape ? 'block' : 'none';
  if (!shape) return;
  tip.textContent = shape.dataset.tip;
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + 'px';
  tip.style.top = Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8) + 'px';
});
svg.addEventListener('mouseleave', () => { tip.style.display = 'none'; });
svg.addEventListener('mouseover', event => {
  const bar = event.target.closest('.bar');
  svg.classList.toggle('focus', Boolean(bar));
  if (!bar) return;
  const mine = new Set(of(bar));
  for (const other of bars) other.classList.toggle('on', of(other).some(m => mine.has(m)));
});
</script></body></html>
";

/// Draws timelines under each other on a page.
pub fn html(timelines: &[Timeline]) -> String {
    format!("{HEAD}{}{TAIL}", svg(timelines))
}
