// Maps as numbers, and in colour: the same steps as camviz's overlays.

const SMALLEST_CONTRAST = 1e-6;

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// [height, width, low, high, base64 of 16 bits a cell] -> the raw values
function unpackMap(packed) {
  const [height, width, low, high, levels] = packed;
  const bytes = bytesOf(levels), values = new Float32Array(height * width);
  for (let i = 0; i < values.length; i++) {
    values[i] = low + (bytes[2 * i] + 256 * bytes[2 * i + 1]) / 65535 * (high - low);
  }
  return { height, width, values };
}

// Raw values -> heat from 0 to 1, of a signed map from -1 to 1; null where there is none.
function heatOf(map, scale, signed) {
  const heat = new Float32Array(map.values.length);
  let least = Infinity, most = -Infinity;
  for (const value of map.values) {
    const size = signed ? Math.abs(value) : Math.max(value, 0);
    least = Math.min(least, size);
    most = Math.max(most, size);
  }
  const low = scale ? scale[0] : signed ? 0 : least, high = scale ? scale[1] : most;
  const contrast = scale || signed ? high > low : high - low > SMALLEST_CONTRAST * high;
  if (!contrast) return null;
  let any = false;
  for (let i = 0; i < heat.length; i++) {
    const value = map.values[i], size = signed ? Math.abs(value) : Math.max(value, 0);
    const share = Math.min(Math.max((size - low) / (high - low), 0), 1);
    heat[i] = signed && value < 0 ? -share : share;
    any = any || share > 0;
  }
  return any ? { height: map.height, width: map.width, values: heat } : null;
}

const neighbours = new Map();

// For each pixel along an edge: the cells on both sides of its centre, and the second one's share.
function findNeighbours(cells, pixels) {
  const key = cells * 65536 + pixels;
  if (!neighbours.has(key)) {
    const before = new Uint16Array(pixels), after = new Uint16Array(pixels);
    const share = new Float32Array(pixels);
    for (let i = 0; i < pixels; i++) {
      const place = Math.min(Math.max((i + 0.5) / pixels * cells - 0.5, 0), cells - 1);
      before[i] = Math.floor(place);
      after[i] = Math.min(before[i] + 1, cells - 1);
      share[i] = place - before[i];
    }
    neighbours.set(key, { before, after, share });
  }
  return neighbours.get(key);
}

// Bilinear between the centres of cells, constant beyond the outermost ones.
function enlarge(map, width, height) {
  const across = findNeighbours(map.width, width), down = findNeighbours(map.height, height);
  const { values } = map, large = new Float32Array(width * height);
  const row = new Float32Array(map.width);
  for (let y = 0; y < height; y++) {
    const one = down.before[y] * map.width, two = down.after[y] * map.width, t = down.share[y];
    for (let x = 0; x < row.length; x++) row[x] = values[one + x] + (values[two + x] - values[one + x]) * t;
    for (let x = 0, at = y * width; x < width; x++, at++) {
      const left = row[across.before[x]];
      large[at] = left + (row[across.after[x]] - left) * across.share[x];
    }
  }
  return { width, height, values: large };
}

// Colours a canvas by heat; `table` has 256 colours of three bytes.
function paintHeat(canvas, heat, table, signed, follows) {
  const { width, height } = canvas, context = canvas.getContext("2d");
  if (!heat) {
    context.clearRect(0, 0, width, height);
    return;
  }
  const large = enlarge(heat, width, height), image = context.createImageData(width, height);
  const pixels = image.data;
  for (let i = 0, at = 0; i < large.values.length; i++, at += 4) {
    const value = large.values[i];
    if (signed) {
      const ink = data.signs[value > 0 ? 0 : 1];
      pixels[at] = ink[0]; pixels[at + 1] = ink[1]; pixels[at + 2] = ink[2];
      pixels[at + 3] = Math.abs(value) * 255;
    } else {
      const place = 3 * Math.floor(255 * value);
      pixels[at] = table[place]; pixels[at + 1] = table[place + 1]; pixels[at + 2] = table[place + 2];
      pixels[at + 3] = follows ? 255 * value : 255;
    }
  }
  context.putImageData(image, 0, 0);
}

// Which pixels are above a share of the largest raw value: 1 or 0.
function findHot(map, threshold, width, height) {
  let most = 0;
  for (const value of map.values) most = Math.max(most, value);
  const large = enlarge(map, width, height), hot = new Uint8Array(width * height);
  for (let i = 0; i < hot.length; i++) hot[i] = most > 0 && large.values[i] > threshold * most ? 1 : 0;
  return hot;
}

// Boxes around connected hot regions, corners included; the largest first.
function findBoxes(hot, width, height) {
  const seen = new Uint8Array(hot.length), boxes = [], stack = [];
  for (let start = 0; start < hot.length; start++) {
    if (!hot[start] || seen[start]) continue;
    const box = { left: width, top: height, right: 0, bottom: 0, area: 0 };
    stack.push(start);
    seen[start] = 1;
    while (stack.length) {
      const at = stack.pop(), x = at % width, y = (at - x) / width;
      box.area++;
      box.left = Math.min(box.left, x); box.right = Math.max(box.right, x + 1);
      box.top = Math.min(box.top, y); box.bottom = Math.max(box.bottom, y + 1);
      for (let dy = -1; dy <= 1; dy++) {
        for (let dx = -1; dx <= 1; dx++) {
          const nx = x + dx, ny = y + dy, next = ny * width + nx;
          if (nx < 0 || ny < 0 || nx >= width || ny >= height || !hot[next] || seen[next]) continue;
          seen[next] = 1;
          stack.push(next);
        }
      }
    }
    boxes.push(box);
  }
  return boxes.sort((a, b) => b.area - a.area);
}

// Draws outlines and boxes of what is hot, light above dark, so that they are seen anywhere.
function paintLines(canvas, map, options) {
  const context = canvas.getContext("2d"), { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  if (!map || !(options.contour || options.boxes)) return;
  const columns = Math.min(320, Math.max(48, Math.round(width / 2.5))), rows = Math.max(8, Math.round(columns * height / width));
  const hot = findHot(map, options.threshold, columns, rows);
  const stepX = width / columns, stepY = height / rows, path = new Path2D();
  if (options.contour) {
    const isHot = (x, y) => x >= 0 && y >= 0 && x < columns && y < rows && hot[y * columns + x];
    for (let y = 0; y <= rows; y++) {
      for (let x = 0; x <= columns; x++) {
        if (Boolean(isHot(x, y)) !== Boolean(isHot(x - 1, y)) && y < rows) {
          path.moveTo(x * stepX, y * stepY); path.lineTo(x * stepX, (y + 1) * stepY);
        }
        if (Boolean(isHot(x, y)) !== Boolean(isHot(x, y - 1)) && x < columns) {
          path.moveTo(x * stepX, y * stepY); path.lineTo((x + 1) * stepX, y * stepY);
        }
      }
    }
  }
  if (options.boxes) {
    const boxes = findBoxes(hot, columns, rows);
    for (const box of options.boxes === "all" ? boxes : boxes.slice(0, 1)) {
      path.rect(box.left * stepX, box.top * stepY, (box.right - box.left) * stepX, (box.bottom - box.top) * stepY);
    }
  }
  const thin = Math.max(1.5, Math.min(width, height) / 110);
  for (const [ink, thick] of [["#000", 2.2 * thin], ["#fff", thin]]) {
    context.strokeStyle = ink;
    context.lineWidth = thick;
    context.stroke(path);
  }
}
