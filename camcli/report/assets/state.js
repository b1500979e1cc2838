// The page's data, what is chosen, and which heatmaps that leaves in which order.

const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.heatmaps, total = rows.picture ? rows.picture.length : 0;
const tables = new Map(Object.entries(data.colormaps).map(([name, text]) => [name, bytesOf(text)]));
const byId = (id) => document.getElementById(id);

const ORDERS = [
  ["run", "as in the run", (i) => i],
  ["class", "class", (i) => className(i).toLowerCase()],
  ["file", "file", (i) => pictureOf(i).name.toLowerCase()],
  ["probability", "probability", (i) => negated(rows.probability[i])],
  ["border", "heat on the border", (i) => negated(rows.border[i])],
  ["centre", "heat in the centre", (i) => negated(rows.centre[i])],
  ["spread", "spread of the heat", (i) => negated(rows.spread[i])],
  ["above_half", "share above half", (i) => negated(rows.above_half[i])],
  ["difference", "difference from its class", (i) => negated(rows.difference[i])],
  ["agreement", "disagreement of methods", (i) => rows.agreement[i]],
];

const defaults = () => ({
  alpha: data.alpha, follows: data.follows_heat, colormap: data.colormap, contour: false, boxes: "", threshold: data.threshold,
  method: "", layer: "", model: "", rank: "", search: "", label: "", least: "", most: "",
  verdict: "", agreement: 1, state: "", sort: "run", reverse: false, size: 220,
});
const chosen = defaults();

const negated = (value) => (value === null ? null : -value);
const pictureOf = (i) => data.pictures[rows.picture[i]];
const className = (i) => data.names.label[rows.label[i]];
const methodName = (i) => data.names.method[rows.method[i]];
// whether the heatmaps are of several methods, layers, models, ...
const isSeveral = (name) => data.names[name].filter(Boolean).length > 1;
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;

function describeScore(i) {
  if (rows.value[i] !== null) return rows.value[i].toPrecision(4);
  return rows.probability[i] === null ? "" : percent(rows.probability[i]);
}

const searched = [];
function searchedText(i) {
  searched[i] ??= [pictureOf(i).source, className(i), methodName(i), ...pictureOf(i).known, rows.error[i], ...rows.warnings[i]]
    .join("\n").toLowerCase();
  return searched[i];
}

function isShown(i) {
  const failed = rows.error[i] !== "", warned = rows.warnings[i].length > 0;
  if (chosen.state === "failed" ? !failed : chosen.state === "warned" ? !warned || failed : chosen.state === "made" && failed) return false;
  // a failure is of no method, class or layer
  if (!failed || rows.map[i]) {
    for (const name of ["method", "layer", "model"]) {
      if (chosen[name] !== "" && rows[name][i] !== Number(chosen[name])) return false;
    }
    if (chosen.rank !== "" && rows.rank[i] !== null && (chosen.rank === "more" ? rows.rank[i] < 4 : rows.rank[i] !== Number(chosen.rank))) return false;
  }
  if (chosen.label !== "" && rows.label[i] !== Number(chosen.label)) return false;
  if (chosen.verdict !== "" && rows.verdict[i] !== (chosen.verdict === "right")) return false;
  const least = parseFloat(chosen.least), most = parseFloat(chosen.most), share = rows.probability[i];
  if (least > 0 && !(share !== null && 100 * share >= least)) return false;
  if (most < 100 && !(share !== null && 100 * share <= most)) return false;
  if (chosen.agreement < 1 && !(rows.agreement[i] !== null && rows.agreement[i] <= chosen.agreement)) return false;
  return chosen.search.toLowerCase().split(/\s+/).every((word) => searchedText(i).includes(word));
}

function chooseRows() {
  const shown = [];
  for (let i = 0; i < total; i++) if (isShown(i)) shown.push(i);
  const key = ORDERS.find(([name]) => name === chosen.sort)[2], keys = new Map(shown.map((i) => [i, key(i)]));
  const turn = chosen.reverse ? -1 : 1;
  return shown.sort((a, b) => {
    const one = keys.get(a), two = keys.get(b);
    // what has no number stands at the end, whichever way
    if (one === null || two === null) return (one === null) - (two === null) || a - b;
    return turn * (one < two ? -1 : one > two ? 1 : a - b);
  });
}

// Thumbnails: in the page, or in scripts beside it that are loaded when they are needed.
const pictureText = byId("thumbnails").textContent, starts = [0];
for (const length of data.thumbnails.lengths) starts.push(starts[starts.length - 1] + length);
const chunks = new Map(), nonce = document.currentScript.nonce;

function thumbnailUrl(number, ready) {
  if (number < 0) return;
  const type = "data:image/webp;base64,";
  if (!data.thumbnails.folder) {
    ready(type + pictureText.substring(starts[number], starts[number + 1]));
    return;
  }
  const size = data.thumbnails.per_file, chunk = Math.floor(number / size);
  if (!chunks.has(chunk)) {
    const script = document.createElement("script");
    let resolve;
    chunks.set(chunk, { arrived: new Promise((done) => { resolve = done; }), resolve });
    script.nonce = nonce;
    script.src = `${encodeURIComponent(data.thumbnails.folder)}/pictures-${chunk}.js`;
    document.head.append(script);
  }
  chunks.get(chunk).arrived.then((texts) => ready(type + texts[number % size]));
}
window.camvizPictures = (chunk, texts) => chunks.get(chunk)?.resolve(texts);
