// The map of the pool. Its texts are shown by our own element: Plotly gets numbers only.

const SIGNS = ["circle", "square", "diamond", "triangle-up", "cross", "pentagon", "star"];
const onMap = samples.x
  .map((x, place) => place)
  .filter((place) => samples.x[place] !== null && samples.y[place] !== null);

function hasWebGL() {
  return document.createElement("canvas").getContext("webgl") !== null;
}

function addMap() {
  if (!byId("map-chart")) return;
  const many = onMap.length > report.most_svg_points;
  const webgl = many && hasWebGL();
  const step = many && !webgl ? Math.ceil(onMap.length / report.most_svg_points) : 1;
  const shown = step === 1 ? onMap : onMap.filter((_, place) => place % step === 0);
  if (step > 1)
    byId("map-thinned").textContent =
      `This browser has no WebGL: every ${step}th of ${grouped.format(onMap.length)} samples is shown.`;
  const groups = new Map();
  for (const place of shown) {
    const outerEpoch = samples.outer_epoch[place];
    if (!groups.has(outerEpoch)) groups.set(outerEpoch, []);
    groups.get(outerEpoch).push(place);
  }
  // seeds last: they lie on top
  const order = [...groups.keys()].sort((a, b) => (a === 0) - (b === 0) || a - b);
  charts.push((theme) => drawMap(theme, groups, order, webgl));
}

function drawMap(theme, groups, order, webgl) {
  const chart = byId("map-chart");
  const few = order.every((outerEpoch) => groups.get(outerEpoch).length < 1000);
  const traces = order.map((outerEpoch) => ({
    type: webgl ? "scattergl" : "scatter",
    mode: "markers",
    hoverinfo: "none",
    name: `${outerEpoch === 0 ? "seeds" : nameOf(outerEpoch)} (${grouped.format(groups.get(outerEpoch).length)})`,
    x: groups.get(outerEpoch).map((place) => samples.x[place]),
    y: groups.get(outerEpoch).map((place) => samples.y[place]),
    customdata: groups.get(outerEpoch),
    marker: {
      color: outerEpoch === 0 ? theme.ink : colourOf(outerEpoch, theme),
      size: few ? 8 : 5,
      opacity: few ? 0.8 : 0.55,
      symbol: outerEpoch === 0 ? "x" : SIGNS[(outerEpoch - 1) % SIGNS.length],
    },
  }));
  const finger = matchMedia("(pointer: coarse)").matches;
  const bare = { showticklabels: false, fixedrange: false, title: undefined };
  const layout = {
    xaxis: axis(theme, "", bare),
    yaxis: axis(theme, "", bare),
    margin: { l: 12, r: 12, t: finger ? 12 : 34, b: 12 },
    hovermode: "closest",
    showlegend: true,
    legend: { orientation: "h", x: 0, y: -0.02, yanchor: "top", itemsizing: "constant" },
    uirevision: "kept",
    // a finger scrolls the page, a mouse moves the map
    dragmode: finger ? false : "pan",
  };
  draw(
    "map-chart",
    traces,
    layout,
    theme,
    finger ? [] : ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"],
  );
  if (chart.dataset.heard) return;
  chart.dataset.heard = "yes";
  chart.on("plotly_hover", (heard) => showHover(heard.points[0].customdata, heard.event));
  chart.on("plotly_unhover", () => {
    byId("hover").hidden = true;
  });
  chart.on("plotly_click", (heard) => {
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
