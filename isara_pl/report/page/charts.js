// The charts. Their figures were made with the report; here they get the colours of the theme, and the map its clicks.

const MAP = "map-chart";
const MAP_BUTTONS = ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"];
const FINGER = matchMedia("(pointer: coarse)").matches;
const places = Object.keys(report.charts).filter((id) => report.charts[id].length && byId(id));

// A copy in which the colours named --… are those that style.css has now. A run has no say in the names of fields.
function themed(part, style, name = "") {
  if (Array.isArray(part)) return typeof part[0] === "object" ? part.map((one) => themed(one, style)) : part;
  if (part !== null && typeof part === "object")
    return Object.fromEntries(Object.entries(part).map(([field, value]) => [field, themed(value, style, field)]));
  return name.endsWith("color") && part.startsWith("--") ? style.getPropertyValue(part).trim() : part;
}

function draw(id) {
  const [place, style] = [byId(id), getComputedStyle(document.documentElement)];
  const chart = report.charts[id][byId(`${id}-choice`)?.value ?? 0];
  place.setAttribute("aria-label", chart.label);
  if (chart.height !== null) place.style.height = `${chart.height}px`;
  if (byId(`${id}-note`)) byId(`${id}-note`).textContent = chart.note;
  const buttons = id === MAP && !FINGER ? MAP_BUTTONS : [];
  const bar = { displaylogo: false, displayModeBar: buttons.length > 0, modeBarButtons: [buttons] };
  const layout = { ...themed(chart.layout, style), template: themed(report.template, style) };
  Plotly.react(id, themed(chart.data, style), layout, { responsive: true, ...bar });
}

function drawOne(id) {
  try {
    draw(id);
  } catch (error) {
    reportError(error); // Plotly gives up where there is next to no room; the other charts shall be drawn
  }
}

function drawAll() {
  places.forEach(drawOne);
}

// For paper, at once: Plotly's own way to fit waits until it is printed.
function fitAll() {
  drawAll();
  for (const place of places.map(byId))
    if (place.offsetWidth > 0) Plotly.relayout(place, { width: place.offsetWidth, height: place.offsetHeight });
}

// In the width of the window again.
function unfitAll() {
  for (const place of places.map(byId)) Plotly.relayout(place, { width: null, height: null, autosize: true });
  drawAll();
}

// At the start the page answers between two charts: together they take seconds for 100,000 samples.
function drawInTurn(number = 0) {
  if (number === places.length) return hearMap();
  return setTimeout(() => {
    drawOne(places[number]);
    drawInTurn(number + 1);
  });
}

function startCharts() {
  for (const id of places) byId(`${id}-choice`)?.addEventListener("change", () => draw(id));
  if (places.includes(MAP)) prepareMap(report.charts[MAP][0]);
}

function hasWebGL() {
  return document.createElement("canvas").getContext("webgl") !== null;
}

function prepareMap({ data, layout }) {
  // a finger scrolls the page, a mouse moves the map
  if (FINGER) Object.assign(layout, { dragmode: false, margin: { ...layout.margin, t: 12 } });
  if (data[0].type !== "scattergl" || hasWebGL()) return;
  const all = data.reduce((sum, trace) => sum + trace.x.length, 0);
  const step = Math.ceil(all / report.most_svg_points);
  for (const trace of data) {
    const kept = (_, number) => trace.customdata[number] % step === 0;
    const [x, y, customdata] = [trace.x, trace.y, trace.customdata].map((values) => values.filter(kept));
    Object.assign(trace, { type: "scatter", x, y, customdata });
  }
  byId("map-thinned").textContent =
    `This browser has no WebGL: every ${step}th of ${grouped.format(all)} samples is shown.`;
}

function hearMap() {
  if (!places.includes(MAP)) return;
  const map = byId(MAP);
  map.on("plotly_hover", (heard) => showHover(heard.points[0].customdata, heard.event));
  map.on("plotly_unhover", () => {
    byId("hover").hidden = true;
  });
  map.on("plotly_click", (heard) => {
    location.hash = hashOf(heard.points[0].customdata);
  });
}

function showHover(place, event) {
  const hover = byId("hover");
  hover.replaceChildren(text(`${samples.id[place]}: ${samples.question[place].slice(0, 300)}`));
  hover.hidden = false;
  const left = Math.min(event.clientX + 14, innerWidth - hover.offsetWidth - 8);
  hover.style.left = `${Math.max(left, 8)}px`;
  hover.style.top = `${Math.max(event.clientY - hover.offsetHeight - 10, 8)}px`;
}
