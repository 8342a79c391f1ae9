"""Style and script of every HTML page: light and dark, wide and narrow, sorted tables, copies, and sliders over pictures."""

STYLE = """
:root {
  color-scheme: light dark; --ground: #fff; --panel: #f5f7fa; --ink: #1b2430; --soft: #566372; --line: #dce3ea;
  --own: #e7f4ec; --accent: #17697f; --math: "STIX Two Text", Cambria, "Liberation Serif", Georgia, serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #11161c; --panel: #1a2129; --ink: #dde4ec; --soft: #96a4b3; --line: #2c3742; --own: #193226; --accent: #74c7dd;
  }
}
* { box-sizing: border-box }
body {
  font: 15px/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1.6rem 1rem 3rem; color: var(--ink);
  background: var(--ground); overflow-wrap: break-word;
}
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0 0 .3rem }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem }
p { margin: .5rem 0; max-width: 64rem }
p.note { color: var(--soft); font-size: 14px }
small { color: var(--soft); font-weight: 400 }
code, pre { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace }
img { max-width: 100%; height: auto; display: block }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }

/* what is copied, and tables */
.copied { position: relative; margin: .6rem 0 }
.copied > button {
  position: absolute; right: 0; top: 0; font: 13px/1.4 system-ui, sans-serif; color: var(--ink); background: var(--panel);
  border: 1px solid var(--line); border-radius: 6px; padding: 2px 10px; cursor: pointer;
}
.copied > button:hover { border-color: var(--accent) }
.copied.code > button { right: 8px; top: 8px }
pre {
  background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .7rem 5rem .7rem .9rem; margin: 0;
  overflow-x: auto;
}
.copied.table { max-width: 100%; min-width: 0; margin: .6rem 0 1.2rem }
.copied.table > p { margin: 0; padding: 2px 5rem 5px 0; font-weight: 600; font-size: 14px }
.pair { display: grid; gap: 0 2.5rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)) }
.pair > * { min-width: 0 }
.pair table { width: 100% }
.pair code { overflow-wrap: anywhere }
.pair td:last-child { min-width: 9rem }
.scroll { overflow-x: auto; max-width: 100% }
.scroll > picture > img { max-width: max(100%, 60rem) }
table { border-collapse: separate; border-spacing: 0; font-size: 13.5px; min-width: 100%; width: max-content }
td, th { padding: 5px 11px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
td:first-child, th:first-child { padding-left: 0 }
td { max-width: 32rem }
td small { font-size: inherit }
th { color: var(--soft); font-weight: 600; white-space: nowrap }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.wide td { white-space: nowrap }
.wide td:first-child, .wide th:first-child { position: sticky; left: 0; background: var(--ground) }
.wide tr.own td { background: var(--own); font-weight: 600 }
th button { all: unset; cursor: pointer }
th button:focus-visible { outline: 2px solid var(--accent) }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }

/* equations, and figures that matter most */
.formula {
  font: 1.22rem/1.75 var(--math); margin: .7rem 0; padding: .5rem .9rem; border-left: 3px solid var(--accent);
  background: var(--panel); border-radius: 0 8px 8px 0;
}
.formula small { font: 14px/1.5 system-ui, sans-serif; margin-left: .9rem }
.formula sub, .formula sup { line-height: 0; font-size: .72em }
dl {
  display: grid; grid-template-columns: max-content 1fr; gap: .15rem .9rem; margin: .6rem 0; color: var(--soft);
  font-size: 14px;
}
dt { color: var(--ink); font: 1.05rem/1.4 var(--math) }
dd { margin: 0 }
details { margin: .6rem 0; color: var(--soft); font-size: 14px }
summary { cursor: pointer; color: var(--ink) }
ul.key { display: flex; flex-wrap: wrap; gap: .6rem; list-style: none; padding: 0; margin: 1.1rem 0 }
ul.key li {
  flex: 1 1 8.2rem; background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: .55rem .8rem;
  display: flex; flex-direction: column;
}
ul.key b { font-size: 1.2rem; line-height: 1.4 }

/* pictures */
.control { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem 1rem; margin: .7rem 0 }
.control label { font-weight: 600 }
.control input { flex: 0 1 22rem; min-width: 12rem; accent-color: var(--accent) }
.control output { flex: 1 1 18rem; min-height: 1.55em }
.control output, .bar { color: var(--soft); font-size: 13px; font-variant-numeric: tabular-nums }
.tiles, .panels { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15.5rem), 1fr)) }
.tiles { grid-template-columns: repeat(auto-fit, minmax(min(46%, 15.5rem), 1fr)) }
.of1 { max-width: 25rem }
.of2 { max-width: 51rem }
.of3 { max-width: 77rem }
.tiles > *, .panels > * { min-width: 0 }
.tiles.many { grid-template-columns: repeat(auto-fill, minmax(min(46%, 8.8rem), 1fr)) }
figure { margin: 0 }
figcaption { font-size: 14px; margin-bottom: .3rem; overflow: hidden; text-overflow: ellipsis }
figcaption small { display: block; min-height: 1.6em; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.tile { width: 100%; height: auto; image-rendering: pixelated; border-radius: 6px; border: 1px solid var(--line) }
.bar { display: grid; grid-template-columns: auto 1fr auto; gap: .45rem; align-items: center; margin-top: .35rem }
.bar img { width: 100%; height: 9px; border-radius: 3px }

@media (max-width: 640px) {
  body { padding: 1rem .8rem 2rem }
  h1 { font-size: 1.35rem }
  .formula { font-size: 1.08rem }
  .formula small { display: block; margin-left: 0 }
  ul.key li { flex-basis: 40% }
  td { max-width: 19rem }
  pre { padding: 2.7rem .9rem .7rem }
}
"""
SCRIPT = """
const valueOf = cell => cell.dataset.value ?? cell.textContent;

function order(x, y) {
  const known = Number(x === "") - Number(y === "");
  if (known || x === "") return {known, by: 0};
  const text = Number(isNaN(x)) - Number(isNaN(y));
  return {known: 0, by: text || (isNaN(x) ? x.localeCompare(y) : x - y)};
}

function sortBy(head) {
  const table = head.closest("table"), at = head.cellIndex, up = head.ariaSort !== "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.ariaSort = up ? "ascending" : "descending";
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const {known, by} = order(valueOf(a.cells[at]), valueOf(b.cells[at]));
    return known || (up ? by : -by);
  });
  table.tBodies[0].append(...rows);
}

const tabbed = table => [...table.rows]
  .map(row => [...row.cells].map(cell => valueOf(cell).replace(/\\s+/g, " ").trim()).join("\\t")).join("\\n");

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

for (const box of document.querySelectorAll(".copied")) {
  const table = box.querySelector("table"), button = document.createElement("button");
  button.textContent = "Copy";
  button.ariaLabel = table ? "Copy the table, with tabs between its cells" : "Copy these lines";
  button.addEventListener("click", () => copy(table ? tabbed(table) : box.querySelector("pre").textContent, button));
  box.prepend(button);
}

for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.addEventListener("click", () => sortBy(head));
}

for (const box of document.querySelectorAll(".gallery")) {
  const frames = JSON.parse(box.querySelector("script").textContent);
  const slider = box.querySelector("input"), caption = box.querySelector("output"), tiles = box.querySelectorAll("img.tile");
  const show = () => {
    const frame = frames[slider.value];
    tiles.forEach((tile, number) => { [tile.src, tile.alt] = frame.pictures[number]; });
    caption.textContent = slider.ariaValueText = frame.caption;
  };
  slider.addEventListener("input", show);
  show();
}
"""
