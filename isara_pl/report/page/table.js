// The table of all samples: filtered, sorted, 50 at a time.

const PAGE = 50;
const MOST_CHOICES = 30; // more distinct reasons of a filter, or flags, are no list to choose from
const wanted = { shown: [], page: 0, column: null, descending: false };
let lowered = null; // texts in lower case, made when they are first searched

function searched() {
  const lower = (field) => samples[field].map((content) => content.toLowerCase());
  lowered ??= { id: lower("id"), question: lower("question"), answer: lower("answer") };
  return lowered;
}

// Options of a coded field, those that occur: how often stands behind each.
function countedOptions(codes, names, prefix = "") {
  const counts = new Map();
  for (const code of codes) if (code >= 0) counts.set(code, (counts.get(code) ?? 0) + 1);
  const label = (code) => `${names[code].slice(0, 80)} (${grouped.format(counts.get(code))})`;
  return [...counts.keys()].sort((one, other) => one - other).map((code) => option(`${prefix}${code}`, label(code)));
}

function fillChoices() {
  byId("of-status").append(...countedOptions(samples.status, STATUSES));
  const outerEpochs = [...new Set(samples.outer_epoch)].filter((n) => n > 0).sort((a, b) => a - b);
  byId("of-outer-epoch").append(...outerEpochs.map((n) => option(n, String(n))));
  byId("of-category").append(...countedOptions(samples.category.codes, samples.category.names));
  byId("of-reason").append(...reasonOptions());
  const flags = samples.flags.names;
  byId("of-flag").append(option("any", "any flag"));
  if (flags.length <= MOST_CHOICES) byId("of-flag").append(...countedOptions(samples.flags.codes.flat(), flags));
  for (const [id, names] of [
    ["of-category", samples.category.names],
    ["of-reason", samples.filter.names],
    ["of-flag", flags],
  ]) {
    byId(id).parentElement.hidden = names.length === 0;
  }
}

// Each filter, and below it its reasons where they are few and more than one.
function reasonOptions() {
  return countedOptions(samples.filter.codes, samples.filter.names).flatMap((ofFilter) => {
    const codes = samples.reason.codes.filter((_, place) => samples.filter.codes[place] === Number(ofFilter.value));
    const distinct = new Set(codes).size;
    if (distinct < 2 || distinct > MOST_CHOICES) return [ofFilter];
    const reasons = countedOptions(codes, samples.reason.names, `${ofFilter.value}/`);
    for (const reason of reasons) reason.prepend("\u2003");
    return [ofFilter, ...reasons];
  });
}

function findSamples() {
  const sought = byId("words-sought").value.trim().toLowerCase();
  const number = (id) => (byId(id).value === "" ? null : Number(byId(id).value));
  const [status, outerEpoch, category] = [number("of-status"), number("of-outer-epoch"), number("of-category")];
  const [filter, reason] = byId("of-reason").value === "" ? [null] : byId("of-reason").value.split("/").map(Number);
  const flag = byId("of-flag").value;
  const found = [];
  for (let place = 0; place < SAMPLES; place += 1) {
    if (status !== null && samples.status[place] !== status) continue;
    if (outerEpoch !== null && samples.outer_epoch[place] !== outerEpoch) continue;
    if (category !== null && samples.category.codes[place] !== category) continue;
    if (filter !== null && samples.filter.codes[place] !== filter) continue;
    if (reason !== undefined && samples.reason.codes[place] !== reason) continue;
    if (flag === "any" && samples.flags.codes[place].length === 0) continue;
    if (flag !== "" && flag !== "any" && !samples.flags.codes[place].includes(Number(flag))) continue;
    if (sought !== "") {
      const { id, question, answer } = searched();
      if (!question[place].includes(sought) && !answer[place].includes(sought) && !id[place].includes(sought)) continue;
    }
    found.push(place);
  }
  return found;
}

function remarkOf(place) {
  return samples.status[place] === 2 ? verdictText(place) : flagsOf(place).join("; ");
}

// What a column is sorted by; null stands last in both directions.
function sortKey(column) {
  if (column === "status" || column === "outer_epoch") return (place) => samples[column][place];
  if (column === "category") return (place) => named("category", place);
  if (column === "remark") return (place) => remarkOf(place) || null;
  return (place) => searched()[column][place];
}

// What the model wrote before what it was given; what was rejected last.
const ORDER = [1, 0, 2];

function sorted(found) {
  if (wanted.column === null)
    return found.sort((a, b) => ORDER[samples.status[a]] - ORDER[samples.status[b]] || a - b);
  const key = sortKey(wanted.column);
  const keys = new Map(found.map((place) => [place, key(place)]));
  const direction = wanted.descending ? -1 : 1;
  return found.sort((a, b) => {
    const [left, right] = [keys.get(a), keys.get(b)];
    if (left === right) return a - b;
    if (left === null || right === null) return left === null ? 1 : -1;
    return left < right ? -direction : direction;
  });
}

function rowOf(place) {
  const [seed, category] = [samples.status[place] === 0, named("category", place)];
  const flags = flagsOf(place).map((flag) => element("span", { class: "flag cut", dir: "auto" }, flag));
  const remark = samples.status[place] === 2 ? [text(verdictText(place), "cut")] : flags;
  return element(
    "tr",
    { "data-place": place },
    element("th", { scope: "row" }, link(place, samples.id[place])),
    element("td", { class: "epoch" }, seed ? null : String(samples.outer_epoch[place])),
    element("td", {}, badge(place)),
    element("td", { class: "block" }, text(samples.question[place].slice(0, 1000), "cut")),
    element("td", { class: "block" }, text(samples.answer[place].slice(0, 1000), "cut")),
    element("td", { class: "category" }, category === null ? null : text(category, "cut")),
    element("td", { class: "block remark" }, ...remark),
  );
}

function showPage(page) {
  const pages = Math.max(Math.ceil(wanted.shown.length / PAGE), 1);
  wanted.page = Math.min(Math.max(page, 0), pages - 1);
  const from = wanted.page * PAGE;
  byId("rows").replaceChildren(...wanted.shown.slice(from, from + PAGE).map(rowOf));
  byId("page").textContent = `page ${grouped.format(wanted.page + 1)} of ${grouped.format(pages)}`;
  byId("first").disabled = byId("previous").disabled = wanted.page === 0;
  byId("last").disabled = byId("next").disabled = wanted.page === pages - 1;
}

function findAgain() {
  wanted.shown = sorted(findSamples());
  byId("found").textContent = `${grouped.format(wanted.shown.length)} of ${grouped.format(SAMPLES)}`;
  byId("nothing").hidden = wanted.shown.length > 0;
  showPage(0);
}

function sortBy(button) {
  const column = button.dataset.column;
  wanted.descending = wanted.column === column && !wanted.descending;
  wanted.column = column;
  for (const head of button.closest("tr").children) head.removeAttribute("aria-sort");
  button.parentElement.setAttribute("aria-sort", wanted.descending ? "descending" : "ascending");
  findAgain();
}

// A button for each status, with its number of samples.
function fillQuick() {
  const names = ["given (seeds)", "written and kept", "written and rejected"];
  for (const status of [1, 2, 0]) {
    const number = samples.status.filter((one) => one === status).length;
    if (number === 0) continue;
    const button = element("button", { type: "button" }, `${grouped.format(number)} ${names[status]}`);
    button.addEventListener("click", () => {
      byId("search").reset();
      byId("of-status").value = String(status);
    });
    byId("quick").append(button);
  }
}

function startTable() {
  if (!byId("search")) return;
  fillChoices();
  fillQuick();
  document.querySelector(".all").classList.toggle("without-category", samples.category.names.length === 0);
  let waiting = null;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(findAgain, 150);
  };
  byId("words-sought").addEventListener("input", soon);
  byId("search").addEventListener("change", (event) => {
    if (event.target.tagName === "SELECT") findAgain();
  });
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    findAgain();
  });
  byId("search").addEventListener("reset", () => setTimeout(findAgain)); // the fields are empty after the event
  byId("first").addEventListener("click", () => showPage(0));
  byId("previous").addEventListener("click", () => showPage(wanted.page - 1));
  byId("next").addEventListener("click", () => showPage(wanted.page + 1));
  byId("last").addEventListener("click", () => showPage(Infinity));
  for (const button of document.querySelectorAll(".all thead button"))
    button.addEventListener("click", () => sortBy(button));
  byId("rows").addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    // a click that ends the marking of text opens nothing
    if (!event.target.closest("a") && getSelection().isCollapsed) location.hash = hashOf(row.dataset.place);
  });
  findAgain();
}
