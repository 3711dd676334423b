// The charts of figures.

const DASHES = ["dash", "dot", "dashdot", "longdash", "longdashdot"];

function drawCurve(theme) {
  const curve = report.curves[byId("curve-choice").value];
  const better = { true: "Higher is better.", false: "Lower is better.", null: "" }[curve.higher_is_better];
  byId("curve-direction").textContent = better;
  byId("curve").setAttribute("aria-label", `${curve.label} by outer epoch; the table below has the values`);
  const x = outerEpochAxis(theme, curve.outer_epochs);
  const lines = curve.baselines.map(([name, value], place) => ({
    type: "scatter",
    mode: "lines",
    x: x.range,
    y: [value, value],
    name: `${plain(name, 24)}: ${figureText(value)}`,
    line: { dash: DASHES[place % DASHES.length], width: 1.75, color: COLOURS[(place + 1) % COLOURS.length] },
    hoverinfo: "name",
    hoverlabel: { namelength: -1 },
  }));
  const own = {
    type: "scatter",
    mode: "lines+markers",
    x: curve.outer_epochs,
    y: curve.values,
    name: "this run",
    line: { color: theme.accent, width: 2.5 },
    marker: { size: 8 },
    hovertemplate: "%{y:.4g}<extra></extra>",
  };
  const y = axis(theme, plain(curve.label));
  draw("curve", [own, ...lines], { xaxis: x, yaxis: y, showlegend: lines.length > 0 }, theme);
}

function drawNovelty(theme) {
  const grown = report.grown;
  const x = outerEpochAxis(
    theme,
    grown.map((row) => row.outer_epoch),
  );
  const own = {
    type: "scatter",
    mode: "lines+markers",
    x: grown.map((row) => row.outer_epoch),
    y: grown.map((row) => row.novelty),
    name: "novelty",
    line: { color: theme.accent, width: 2.5 },
    marker: { size: 9, symbol: grown.map((row) => (row.trained ? "circle" : "circle-open")) },
    text: grown.map((row) => `${row.accepted} of ${row.candidates} accepted${row.trained ? "" : "; not trained on"}`),
    hovertemplate: "%{y:.3f}<br>%{text}<extra></extra>",
  };
  const alpha = {
    type: "scatter",
    mode: "lines",
    x: x.range,
    y: [report.alpha, report.alpha],
    name: `α = ${figureText(report.alpha)}: stops below`,
    line: { color: theme.bad, width: 1.75, dash: "dash" },
    hoverinfo: "name",
    hoverlabel: { namelength: -1 },
  };
  const traces = report.alpha === null ? [own] : [own, alpha];
  const y = axis(theme, "novelty", { range: [0, 1.05], tickformat: ".1f" });
  draw("novelty", traces, { xaxis: x, yaxis: y, showlegend: report.alpha !== null }, theme);
}

function drawWaterfall(theme) {
  const row = report.grown[byId("filters-choice").value];
  byId("filters-trained").textContent = row.trained ? "" : "was not trained on";
  const steps = [["candidates", row.candidates, "absolute"]];
  for (const [name, taken] of row.taken) steps.push([plain(name, 24), -taken, "relative"]);
  steps.push(["accepted", row.accepted, "absolute"]);
  const places = steps.map((_, place) => place); // numbers: names of filters may be alike
  const share = (size) => (row.candidates ? ` (${Math.round((100 * size) / row.candidates)} %)` : "");
  const labels = steps.map(
    ([name, size]) => `${name}<br>${size < 0 ? "−" : ""}${grouped.format(Math.abs(size))}${share(Math.abs(size))}`,
  );
  const trace = {
    type: "waterfall",
    orientation: "h",
    y: places,
    x: steps.map(([, size]) => size),
    measure: steps.map(([, , kind]) => kind),
    hoverinfo: "skip",
    connector: { line: { color: theme.line, width: 1 } },
    decreasing: { marker: { color: theme.bad } },
    increasing: { marker: { color: theme.accent } },
    totals: { marker: { color: theme.accent } },
  };
  const x = axis(theme, "", { range: [0, Math.max(row.candidates, 1)], nticks: 6 });
  const y = axis(theme, "", { tickvals: places, ticktext: labels, range: [steps.length - 0.4, -0.6], showgrid: false });
  y.tickfont = { color: theme.ink };
  byId("waterfall").style.height = `${50 + 44 * steps.length}px`;
  byId("waterfall").setAttribute(
    "aria-label",
    `Candidates of outer epoch ${row.outer_epoch}; the table below has the values`,
  );
  draw("waterfall", [trace], { xaxis: x, yaxis: y, margin: { l: 20, r: 24, t: 10, b: 20 } }, theme);
}

function drawDiversity(theme, place) {
  const { label, outer_epochs: outerEpochs, values } = report.diversity[place];
  const x = outerEpochAxis(theme, outerEpochs, "seeds");
  const own = {
    type: "scatter",
    mode: "lines+markers",
    x: outerEpochs,
    y: values,
    line: { color: theme.accent, width: 2 },
    marker: { size: 7, symbol: outerEpochs.map((n) => (n === 0 ? "diamond-open" : "circle")) },
    cliponaxis: false,
    hovertemplate: `${label}: %{y:.4g}<extra></extra>`,
  };
  const known = values.filter((value) => value !== null);
  const seeds = outerEpochs[0] === 0 ? values[0] : null;
  const line = {
    type: "scatter",
    mode: "lines",
    x: x.range,
    y: [seeds, seeds],
    line: { color: theme.muted, dash: "dot", width: 1.25 },
    hoverinfo: "skip",
  };
  // a figure that hardly changes shall not look as if it jumped
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const room = Math.max(0.2 * (high - low), 0.05 * Math.abs(high), 0.01);
  const y = axis(theme, "", { range: [low < 0 ? low - room : Math.max(low - room, 0), high + room], nticks: 5 });
  x.title = undefined;
  draw(
    `diversity-${place}`,
    seeds === null ? [own] : [line, own],
    { xaxis: x, yaxis: y, margin: { l: 36, r: 8, t: 8, b: 24 } },
    theme,
  );
}

const MEASURES = [
  ["wall_seconds", "Time"],
  ["generated_tokens", "Generated tokens"],
  ["prompt_tokens", "Prompt tokens"],
  ["cpu_seconds", "Processor time"],
  ["flops", "Computing operations (FLOP)"],
  ["cost", "Cost"],
].filter(([field]) => report.spent.some((row) => row[field]));

// Seconds in the unit that the largest of them asks for.
function scaleOf(field, most) {
  if (!field.endsWith("seconds")) return [1, ""];
  return most > 7200 ? [3600, "hours"] : most > 120 ? [60, "minutes"] : [1, "seconds"];
}

function drawSpent(theme) {
  const [field, label] = MEASURES[byId("spent-choice").value];
  const totals = new Map();
  for (const row of report.spent) totals.set(row.stage, (totals.get(row.stage) ?? 0) + (row[field] ?? 0));
  const stages = [...totals.keys()]
    .filter((stage) => totals.get(stage) > 0)
    .sort((a, b) => totals.get(a) - totals.get(b));
  const [scale, unit] = scaleOf(field, totals.get(stages[stages.length - 1]));
  const outerEpochs = [...new Set(report.spent.map((row) => row.outer_epoch))].sort((a, b) => a - b);
  const shapes = ["", "/", "\\", "x", "-", "|", "."];
  const traces = outerEpochs.map((outerEpoch) => {
    const rows = report.spent.filter((row) => row.outer_epoch === outerEpoch && row[field]);
    return {
      type: "bar",
      orientation: "h",
      name: nameOf(outerEpoch),
      x: rows.map((row) => row[field] / scale),
      y: rows.map((row) => stages.indexOf(row.stage)),
      hovertemplate: `%{x:.4~s} ${unit}`,
      marker: {
        color: colourOf(outerEpoch, theme),
        pattern: { shape: shapes[outerEpoch % shapes.length], fillmode: "overlay", solidity: 0.15 },
      },
    };
  });
  const x = axis(theme, unit);
  const y = axis(theme, "", {
    tickvals: stages.map((_, place) => place),
    ticktext: stages.map((stage) => plain(stage, 28)),
    showgrid: false,
  });
  y.tickfont = { color: theme.ink };
  byId("spent").style.height = `${130 + 30 * stages.length}px`;
  byId("spent").setAttribute("aria-label", `${label} by stage and outer epoch; the table below has the values`);
  const legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal" };
  draw(
    "spent",
    traces,
    { xaxis: x, yaxis: y, barmode: "stack", showlegend: true, legend, margin: { l: 20, r: 20, t: 30, b: 40 } },
    theme,
  );
}

function addCharts() {
  const chosen = (id, labels, chosenPlace, drawIt) => {
    if (!byId(id)) return;
    byId(id).append(...labels.map((label, place) => option(place, label)));
    byId(id).value = chosenPlace;
    byId(id).addEventListener("change", () => drawIt(readTheme()));
  };
  chosen(
    "curve-choice",
    report.curves.map((curve) => curve.label),
    0,
    drawCurve,
  );
  chosen(
    "filters-choice",
    report.grown.map((row) => String(row.outer_epoch)),
    report.grown.length - 1,
    drawWaterfall,
  );
  chosen(
    "spent-choice",
    MEASURES.map(([, label]) => label),
    0,
    drawSpent,
  );
  addChart("curve", drawCurve);
  addChart("novelty", drawNovelty);
  addChart("waterfall", drawWaterfall);
  report.diversity.forEach((_, place) => addChart(`diversity-${place}`, (theme) => drawDiversity(theme, place)));
  if (MEASURES.length) addChart("spent", drawSpent);
}
