// One sample in full, and where it came from. The address after # says which: links, back and forward just work.

const KINDS = [
  ["question_demonstrations", "question"],
  ["answer_demonstrations", "answer"],
];
const placeById = new Map(samples.id.map((id, place) => [id, place]).reverse()); // of equal ids the first

function isKnown(place) {
  return Number.isInteger(place) && place >= 0 && place < SAMPLES;
}

// All that a sample goes back to, itself left out; each once, so a circle ends.
function ancestors(place) {
  const found = new Set([place]);
  for (const current of found) {
    for (const [field] of KINDS)
      for (const demonstration of samples[field][current]) if (isKnown(demonstration)) found.add(demonstration);
  }
  found.delete(place);
  return [...found];
}

function ancestryText(place) {
  const all = ancestors(place);
  const seeds = all.filter((one) => samples.status[one] === 0).length;
  const counted = (number, one, many) => `${grouped.format(number)} ${number === 1 ? one : many}`;
  const between = all.length - seeds;
  const way = between ? `, over ${counted(between, "other sample", "other samples")}` : ", directly";
  return `It goes back to ${counted(seeds, "seed", "seeds")}${way}.`;
}

// The demonstrations of a sample's question and of its answer, as lists that open one level at a time.
function lineage(place, above) {
  const lists = KINDS.filter(([field]) => samples[field][place].length).map(([field, kind]) => {
    const demonstrations = samples[field][place];
    const these = demonstrations.length === 1 ? "this demonstration" : `these ${demonstrations.length} demonstrations`;
    const head = `Its ${kind} was written from ${these}:`;
    const items = demonstrations.map((one) => lineageItem(one, above));
    return [element("p", { class: "written" }, head), element("ul", { class: "lineage" }, ...items)];
  });
  return lists.flat();
}

function lineageItem(place, above) {
  if (!isKnown(place)) return element("li", {}, "A demonstration that is not in the files of this run.");
  const name = [badge(place), " ", link(place, samples.id[place]), " "];
  if (above.has(place))
    return element("li", {}, ...name, "(stands above already: these samples refer to each other in a circle)");
  const item = element("details", {}, element("summary", {}, ...name, text(samples.question[place])));
  const fill = () =>
    item.append(
      element("p", { class: "answer" }, text(samples.answer[place])),
      ...lineage(place, new Set([...above, place])),
    );
  item.addEventListener("toggle", fill, { once: true });
  return element("li", {}, item);
}

function verdictText(place) {
  const [filter, reason] = [named("filter", place), named("reason", place)];
  const figure = samples.figure[place] === null ? "" : ` (${figureText(samples.figure[place])})`;
  return `${[filter, reason].filter((part) => part !== null).join(": ")}${figure}`;
}

function scoresTable(place) {
  const rows = samples.scores.names
    .map((name, number) => [name, samples.scores.rows[place][number] ?? null])
    .filter(([, value]) => value !== null)
    .map(([name, value]) =>
      element("tr", {}, element("th", { scope: "row" }, text(name)), element("td", {}, figureText(value))),
    );
  return rows.length ? element("table", {}, element("tbody", {}, ...rows)) : null;
}

function originOf(place) {
  if (samples.status[place] === 0) return [element("p", {}, "A person gave it: it is a seed.")];
  const lists = lineage(place, new Set([place]));
  if (!lists.length) return [element("p", {}, "No demonstrations are recorded for it.")];
  return [element("p", {}, ancestryText(place)), ...lists];
}

function detailOf(place) {
  const [category, status] = [named("category", place), samples.status[place]];
  const heading = (words) => element("h3", {}, words);
  const scores = scoresTable(place);
  return [
    element(
      "p",
      { class: "marks" },
      badge(place),
      status === 0 ? null : nameOf(samples.outer_epoch[place]),
      category === null ? null : text(`category: ${category}`),
    ),
    ...flagsOf(place).map((flag) => element("p", { class: "flag", dir: "auto" }, flag)),
    status === 2 ? element("p", {}, "Rejected by ", text(verdictText(place))) : null,
    heading("Question"),
    element("p", { id: "full-question" }, text(samples.question[place])),
    heading("Answer"),
    element("p", { id: "full-answer" }, text(samples.answer[place])),
    heading("Where it came from"),
    element("div", { id: "lineage" }, ...originOf(place)),
    scores === null ? null : heading("Figures of the filters"),
    scores,
  ].filter((part) => part !== null);
}

// The id after #sample=, or null.
function idInAddress() {
  if (!location.hash.startsWith("#sample=")) return null;
  try {
    return decodeURIComponent(location.hash.slice("#sample=".length));
  } catch {
    return null; // typed by hand: a % that begins no character
  }
}

function showAddressed() {
  const [dialog, id] = [byId("detail"), idInAddress()];
  if (id === null) return dialog.close();
  const place = placeById.get(id);
  byId("detail-title").replaceChildren(text(id, "id"));
  byId("detail-body").replaceChildren(
    ...(place === undefined ? [element("p", {}, "This report has no sample of this id.")] : detailOf(place)),
  );
  byId("hover").hidden = true;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  return byId("detail-title").focus();
}

function startDetail() {
  const dialog = byId("detail");
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && event.offsetX < 0) dialog.close();
  });
  // closed by hand: the address forgets the sample, and back finds it again
  dialog.addEventListener("close", () => {
    if (idInAddress() !== null) history.pushState(null, "", "#");
  });
  addEventListener("hashchange", showAddressed);
  showAddressed();
}
