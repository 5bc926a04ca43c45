"use strict";
// Sorting and filtering of tables, the scatter plot and its small multiples. No requests.

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#a6428f", "#8a6d00", "#3a9bd0", "#555555", "#7a1f1f"];
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "cross", "x", "star", "pentagon"];

// ---- tables ---------------------------------------------------------------------------------

function sortKey(cell) {
  const text = cell.dataset.key ?? cell.textContent.trim().replaceAll("−", "-").replaceAll(",", "");
  const number = parseFloat(text);
  return Number.isNaN(number) || !/^[-+]?[\d.]/.test(text) ? text.toLowerCase() : number;
}

function compareKeys(a, b) {
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;  // what has no value comes last
}

function makeSortable(table) {
  const headings = [...table.querySelectorAll("thead th")];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") !== "descending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [sortKey(row.cells[column]), row]);
      rows.sort((a, b) => {
        const order = compareKeys(a[0], b[0]);
        return typeof a[0] === typeof b[0] && descending ? -order : order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

function makeFilter(input) {
  const body = input.parentElement.querySelector("tbody");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of body.rows) {
      const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll("input.filter").forEach(makeFilter);

// ---- scatter --------------------------------------------------------------------------------

const data = JSON.parse(document.getElementById("data").textContent);
const control = (id) => document.getElementById(id);
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function ranked(values) {
  const order = values.map((v, i) => [v, i]).filter(([v]) => v !== null).sort((a, b) => a[0] - b[0]);
  const ranks = values.map(() => null);
  for (let start = 0; start < order.length;) {
    let end = start;
    while (end < order.length && order[end][0] === order[start][0]) end++;
    for (let k = start; k < end; k++) ranks[order[k][1]] = (start + end + 1) / 2;
    start = end;
  }
  return ranks;
}

// Measures over several orders of magnitude are unreadable on a linear axis.
function wantsLog(values) {
  const sorted = values.filter((v) => v !== null).sort((a, b) => a - b);
  return sorted.length > 0 && sorted[0] > 0 && sorted[sorted.length - 1] / sorted[0] > 100;
}

function groups(axis) {
  const levels = data.levels[axis];
  return levels.map((level, k) => ({
    level, colour: COLOURS[k % COLOURS.length], symbol: SYMBOLS[k % SYMBOLS.length],
    rows: data.axes[axis].flatMap((value, i) => (value === k && shown(i) ? [i] : [])),
  })).filter((group) => group.rows.length);
}

function shown(i) { return control("standard").checked || !data.standard[i]; }

function hover(i) {
  const settings = Object.keys(data.axes).map((axis) =>
    `${plain(axis)} = ${plain(data.levels[axis][data.axes[axis][i]])}`);
  return `<b>${plain(data.ids[i])}</b><br>${settings.join("<br>")}`;
}

function drawScatter() {
  const measure = control("measure").value, target = control("target").value;
  const ranks = control("scale").value === "rank";
  const x = ranks ? ranked(data.measures[measure]) : data.measures[measure];
  const y = ranks ? ranked(data.targets[target]) : data.targets[target];
  const traces = groups(control("colour").value).map((group) => ({
    type: "scatter", mode: "markers", name: plain(group.level),
    x: group.rows.map((i) => x[i]), y: group.rows.map((i) => y[i]),
    text: group.rows.map(hover), hovertemplate: "%{text}<br><br>%{xaxis.title.text}: %{x}<br>%{yaxis.title.text}: %{y}<extra></extra>",
    marker: { symbol: group.symbol, color: group.colour, size: data.ids.length > 400 ? 6 : 8.5, opacity: 0.75, line: { width: 0.6, color: "#fff" } },
  }));
  const axis = (title) => ({ title: { text: title, font: { size: 14 }, standoff: 12 }, automargin: true, gridcolor: "#eceff2", zerolinecolor: "#c9d0d8", linecolor: "#8b949e", ticks: "outside", tickcolor: "#8b949e" });
  const log = !ranks && wantsLog(data.measures[measure]);
  Plotly.react("plot", traces, {
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "#1b1f24" },
    margin: { l: 70, r: 20, t: 44, b: 58 }, hovermode: "closest", paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    xaxis: { ...axis(plain(measure) + (ranks ? " (rank)" : "")), type: log ? "log" : "linear", ...(log ? { dtick: "D2", exponentformat: "power" } : {}) },
    yaxis: axis(plain(target) + (ranks ? " (rank)" : "")),
    legend: { title: { text: plain(control("colour").value) + "  ", font: { size: 13 } }, orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, showlegend: true,
    hoverlabel: { align: "left", bgcolor: "#fff", bordercolor: "#8b949e", font: { size: 12.5, color: "#1b1f24" } },
  }, { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] });
}

// ---- small multiples: ranks, since that is what tau sees ------------------------------------

const PATHS = {
  "circle": (c, x, y, r) => c.arc(x, y, r, 0, 7), "square": (c, x, y, r) => c.rect(x - r, y - r, 2 * r, 2 * r),
  "triangle-up": (c, x, y, r) => polygon(c, [[x, y - r * 1.3], [x + r * 1.2, y + r], [x - r * 1.2, y + r]]),
  "diamond": (c, x, y, r) => polygon(c, [[x, y - r * 1.4], [x + r * 1.4, y], [x, y + r * 1.4], [x - r * 1.4, y]]),
};

function polygon(context, points) {
  points.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
}

function drawThumbnail(canvas, measure) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * scale; canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const x = ranked(data.measures[measure]), y = ranked(data.targets[control("target").value]), n = data.ids.length;
  const radius = n > 400 ? 1.3 : 2.2;
  for (const group of groups(control("colour").value)) {
    context.fillStyle = group.colour; context.globalAlpha = n > 400 ? 0.5 : 0.75;
    context.beginPath();
    for (const i of group.rows) {
      if (x[i] === null || y[i] === null) continue;
      const px = 4 + (x[i] / n) * (width - 8), py = height - 4 - (y[i] / n) * (height - 8);
      const draw = PATHS[group.symbol] ?? PATHS.circle;
      context.moveTo(px + radius, py);
      draw(context, px, py, radius);
    }
    context.fill();
  }
}

const gallery = document.getElementById("gallery");
const visible = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) { visible.delete(target); continue; }
    visible.add(target);
    drawThumbnail(target, target.dataset.measure);
  }
}, { rootMargin: "200px" });

for (const measure of Object.keys(data.measures)) {
  const button = document.createElement("button"), title = document.createElement("div");
  const name = document.createElement("span"), tau = document.createElement("span"), canvas = document.createElement("canvas");
  button.type = "button"; title.className = "title";
  name.textContent = measure; name.title = measure; tau.textContent = data.tau[measure];
  canvas.dataset.measure = measure;
  title.append(name, tau);
  button.append(title, canvas);
  button.addEventListener("click", () => { control("measure").value = measure; update(); });
  gallery.append(button);
  watcher.observe(canvas);
}

function update() {
  drawScatter();
  for (const button of gallery.children)
    button.setAttribute("aria-pressed", button.lastChild.dataset.measure === control("measure").value);
}

function updateAll() {
  update();
  for (const canvas of visible) drawThumbnail(canvas, canvas.dataset.measure);
}

for (const id of ["measure", "scale"]) control(id).addEventListener("change", update);
for (const id of ["colour", "target", "standard"]) control(id).addEventListener("change", updateAll);
update();
