// One heatmap in large, with all that is known of it.

const detail = byId("detail"), stage = byId("stage"), big = makeLayers(1024), cell = element("span", "cell");
const shownDetail = { row: -1, list: [], at: 0, cursor: null };
stage.append(big.frame);
cell.hidden = true;
big.view.append(cell);

function openDetail(place) { showDetail(gallery.shown, place); }

// Shows the heatmap at a place of a list, in which arrow keys go on.
function showDetail(list, at) {
  if (at < 0 || at >= list.length) return;
  Object.assign(shownDetail, { list, at, row: list[at], cursor: null });
  hideReadout();
  if (!detail.open) detail.showModal();
  fillDetail();
}

function fillDetail() {
  const i = shownDetail.row, picture = pictureOf(i);
  byId("detail-title").textContent = titleOf(i);
  byId("detail-place").textContent = `${shownDetail.at + 1} of ${shownDetail.list.length}`;
  cell.hidden = true;
  byId("detail-value").textContent = rows.map[i] ? "Point at the map to read its values." : "There is no map to read.";
  const share = (value) => (value === null ? "" : percent(value));
  const verdict = { true: "right", false: "wrong" }[rows.verdict[i]] || "";
  const [w, h] = picture.size, map = mapOf(i)?.map;
  const facts = {
    Class: className(i), Probability: rows.probability[i] === null ? "" : `${percent(rows.probability[i])}${rows.rank[i] ? `, rank ${rows.rank[i]}` : ""}`,
    Value: rows.value[i] === null ? "" : rows.value[i].toPrecision(5), Known: picture.known.join(", "), Prediction: verdict,
    Method: methodName(i), Layer: data.names.layer[rows.layer[i]], Target: data.names.target[rows.target[i]], Model: data.names.model[rows.model[i]],
    "Raw values": map ? `${Number(Math.min(...map.values).toPrecision(4))} to ${Number(Math.max(...map.values).toPrecision(4))}, ${map.height} × ${map.width}` : "",
    "On the border": share(rows.border[i]), "In the centre": share(rows.centre[i]), Spread: rows.spread[i] === null ? "" : rows.spread[i].toFixed(2),
    "Above half": share(rows.above_half[i]), "Unlike its class": share(rows.difference[i]),
    Agreement: rows.agreement[i] === null ? "" : rows.agreement[i].toFixed(2), Picture: `${w} × ${h}`, Source: picture.source, Overlay: rows.file[i],
  };
  byId("detail-facts").replaceChildren(...Object.entries(facts).filter(([, text]) => text).flatMap(([name, text]) => [element("dt", "", name), element("dd", "", text)]));
  const failures = rows.error[i] ? [rows.error[i]] : [];
  byId("detail-warnings").replaceChildren(...[...failures, ...rows.warnings[i]].map((text) => element("li", "", text)));
  const others = siblings(i);
  byId("detail-others-field").hidden = others.length < 2;
  byId("detail-others").replaceChildren(...others.map((other) => {
    const button = element("button", "", `${describeMade(other)}: ${className(other)} ${describeScore(other)}`);
    button.type = "button";
    button.setAttribute("aria-pressed", other === i);
    button.addEventListener("click", () => { shownDetail.row = other; fillDetail(); byId("detail-others").querySelector("[aria-pressed=true]")?.focus(); });
    return button;
  }));
  byId("detail-back").disabled = shownDetail.at === 0;
  byId("detail-next").disabled = shownDetail.at === shownDetail.list.length - 1;
  sizeDetail();
}

let byPicture = null;
function siblings(i) {
  if (!byPicture) {
    byPicture = new Map();
    for (let n = 0; n < total; n++) {
      if (!byPicture.has(rows.picture[n])) byPicture.set(rows.picture[n], []);
      byPicture.get(rows.picture[n]).push(n);
    }
  }
  return byPicture.get(rows.picture[i]);
}

function sizeDetail() {
  if (!detail.open) return;
  big.frame.hidden = Boolean(rows.error[shownDetail.row]) && !rows.map[shownDetail.row];
  if (!big.frame.hidden) big.show(shownDetail.row, stage.clientWidth, stage.clientHeight);
}
function repaintDetail() { if (detail.open && !big.frame.hidden) big.paint(); }
new ResizeObserver(sizeDetail).observe(stage);

const step = (by) => showDetail(shownDetail.list, shownDetail.at + by);
byId("detail-back").addEventListener("click", () => step(-1));
byId("detail-next").addEventListener("click", () => step(1));
byId("detail-close").addEventListener("click", () => detail.close());
detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
detail.addEventListener("close", () => {
  if (shownDetail.list === gallery.shown && !byId("gallery-panel").hidden) moveFocus(shownDetail.at);
});

stage.addEventListener("pointermove", (event) => {
  const read = big.read(event.clientX, event.clientY);
  markCell(read);
});
stage.addEventListener("pointerleave", () => { cell.hidden = true; });

function markCell(read) {
  cell.hidden = !read;
  if (!read) return;
  const { map, row, column } = read;
  Object.assign(cell.style, { left: `${100 * column / map.width}%`, top: `${100 * row / map.height}%`, width: `${100 / map.width}%`, height: `${100 / map.height}%` });
  byId("detail-value").textContent = describeCell(read);
  shownDetail.cursor = { row, column };
}

// Shift and arrows read cell by cell, arrows alone go from heatmap to heatmap.
detail.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!moves) return;
  event.preventDefault();
  if (!event.shiftKey) {
    step(moves[0] + moves[1]);
    return;
  }
  const map = mapOf(shownDetail.row)?.map;
  if (!map) return;
  const from = shownDetail.cursor || { row: Math.floor(map.height / 2) - moves[0], column: Math.floor(map.width / 2) - moves[1] };
  const row = Math.min(Math.max(from.row + moves[0], 0), map.height - 1), column = Math.min(Math.max(from.column + moves[1], 0), map.width - 1);
  markCell({ map, row, column, value: map.values[row * map.width + column] });
});
