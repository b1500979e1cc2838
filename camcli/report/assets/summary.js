// What the set says: a class a row, the striking ones first.

const SUMMARY_ORDERS = [
  ["striking", "what strikes first", null],
  ["class", "class", (one) => one.class.toLowerCase()],
  ["pictures", "pictures", (one) => -one.pictures],
  ["probability", "probability", (one) => negated(one.probability) ?? 1],
  ["border", "heat on the border", (one) => -one.border],
  ["centre", "heat in the centre", (one) => -one.centre],
  ["spread", "spread", (one) => -one.spread],
  ["above_half", "share above half", (one) => -one.above_half],
  ["difference", "difference among its pictures", (one) => -one.difference],
];
let isSummaryMade = false;

function paintMean(canvas, grid) {
  const height = grid.length, width = grid[0].length, map = { height, width, values: Float32Array.from(grid.flat()) };
  Object.assign(canvas, { width: 96, height: 96 });
  paintHeat(canvas, heatOf(map, null, false), tables.get(chosen.colormap), false, false);
}

function makeBars(one) {
  const bars = element("div", "bars");
  const shares = [["probability", one.probability], ["border", one.border], ["centre", one.centre], ["above half", one.above_half], ["difference", one.difference]];
  for (const [name, value] of shares) {
    if (value === null) continue;
    const bar = element("span", "bar"), fill = element("i");
    fill.style.width = `${100 * Math.min(value, 1)}%`;
    bar.append(fill);
    bars.append(element("span", "name", name), bar, element("span", "number", percent(value)));
  }
  const spread = element("span", "bar"), fill = element("i");
  fill.style.width = `${100 * Math.min(one.spread / 0.5, 1)}%`;
  spread.append(fill);
  bars.append(element("span", "name", "spread"), spread, element("span", "number", one.spread.toFixed(2)));
  return bars;
}

function makeStrip(list, notes) {
  const strip = element("div", "strip");
  list.forEach((i, at) => {
    const button = element("button", "mini"), box = element("span", "picture"), layers = makeLayers(92);
    button.type = "button";
    button.setAttribute("aria-label", [titleOf(i), notes ? notes[at] : ""].filter(Boolean).join(", "));
    box.append(layers.frame);
    button.append(box);
    if (notes) button.append(element("span", "", notes[at]));
    button.addEventListener("click", () => showDetail(list, at));
    whenSeen(button, () => layers.show(i, 92, 69));
    strip.append(button);
  });
  return strip;
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    entry.target.onSeen();
  }
}, { root: byId("summary-panel"), rootMargin: "300px" });
function whenSeen(node, act) {
  node.onSeen = act;
  seen.observe(node);
}

function makeClass(one) {
  const row = element("article", "class-card"), mean = element("canvas", "mean"), words = element("div"), rest = element("div");
  mean.setAttribute("role", "img");
  mean.setAttribute("aria-label", `Mean map of ${one.class}`);
  whenSeen(mean, () => paintMean(mean, one.map));
  const made = [one.method, isSeveral("layer") ? one.layer : "", isSeveral("model") ? one.model : ""].filter(Boolean).join(" · ");
  words.append(element("h3", "", one.class), element("p", "soft", `${one.pictures} ${one.pictures === 1 ? "picture" : "pictures"}${one.empty ? `, ${one.empty} without heat` : ""} · ${made}`), makeBars(one));
  for (const found of one.hangs_on) rest.append(element("p", "found", `Hangs on the ${found.place}: ${percent(found.share)} of the heat.`));
  if (one.differing.length) {
    rest.append(element("h3", "", "Differ most from the mean"), makeStrip(one.differing, one.differences.map((value) => `${percent(value)} elsewhere`)));
  }
  for (const cluster of one.clusters) {
    const box = element("div", "cluster"), canvas = element("canvas", "mean"), beside = element("div");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Mean map of ${cluster.pictures} pictures that are alike`);
    whenSeen(canvas, () => paintMean(canvas, cluster.map));
    beside.append(element("p", "soft", `${cluster.pictures} alike: border ${percent(cluster.border)}, centre ${percent(cluster.centre)}`), makeStrip(cluster.examples));
    box.append(canvas, beside);
    rest.append(box);
  }
  row.append(mean, words, rest);
  return row;
}

function makeSummary() {
  const order = SUMMARY_ORDERS.find(([name]) => name === byId("summary-sort").value)[2];
  const list = [...data.summaries];
  if (order) list.sort((a, b) => (order(a) < order(b) ? -1 : order(a) > order(b) ? 1 : 0));
  byId("classes").replaceChildren(...list.map(makeClass));
  const striking = data.summaries.flatMap((one) => one.hangs_on.map((found) => [one, found]));
  const box = element("div", "hints");
  box.append(element("h2", "", striking.length ? "Heat that hangs on one place" : "No class's heat hangs on one corner, edge or the frame"));
  const items = element("ul");
  const told = new Map();
  for (const [one, found] of striking) {
    const key = `${one.class}\n${found.place}`;
    if (told.has(key)) told.get(key).methods.push(one.method);
    else told.set(key, { name: one.class, words: found.words, methods: [one.method] });
  }
  for (const { name, words, methods } of told.values()) {
    const item = element("li"), also = [...new Set(methods.slice(1))].filter((method) => method !== methods[0]);
    item.append(element("b", "", name), ` (${methods[0]}): ${words}.`);
    if (also.length) item.append(element("span", "soft", ` The same by ${also.join(", ")}.`));
    items.append(item);
  }
  box.append(striking.length ? items : element("p", "soft", "Only classes of at least five pictures are tested, against the other classes. The test does not find a mark that all classes share: the mean maps show it."));
  byId("hints").replaceChildren(box);
  isSummaryMade = true;
}
