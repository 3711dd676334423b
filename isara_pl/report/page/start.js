// The rest of the page: what is worth a look, the theme, and the start of all parts.

const FIRST_LOOKS = 12;
const PRINTED = 10; // samples on paper

function lookItem(place, number) {
  return element(
    "li",
    { class: number < PRINTED ? "" : "unprinted" },
    element("p", { class: "marks" }, badge(place), " ", link(place, samples.id[place])),
    ...flagsOf(place).map((flag) => element("p", { class: "flag", dir: "auto" }, flag)),
    samples.status[place] === 2 ? element("p", { class: "remark" }, text(verdictText(place), "cut")) : null,
    element("p", { class: "question" }, text(samples.question[place], "cut")),
    element("p", {}, text(samples.answer[place], "cut")),
    element("p", { class: "open" }, element("a", { href: hashOf(place) }, "Read it, and see where it came from")),
  );
}

// The headline names samples: their ids become links.
function linkIds() {
  for (const sentence of document.querySelectorAll(".finding .answer, .finding li")) {
    const parts = sentence.textContent.split(/(\w+-\d+)/); // every second one looks like an id
    sentence.replaceChildren(...parts.map((part) => (placeById.has(part) ? link(placeById.get(part), part) : part)));
  }
}

function startLooks() {
  const looks = report.worth_a_look.filter(isKnown);
  if (!byId("look-list")) return;
  byId("look-list").append(...looks.slice(0, FIRST_LOOKS).map(lookItem));
  const others = samples.id.map((_, place) => place).filter((one) => samples.status[one] === 1 && !looks.includes(one));
  for (const place of others.slice(0, Math.max(PRINTED - looks.length, 0))) {
    const item = lookItem(place, 0);
    item.className = "printed-only";
    byId("look-list").append(item);
  }
  if (looks.length <= FIRST_LOOKS) return;
  byId("look-all").textContent = `All ${grouped.format(looks.length)} of them in the table.`;
  byId("look-all").addEventListener("click", () => {
    byId("search").reset();
    byId("of-flag").value = "any";
    findAgain();
  });
}

function startTheme() {
  const [button, root, system] = [byId("theme"), document.documentElement, matchMedia("(prefers-color-scheme: dark)")];
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => {
    button.textContent = isDark() ? "Light" : "Dark";
  };
  const changed = () => {
    name();
    drawAll();
  };
  name();
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    changed();
  });
  system.addEventListener("change", changed);
  // paper is white and narrow, and nobody can open there what is closed
  let before;
  let opened = [];
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    root.classList.add("printing");
    opened = [...document.querySelectorAll("details.printed:not([open])")];
    for (const one of opened) one.open = true;
    fitAll();
  });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    root.classList.remove("printing");
    for (const one of opened) one.open = false;
    unfitAll();
  });
}

startTable();
linkIds();
startLooks();
startDetail();
startCharts();
startTheme();
drawInTurn();
