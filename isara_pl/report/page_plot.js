// What all charts share. Each is drawn anew when the theme changes; an outer epoch has its colour in all of them.

// Okabe and Ito's colours, which colour-blind people tell apart, without the ones that vanish on white or black
const COLOURS = ["#2f7fc1", "#e08e0b", "#0f9d75", "#c76a9f", "#d1552a", "#4fb0e0"];
const charts = [];

function colourOf(outerEpoch, theme) {
  return outerEpoch === 0 ? theme.muted : COLOURS[(outerEpoch - 1) % COLOURS.length];
}

// Plotly reads markup in its texts; what comes from a run gets there through here only.
function plain(content, most = 40) {
  const characters = [...content.replace(/\s+/g, " ")];
  const short = characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : characters.join("");
  return short.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: colour("ink"),
    muted: colour("muted"),
    line: colour("line"),
    surface: colour("surface"),
    accent: colour("accent"),
    bad: colour("bad"),
  };
}

function axis(theme, title, more = {}) {
  return {
    title: { text: title, standoff: 8, font: { color: theme.muted, size: 12.5 } },
    automargin: true,
    fixedrange: true,
    zeroline: false,
    gridcolor: theme.line,
    linecolor: theme.line,
    tickcolor: theme.line,
    tickfont: { color: theme.muted },
    ...more,
  };
}

function outerEpochAxis(theme, outerEpochs, zero = "pretrained") {
  const all = [...new Set(outerEpochs)].sort((a, b) => a - b);
  const step = Math.ceil(all.length / 12);
  const shown = all.filter((_, place) => place % step === 0);
  const more = { tickvals: shown, ticktext: shown.map((n) => (n === 0 ? zero : String(n))), showgrid: false };
  return axis(theme, "outer epoch", { ...more, range: [all[0] - 0.4, all[all.length - 1] + 0.4] });
}

function draw(id, traces, layout, theme, buttons = []) {
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 52, r: 14, t: 14, b: 40 },
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", size: 12.5, color: theme.ink },
    hoverlabel: { bgcolor: theme.ink, bordercolor: theme.ink, font: { color: theme.surface } },
    dragmode: false,
    showlegend: false,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: theme.muted, activecolor: theme.accent },
    legend: { orientation: "h", x: 0, y: -0.22, yanchor: "top", font: { color: theme.ink } },
  };
  const bar = { displaylogo: false, displayModeBar: buttons.length > 0, modeBarButtons: [buttons] };
  Plotly.react(id, traces, { ...base, ...layout }, { responsive: true, ...bar });
}

function addChart(id, drawIt) {
  if (byId(id)) charts.push(drawIt);
}

function drawOne(drawIt) {
  try {
    drawIt(readTheme());
  } catch (error) {
    reportError(error); // Plotly gives up where there is next to no room; the other charts shall be drawn
  }
}

function drawAll() {
  charts.forEach(drawOne);
}

// At the start the page answers between two charts: together they take seconds for 100,000 samples.
function drawInTurn(place = 0) {
  if (place === charts.length) return;
  setTimeout(() => {
    drawOne(charts[place]);
    drawInTurn(place + 1);
  });
}
