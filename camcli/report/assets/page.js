// Controls, keys, themes, printing: what ties the page together.

const SEGMENTS = {
  method: [["", "all"], ...data.names.method.map((name, n) => [String(n), name]).filter(([, name]) => name)],
  layer: [["", "all"], ...data.names.layer.map((name, n) => [String(n), name]).filter(([, name]) => name)],
  model: [["", "all"], ...data.names.model.map((name, n) => [String(n), name]).filter(([, name]) => name)],
  rank: [["", "all"], ["1", "predicted"], ["2", "2nd"], ["3", "3rd"], ["more", "further"]],
  verdict: [["", "all"], ["right", "right"], ["wrong", "wrong"]],
  state: [["", "all"], ["made", "made"], ["warned", "warned of"], ["failed", "failed"]],
};

function makeSegments(name) {
  byId(name).replaceChildren(...SEGMENTS[name].map(([value, text]) => {
    const label = element("label"), input = element("input");
    Object.assign(input, { type: "radio", name, value, checked: chosen[name] === value });
    input.addEventListener("change", () => { chosen[name] = value; refreshRows(); });
    label.append(input, text);
    return label;
  }));
}

function fillSelect(select, options) {
  select.replaceChildren(...options.map(([value, text]) => Object.assign(element("option", "", text), { value })));
}

function countLabels() {
  const counts = new Map();
  for (let i = 0; i < total; i++) counts.set(rows.label[i], (counts.get(rows.label[i]) || 0) + 1);
  const named = [...counts].filter(([n]) => data.names.label[n]).sort((a, b) => data.names.label[a[0]].localeCompare(data.names.label[b[0]]));
  return [["", "all"], ...named.map(([n, count]) => [String(n), `${data.names.label[n]} (${count})`])];
}

// Puts what is chosen into the controls.
function showChosen() {
  for (const name of ["alpha", "threshold", "agreement", "size", "search", "label", "least", "most", "sort", "colormap", "boxes"]) byId(name).value = chosen[name];
  byId("contour").checked = chosen.contour;
  byId("follows").checked = chosen.follows;
  byId("direction").setAttribute("aria-pressed", chosen.reverse);
  for (const name of Object.keys(SEGMENTS)) {
    for (const input of byId(name).querySelectorAll("input")) input.checked = input.value === chosen[name];
  }
  showNumbers();
  paintScale();
}

function showNumbers() {
  byId("alpha-value").textContent = percent(chosen.alpha).replace(/\.\d/, "");
  byId("threshold-value").textContent = `${Math.round(100 * chosen.threshold)}% of most`;
  byId("agreement-value").textContent = chosen.agreement >= 1 ? "any" : chosen.agreement.toFixed(2);
  document.documentElement.style.setProperty("--alpha", chosen.alpha);
}

function paintScale() {
  const canvas = byId("scale"), context = canvas.getContext("2d"), image = context.createImageData(256, 1);
  const table = tables.get(chosen.colormap);
  for (let i = 0; i < 256; i++) image.data.set([table[3 * i], table[3 * i + 1], table[3 * i + 2], 255], 4 * i);
  context.putImageData(image, 0, 0);
}

function setAlpha(value) {
  chosen.alpha = Math.min(Math.max(Math.round(100 * value) / 100, 0), 1);
  byId("alpha").value = chosen.alpha;
  showNumbers();
}

function repaintAll() {
  paintScale();
  for (const one of gallery.live.values()) one.layers.drawn = "";
  big.drawn = "";
  repaint();
  if (isSummaryMade) makeSummary();
}

function resetAll() {
  Object.assign(chosen, defaults());
  showChosen();
  refreshRows();
  repaintAll();
}

const waiting = {};
function later(name, act) {
  clearTimeout(waiting[name]);
  waiting[name] = setTimeout(act, 120);
}

byId("alpha").addEventListener("input", (event) => setAlpha(Number(event.target.value)));
byId("threshold").addEventListener("input", (event) => { chosen.threshold = Number(event.target.value); showNumbers(); repaint(); });
byId("contour").addEventListener("change", (event) => { chosen.contour = event.target.checked; repaint(); });
byId("follows").addEventListener("change", (event) => { chosen.follows = event.target.checked; repaint(); });
byId("boxes").addEventListener("change", (event) => { chosen.boxes = event.target.value; repaint(); });
byId("colormap").addEventListener("change", (event) => { chosen.colormap = event.target.value; repaintAll(); });
byId("agreement").addEventListener("input", (event) => { chosen.agreement = Number(event.target.value); showNumbers(); later("agreement", refreshRows); });
byId("size").addEventListener("input", (event) => { chosen.size = Number(event.target.value); later("size", layOut); });
for (const name of ["search", "least", "most"]) byId(name).addEventListener("input", (event) => { chosen[name] = event.target.value; later(name, refreshRows); });
for (const name of ["label", "sort"]) byId(name).addEventListener("change", (event) => { chosen[name] = event.target.value; refreshRows(); });
byId("direction").addEventListener("click", () => { chosen.reverse = !chosen.reverse; byId("direction").setAttribute("aria-pressed", chosen.reverse); refreshRows(); });
byId("controls").addEventListener("reset", (event) => { event.preventDefault(); resetAll(); });
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("reset-filters").addEventListener("click", resetAll);

function openTab(name) {
  document.body.dataset.tab = name;
  for (const tab of ["gallery", "summary"]) {
    byId(`tab-${tab}`).setAttribute("aria-selected", tab === name);
    byId(`tab-${tab}`).tabIndex = tab === name ? 0 : -1;
    byId(`${tab}-panel`).hidden = tab !== name;
  }
  if (name === "summary" && !isSummaryMade) makeSummary();
  if (name === "gallery") layOut();
}
for (const tab of ["gallery", "summary"]) {
  byId(`tab-${tab}`).addEventListener("click", () => openTab(tab));
  byId(`tab-${tab}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = tab === "gallery" ? "summary" : "gallery";
    openTab(other);
    byId(`tab-${other}`).focus();
  });
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme-button").textContent = theme === "dark" ? "Light" : "Dark";
}
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
let isThemeChosen = false;
setTheme(prefersDark.matches ? "dark" : "light");
prefersDark.addEventListener("change", () => { if (!isThemeChosen) setTheme(prefersDark.matches ? "dark" : "light"); });
byId("theme-button").addEventListener("click", () => {
  isThemeChosen = true;
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
});

byId("keys-button").addEventListener("click", () => byId("keys").showModal());
byId("keys-close").addEventListener("click", () => byId("keys").close());

// The chosen heatmaps stand in the flow of a printed page, up to a number.
const MOST_PRINTED = 400;
function preparePrint() {
  if (document.body.dataset.tab === "summary") {
    document.querySelectorAll("#summary-panel canvas, #summary-panel .mini").forEach((node) => {
      if (node.onSeen) { seen.unobserve(node); node.onSeen(); }
    });
    document.querySelectorAll("#summary-panel canvas").forEach(printCanvas);
    return;
  }
  byId("print").replaceChildren(...gallery.shown.slice(0, MOST_PRINTED).map((i) => {
    const one = makeCard();
    one.show(i, 168, 126);
    one.card.querySelectorAll("canvas").forEach(printCanvas);
    return one.card;
  }));
  if (gallery.shown.length > MOST_PRINTED) byId("print").append(element("p", "soft", `The first ${MOST_PRINTED} of ${gallery.shown.length} are printed: filter for others.`));
}
// What is see-through in a canvas is white in a PDF, but not in a picture.
function printCanvas(canvas) {
  if (canvas.hidden) return;
  const image = element("img", canvas.className);
  image.alt = "";
  image.src = canvas.toDataURL();
  canvas.replaceWith(image);
}
function endPrint() {
  byId("print").replaceChildren();
  if (document.body.dataset.tab === "summary") makeSummary();
}
window.addEventListener("beforeprint", preparePrint);
window.addEventListener("afterprint", endPrint);
window.matchMedia("print").addEventListener("change", (event) => { if (event.matches && !byId("print").childElementCount) preparePrint(); });
byId("print-button").addEventListener("click", () => window.print());

function cycle(name) {
  const field = byId(`${name}-field`), values = [...byId(name).querySelectorAll("input")].filter((input) => !input.parentElement.hidden).map((input) => input.value);
  if (field.hidden) return;
  chosen[name] = values[(values.indexOf(chosen[name]) + 1) % values.length];
  showChosen();
  refreshRows();
}

let lastAlpha = data.alpha || 0.5;
const KEYS = {
  "+": () => setAlpha(chosen.alpha + 0.1), "=": () => setAlpha(chosen.alpha + 0.1), "-": () => setAlpha(chosen.alpha - 0.1),
  "0": () => { if (chosen.alpha > 0) { lastAlpha = chosen.alpha; setAlpha(0); } else setAlpha(lastAlpha); },
  m: () => cycle("method"), l: () => cycle("layer"), c: () => cycle("rank"),
  o: () => { chosen.contour = !chosen.contour; showChosen(); repaint(); },
  b: () => { chosen.boxes = { "": "largest", largest: "all", all: "" }[chosen.boxes]; showChosen(); repaint(); },
  s: () => { if (!detail.open) openTab(document.body.dataset.tab === "summary" ? "gallery" : "summary"); },
  "/": () => { if (!detail.open) { openTab("gallery"); byId("search").focus(); } },
  "?": () => { if (!detail.open) byId("keys").showModal(); },
};
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches?.("input:not([type=range]):not([type=radio]):not([type=checkbox]), select");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (detail.open && "mlc".includes(event.key)) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

function begin() {
  const failed = rows.error ? rows.error.filter(Boolean).length : 0, models = data.names.model.filter(Boolean);
  const facts = [`${data.pictures.length.toLocaleString("en")} pictures`, `${(total - failed).toLocaleString("en")} heatmaps`, failed ? `${failed} failed` : "", models.join(", ")];
  byId("facts").textContent = facts.filter(Boolean).join(" · ");
  byId("notes").hidden = data.notes.length === 0;
  byId("notes").replaceChildren(...data.notes.map((note) => element("p", "", note)));
  Object.keys(SEGMENTS).forEach(makeSegments);
  const ranks = new Set(rows.rank.filter((rank) => rank !== null).map((rank) => (rank > 3 ? "more" : String(rank))));
  for (const input of byId("rank").querySelectorAll("input")) input.parentElement.hidden = input.value !== "" && !ranks.has(input.value);
  for (const name of ["method", "layer", "model"]) byId(`${name}-field`).hidden = SEGMENTS[name].length < 3;
  byId("rank-field").hidden = ranks.size < 2;
  byId("switches").hidden = !byId("switches").querySelector("fieldset:not([hidden])");
  byId("verdict-field").hidden = rows.verdict.every((verdict) => verdict === null);
  byId("agreement-field").hidden = rows.agreement.every((value) => value === null);
  byId("probability-field").hidden = rows.probability.every((value) => value === null);
  const hasWarned = rows.warnings.some((list) => list.length);
  byId("state-field").hidden = !failed && !hasWarned;
  fillSelect(byId("colormap"), Object.keys(data.colormaps).map((name) => [name, name]));
  fillSelect(byId("label"), countLabels());
  const has = (name) => !(name in rows) || rows[name].some((value) => value !== null);
  fillSelect(byId("sort"), ORDERS.filter(([name]) => has(name)).map(([name, text]) => [name, text]));
  fillSelect(byId("summary-sort"), SUMMARY_ORDERS.map(([name, text]) => [name, text]));
  byId("summary-sort").addEventListener("change", makeSummary);
  document.body.dataset.tab = "gallery";
  showChosen();
  refreshRows();
}
begin();
