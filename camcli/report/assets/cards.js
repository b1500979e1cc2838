// A heatmap as it is drawn: the picture, its heat above it, and what is said of it.

const maps = new Map(), MOST_MAPS = 2000;

function mapOf(i) {
  if (!rows.map[i]) return null;
  if (!maps.has(i)) {
    if (maps.size >= MOST_MAPS) maps.clear();
    const map = unpackMap(rows.map[i]);
    maps.set(i, { map, heat: heatOf(map, rows.scale[i], rows.signed[i]) });
  }
  return maps.get(i);
}

function element(tag, classes, text) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Where the picture lies in a box, and the network's view in the picture, in CSS pixels.
function placeView(i, width, height) {
  const [w, h] = pictureOf(i).size, scale = Math.min(width / w, height / h);
  const frame = { width: w * scale, height: h * scale };
  frame.left = (width - frame.width) / 2;
  frame.top = (height - frame.height) / 2;
  const [left, top, across, down] = rows.view[i] || [0, 0, 1, 1];
  const view = { left: left * frame.width, top: top * frame.height, width: across * frame.width, height: down * frame.height };
  return { frame, view, isPart: left > 0.002 || top > 0.002 || left + across < 0.998 || top + down < 0.998 };
}

function moveTo(node, box) {
  Object.assign(node.style, { left: `${box.left}px`, top: `${box.top}px`, width: `${box.width}px`, height: `${box.height}px` });
}

// Makes the layers of a picture once; `show` fills them for a heatmap and a size.
function makeLayers(finest) {
  const frame = element("span", "frame"), image = element("img"), view = element("span", "view");
  const heat = element("canvas", "heat"), lines = element("canvas", "lines");
  image.alt = "";
  image.decoding = "async";
  image.draggable = false;
  view.append(heat, lines);
  frame.append(image, view);
  const layers = { frame, view, heat, lines, row: -1, width: 0, height: 0, drawn: "" };
  layers.show = (i, width, height) => {
    const isNew = layers.row !== i, place = placeView(i, width, height);
    if (isNew || layers.width !== width || layers.height !== height) {
      Object.assign(layers, { row: i, width, height, place, drawn: "" });
      moveTo(frame, place.frame);
      moveTo(view, place.view);
    }
    if (isNew) {
      image.removeAttribute("src");
      const own = rows.overlay[i] >= 0 ? rows.overlay[i] : pictureOf(i).thumbnail;
      thumbnailUrl(own, (url) => { if (layers.row === i) image.src = url; });
    }
    layers.paint();
  };
  layers.paint = () => {
    const i = layers.row, known = mapOf(i), { place } = layers;
    // an overlay that stands in for its picture has its heat already
    const heatShown = known && rows.overlay[i] < 0 ? known.heat : null;
    const colours = `${chosen.colormap}${chosen.follows}`, marks = `${chosen.contour}${chosen.boxes}${chosen.threshold}`;
    const scale = Math.min(finest / Math.max(place.view.width, place.view.height), 1);
    const columns = Math.max(1, Math.round(place.view.width * scale)), down = Math.max(1, Math.round(place.view.height * scale));
    view.classList.toggle("part", data.dims_outside && place.isPart && Boolean(heatShown));
    if (layers.drawn !== colours) {
      if (heat.width !== columns || heat.height !== down) Object.assign(heat, { width: columns, height: down });
      paintHeat(heat, heatShown, tables.get(chosen.colormap), rows.signed[i], chosen.follows);
      layers.drawn = colours;
      layers.marks = "";
    }
    if (layers.marks !== marks) {
      const sharp = Math.min(window.devicePixelRatio || 1, 2);
      const isMarked = known && (chosen.contour || chosen.boxes);
      lines.hidden = !isMarked;
      if (isMarked) {
        Object.assign(lines, { width: Math.round(place.view.width * sharp), height: Math.round(place.view.height * sharp) });
        paintLines(lines, known.map, chosen);
      }
      layers.marks = marks;
    }
  };
  // the raw value at a point of the page, null outside the view
  layers.read = (x, y) => {
    const known = layers.row < 0 ? null : mapOf(layers.row), box = view.getBoundingClientRect();
    const across = (x - box.left) / box.width, down = (y - box.top) / box.height;
    if (!known || !(across >= 0 && across < 1 && down >= 0 && down < 1)) return null;
    const { map } = known, column = Math.floor(across * map.width), row = Math.floor(down * map.height);
    return { value: map.values[row * map.width + column], row, column, map };
  };
  return layers;
}

function describeCell(read) {
  const { map, row, column, value } = read;
  return `${Number(value.toPrecision(4))}  ·  row ${row + 1}, column ${column + 1} of ${map.height} × ${map.width}`;
}

function describeMade(i) {
  const layer = data.names.layer[rows.layer[i]], parts = [methodName(i)];
  if (isSeveral("layer")) parts.push(layer);
  if (isSeveral("model")) parts.push(data.names.model[rows.model[i]]);
  return parts.filter(Boolean).join(" · ");
}

function titleOf(i) {
  const picture = pictureOf(i);
  return picture.frame === null ? picture.name : `${picture.name}, frame ${picture.frame}`;
}

function makeCard() {
  const card = element("li", "card"), button = element("button", "picture"), layers = makeLayers(128);
  const why = element("span", "why"), caption = element("div", "caption"), label = element("span", "class");
  const score = element("span", "percent"), made = element("div", "made"), file = element("div", "file");
  button.type = "button";
  button.tabIndex = -1;
  button.append(layers.frame, why);
  caption.append(label, score);
  card.append(button, caption, made, file);
  card.setAttribute("role", "listitem");
  const one = { card, button, layers, place: -1 };
  one.show = (i, width, height) => {
    const failed = rows.error[i] !== "", verdict = rows.verdict[i];
    button.style.height = `${height}px`;
    layers.frame.hidden = failed && !rows.map[i];
    why.hidden = !layers.frame.hidden;
    if (layers.frame.hidden) {
      layers.row = -1;
      why.textContent = rows.error[i];
    } else {
      layers.show(i, width, height);
    }
    const name = failed && !className(i) ? "failed" : className(i);
    label.textContent = name;
    label.title = name;
    label.className = verdict === true ? "class right" : verdict === false ? "class wrong" : failed ? "class failed" : "class";
    score.textContent = describeScore(i);
    const mark = verdict === true ? " · right" : verdict === false ? " · wrong" : "";
    made.textContent = describeMade(i) + mark + (rows.warnings[i].length ? " · warning" : "");
    file.textContent = titleOf(i);
    file.title = pictureOf(i).source;
    const spoken = [titleOf(i), name, describeScore(i), describeMade(i) + mark, layers.frame.hidden ? rows.error[i] : ""];
    button.setAttribute("aria-label", spoken.filter(Boolean).join(", "));
  };
  return one;
}
