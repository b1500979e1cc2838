// The grid of heatmaps: cards are made for what is in view, and used again.

const CAPTION = 68, GAP = 20, BEYOND = 400, RATIO = 0.75;
const scroller = byId("gallery"), grid = byId("grid");
const gallery = { shown: [], active: 0, live: new Map(), spare: [], columns: 1, width: 0, rowHeight: 0 };

function layOut() {
  const style = getComputedStyle(scroller);
  const inside = scroller.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  if (inside <= 0) return;
  const columns = Math.max(1, Math.floor((inside + GAP) / (Number(chosen.size) + GAP)));
  const width = Math.floor((inside - GAP * (columns - 1)) / columns);
  Object.assign(gallery, { columns, width, height: Math.round(width * RATIO), rowHeight: Math.round(width * RATIO) + CAPTION + GAP });
  grid.style.height = `${Math.ceil(gallery.shown.length / columns) * gallery.rowHeight}px`;
  drawInView();
}

function drawInView() {
  const { columns, rowHeight, width, height, shown, live, spare } = gallery;
  if (!rowHeight) return;
  const above = scroller.scrollTop - BEYOND, below = scroller.scrollTop + scroller.clientHeight + BEYOND;
  const first = Math.max(0, Math.floor(above / rowHeight)) * columns;
  const end = Math.min(shown.length, Math.ceil(below / rowHeight) * columns);
  for (const [place, one] of live) {
    if (place < first || place >= end) {
      if (document.activeElement === one.button) continue;
      live.delete(place);
      spare.push(one);
    }
  }
  // from the last one on, so that each stands in front of the next: what is read aloud is in order
  let next = null;
  for (let place = end - 1; place >= first; place--) {
    let one = live.get(place);
    if (!one) {
      one = spare.pop() || addCard();
      live.set(place, one);
      one.card.hidden = false;
    }
    if (one.place !== place || one.row !== shown[place] || one.width !== width) {
      Object.assign(one, { place, row: shown[place], width });
      const x = (place % columns) * (width + GAP), y = Math.floor(place / columns) * rowHeight;
      one.card.style.transform = `translate(${x}px, ${y}px)`;
      one.card.style.width = `${width}px`;
      one.card.setAttribute("aria-setsize", shown.length);
      one.card.setAttribute("aria-posinset", place + 1);
      one.show(shown[place], width, height);
      if (one.card.nextSibling !== next) grid.insertBefore(one.card, next);
    }
    next = one.card;
    one.button.tabIndex = place === gallery.active ? 0 : -1;
  }
  for (const one of spare) one.card.hidden = true;
}

function addCard() {
  const one = makeCard();
  grid.append(one.card);
  one.button.addEventListener("click", () => openDetail(one.place));
  one.button.addEventListener("focus", () => { gallery.active = one.place; });
  one.button.addEventListener("pointermove", (event) => showReadout(one.layers, event));
  one.button.addEventListener("pointerleave", hideReadout);
  return one;
}

let isAsked = false;
scroller.addEventListener("scroll", () => {
  hideReadout();
  if (isAsked) return;
  isAsked = true;
  requestAnimationFrame(() => { isAsked = false; drawInView(); });
}, { passive: true });
new ResizeObserver(layOut).observe(scroller);

// Chooses and sorts anew, at the top.
function refreshRows() {
  gallery.shown = chooseRows();
  gallery.active = 0;
  for (const one of gallery.live.values()) { one.place = -1; gallery.spare.push(one); }
  gallery.live.clear();
  scroller.scrollTop = 0;
  const count = gallery.shown.length, pictures = new Set(gallery.shown.map((i) => rows.picture[i])).size;
  const failures = rows.error?.some(Boolean);
  byId("count").textContent = `${count.toLocaleString("en")} of ${total.toLocaleString("en")} ${failures ? "heatmaps and failures" : "heatmaps"}, of ${pictures.toLocaleString("en")} ${pictures === 1 ? "picture" : "pictures"}`;
  byId("empty").hidden = count > 0;
  grid.hidden = count === 0;
  layOut();
}

// Paints what is in view again, in other colours or with other lines.
function repaint() {
  for (const one of gallery.live.values()) if (one.layers.row >= 0) one.layers.paint();
  repaintDetail();
}

function moveFocus(place) {
  const { columns, rowHeight, shown } = gallery, target = Math.min(Math.max(place, 0), shown.length - 1);
  if (target < 0) return;
  gallery.active = target;
  const top = Math.floor(target / columns) * rowHeight;
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  const bottom = top + rowHeight - scroller.clientHeight;
  if (bottom > scroller.scrollTop) scroller.scrollTop = bottom;
  drawInView();
  gallery.live.get(target)?.button.focus({ preventScroll: true });
}

grid.addEventListener("keydown", (event) => {
  const { columns, rowHeight, active } = gallery, page = Math.max(1, Math.floor(scroller.clientHeight / rowHeight));
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page * columns, PageUp: -page * columns };
  if (event.key in steps) moveFocus(active + steps[event.key]);
  else if (event.key === "Home") moveFocus(0);
  else if (event.key === "End") moveFocus(gallery.shown.length - 1);
  else return;
  event.preventDefault();
});

const readout = byId("readout");
function showReadout(layers, event) {
  const read = layers.read(event.clientX, event.clientY);
  readout.hidden = !read;
  if (!read) return;
  readout.textContent = describeCell(read);
  const width = readout.offsetWidth, beyond = event.clientX + 14 + width > window.innerWidth;
  readout.style.left = `${beyond ? event.clientX - 14 - width : event.clientX + 14}px`;
  readout.style.top = `${Math.max(4, event.clientY - 30)}px`;
}
function hideReadout() { readout.hidden = true; }
