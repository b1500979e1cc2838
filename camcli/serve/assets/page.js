"use strict";
(() => {

const byId = (id) => document.getElementById(id);
const MOST_SUGGESTIONS = 40, RETRIES = 8, AGAIN = 1000;

// Whatever comes from a picture, a file's name or a model is set as text, never as markup.
function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

const percent = (share) => (share === null ? "" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`);
const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;

let choices = null;
// what is chosen; a category is an index or what was typed, alpha null is as the server draws
const chosen = { model: "", methods: [], category: "", layer: "", alpha: null };
let picture = null, original = "", asking = null, tiles = new Map(), likeliestOf = "";

const model = () => choices.models.find((one) => one.name === chosen.model) || choices.models[0];
const alpha = () => (chosen.alpha === null ? (choices.alpha === "auto" ? 0.75 : choices.alpha) : chosen.alpha);

// ---- What can be chosen

function makeSegments(id, type, options, change) {
  byId(id).replaceChildren(...options.map(({ value, title, disabled, checked }) => {
    const label = element("label"), input = element("input");
    Object.assign(input, { type, name: id, value, disabled: Boolean(disabled), checked: Boolean(checked) });
    if (title) label.title = title;
    input.addEventListener("change", change);
    label.append(input, value);
    return label;
  }));
}

const asMethod = ({ name, shows, cost, missing, checked }) => ({
  value: name, checked, disabled: missing,
  title: missing ? `Not for this model: ${missing}` : `${shows}\nPasses: ${cost}`,
});

function showChoices() {
  const { methods, layers, default_layer: ofModel } = model();
  byId("model-field").hidden = choices.models.length < 2;
  makeSegments("model", "radio", choices.models.map(({ name }) => ({ value: name, checked: name === chosen.model })), changeModel);
  const options = methods.map((one) => ({ ...one, checked: chosen.methods.includes(one.name) }));
  const isSeen = ({ is_common, missing }) => is_common && !missing;
  makeSegments("methods", "checkbox", options.filter(isSeen).map(asMethod), changeMethods);
  makeSegments("more-methods", "checkbox", options.filter((one) => !isSeen(one)).map(asMethod), changeMethods);
  if (options.some((one) => one.checked && !isSeen(one))) byId("more").open = true;
  byId("layer").replaceChildren(
    Object.assign(element("option", "", ofModel ? `${ofModel} (default)` : "found by measuring"), { value: "" }),
    ...layers.map((name) => Object.assign(element("option", "", name), { value: name })),
  );
  byId("layer").value = chosen.layer;
  byId("category").value = nameOf(chosen.category);
  byId("category").disabled = !model().categories;
  byId("facts").textContent = `${model().name}${model().categories ? `, ${model().categories.toLocaleString("en")} ${model().is_value ? "values" : "classes"}` : ""}`;
  showAlpha();
  showAbout();
}

function nameOf(category) {
  return /^\d+$/.test(category) && model().labels[Number(category)] || category;
}

function showAbout() {
  const one = chosen.methods.length === 1 && model().methods.find(({ name }) => name === chosen.methods[0]);
  byId("about").textContent = one ? `${one.name}: ${one.shows}. Passes: ${one.cost}.` : "";
}

// Keeps of what is chosen what the model has.
function settle() {
  const { methods, layers, name } = model();
  chosen.model = name;
  const fitting = methods.filter(({ missing }) => !missing).map((one) => one.name);
  chosen.methods = fitting.filter((one) => chosen.methods.includes(one));
  if (!chosen.methods.length) chosen.methods = fitting.filter((one) => choices.methods.includes(one));
  if (!chosen.methods.length) chosen.methods = fitting.slice(0, 1);
  if (!layers.includes(chosen.layer)) chosen.layer = "";
}

function suggest() {
  const typed = byId("category").value.trim().toLowerCase(), labels = model().labels, found = [];
  for (let i = 0; i < labels.length && found.length < MOST_SUGGESTIONS; i++) {
    if (labels[i].toLowerCase().includes(typed)) found.push(labels[i]);
  }
  byId("labels").replaceChildren(...[...new Set(found)].map((value) => Object.assign(element("option"), { value })));
}

// ---- The address remembers what is chosen, so that it can be shared

function writeAddress() {
  const fields = new URLSearchParams();
  if (choices.models.length > 1) fields.set("model", chosen.model);
  for (const name of chosen.methods) fields.append("method", name);
  if (chosen.category) fields.set("category", chosen.category);
  if (chosen.layer) fields.set("layer", chosen.layer);
  if (chosen.alpha !== null) fields.set("alpha", chosen.alpha);
  history.replaceState(null, "", `#${fields}`);
}

function readAddress() {
  const fields = new URLSearchParams(location.hash.slice(1)), share = Number(fields.get("alpha"));
  Object.assign(chosen, {
    model: fields.get("model") || "", methods: fields.getAll("method"),
    category: fields.get("category") || "", layer: fields.get("layer") || "",
    alpha: fields.has("alpha") && share >= 0 && share <= 1 ? share : null,
  });
  settle();
}

function makeQuery(methods, name) {
  const fields = new URLSearchParams({ model: chosen.model, name });
  for (const method of methods) fields.append("method", method);
  if (chosen.category) fields.set("category", chosen.category);
  if (chosen.layer) fields.set("layer", chosen.layer);
  if (chosen.alpha !== null) fields.set("alpha", chosen.alpha);
  return fields;
}

// ---- The picture

function takePicture(files) {
  const file = [...files].find((one) => one.type.startsWith("image/") || /\.\w+$/.test(one.name)) || files[0];
  if (!file) return;
  if (file.size > choices.max_bytes) {
    say(`${file.name || "That picture"} has ${megabytes(file.size)}: ${megabytes(choices.max_bytes)} is the most here.`, true);
    return;
  }
  picture = file;
  chosen.category = "";
  byId("category").value = "";
  byId("name").textContent = file.name || "a pasted picture";
  likeliestOf = "";
  byId("likeliest").replaceChildren();
  explain(true);
}

function say(text, isFailure = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("failed", isFailure);
}

// ---- Asking

async function ask(method, signal) {
  const address = `explain?${makeQuery([method], picture.name || "picture.png")}`;
  for (let again = 0; ; again++) {
    const answer = await fetch(address, { method: "POST", body: picture, headers: { "Content-Type": "application/octet-stream" }, signal });
    if (answer.status === 503 && again < RETRIES) {
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
      signal.throwIfAborted();
      continue;
    }
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.error);
    return said;
  }
}

// Explains the picture by each method in turn; a new question takes the place of one under way.
async function explain(isNew = false) {
  writeAddress();
  showCommand();
  if (!picture) return;
  if (asking) asking.abort();
  asking = new AbortController();
  const { signal } = asking, methods = [...chosen.methods], named = picture.name || "the picture";
  byId("drop").hidden = true;
  makeTiles(methods, isNew);
  let failures = 0;
  for (const [place, method] of methods.entries()) {
    say(methods.length > 1 ? `Explaining ${named}: ${method}, ${place + 1} of ${methods.length} …` : `Explaining ${named} …`);
    try {
      const said = await ask(method, signal);
      if (signal.aborted) return;
      fillTile(method, said);
      showLikeliest(method, said);
      if (isNew && !place && matchMedia("(max-width: 860px)").matches) byId("main").scrollIntoView();
    } catch (error) {
      if (signal.aborted) return;
      failures++;
      failTile(method, error instanceof TypeError ? "The server does not answer: has it been stopped?" : error.message);
    }
  }
  if (failures === methods.length) showFailure(methods);
  else say(describe(methods, failures));
}

// What all methods say alike, as of a class that nobody knows, is said once.
function showFailure([first, ...others]) {
  const { reason } = tiles.get(first);
  say(reason, true);
  for (const name of others) tiles.get(name).figure.hidden = tiles.get(name).reason === reason;
}

const asksClass = (method) => model().methods.find(({ name }) => name === method).asks_class;
const labelOf = ({ label, category }) => (label ? label.split(",")[0] : category === null ? "" : `class ${category}`);
const shareOf = ({ value, probability }) => (value !== null ? value.toPrecision(4) : percent(probability));

function describe(methods, failures) {
  const made = methods.filter((name) => tiles.get(name).said);
  const { said } = tiles.get(made.find(asksClass) || made[0]);
  const [height, width] = said.size;
  const failed = failures ? `, ${failures} failed` : "";
  return `${picture.name || "The picture"}, ${width} × ${height} pixels: ${labelOf(said)} ${shareOf(said)}${failed}`.trim();
}

// ---- What is shown

function makeTiles(methods, isNew) {
  for (const [name, tile] of tiles) if (isNew || !methods.includes(name)) forget(name, tile);
  if (isNew) {
    if (original) URL.revokeObjectURL(original);
    original = URL.createObjectURL(picture);
  }
  for (const name of methods) {
    if (!tiles.has(name)) tiles.set(name, { figure: element("figure", "tile"), urls: [], said: null, reason: "" });
    const tile = tiles.get(name);
    tile.figure.classList.add("waiting");
    tile.figure.classList.remove("failed");
    tile.figure.hidden = false;
    if (!tile.said) tile.figure.replaceChildren(element("div", "shown"), makeCaption(name));
  }
  byId("tiles").style.setProperty("--tile", methods.length > 3 ? "270px" : methods.length > 1 ? "330px" : "380px");
  byId("tiles").replaceChildren(makeOriginal(), ...methods.map((name) => tiles.get(name).figure));
}

function makeOriginal() {
  const figure = element("figure", "tile"), shown = element("div", "shown"), image = element("img");
  image.src = original;
  image.alt = "The picture";
  // of kinds that browsers do not show, the server's
  image.addEventListener("error", () => {
    const said = [...tiles.values()].map((tile) => tile.said).find(Boolean);
    if (said && image.src !== said.urls.picture) image.src = said.urls.picture;
    else figure.hidden = !said;
  });
  shown.append(image);
  figure.append(shown, makeCaption("Original"));
  figure.id = "original";
  return figure;
}

function makeCaption(title, ...rest) {
  const caption = element("figcaption"), heading = element("div", "heading");
  heading.append(element("span", "", title));
  caption.append(heading, ...rest);
  return caption;
}

function toUrl(base64, type) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return URL.createObjectURL(new Blob([bytes], { type }));
}

function fillTile(name, said) {
  const tile = tiles.get(name);
  tile.urls.forEach((url) => URL.revokeObjectURL(url));
  said.urls = { overlay: toUrl(said.overlay, said.type), picture: toUrl(said.picture, "image/jpeg"), heat: toUrl(said.heat, "image/jpeg") };
  tile.urls = Object.values(said.urls);
  for (const key of ["overlay", "picture", "heat"]) delete said[key];
  Object.assign(tile, { said, drawn: chosen.alpha, reason: "" });
  const shown = element("div", "shown"), overlay = element("img", "overlay"), under = element("img", "blend under"), over = element("img", "blend over");
  const label = asksClass(name) ? labelOf(said) : "";
  overlay.alt = `${name}${label ? ` for ${label}` : ""}, drawn on the picture`;
  under.alt = over.alt = "";
  [overlay.src, under.src, over.src] = [said.urls.overlay, said.urls.picture, said.urls.heat];
  shown.append(overlay, under, over);
  const facts = [asksClass(name) ? `${label} ${shareOf(said)}`.trim() : "the same for every class", said.layers.length && `at ${said.layers.join(", ")}`].filter(Boolean).join(" · ");
  const line = element("p", "facts", facts), caption = makeCaption(name, line);
  line.title = said.layer_reason;
  if (said.warnings.length) {
    const list = element("ul", "warnings");
    list.append(...said.warnings.map((text) => element("li", "", text)));
    caption.append(list);
  }
  const save = element("a", "save", "Save");
  Object.assign(save, { href: said.urls.overlay, download: said.file });
  save.setAttribute("aria-label", `Save the overlay of ${name}`);
  save.addEventListener("click", (event) => saveAnew(event, name));
  caption.querySelector(".heading").append(save);
  tile.figure.className = "tile";
  tile.figure.replaceChildren(shown, caption);
  const first = byId("original").querySelector("img");
  if (first.complete && !first.naturalWidth) first.src = said.urls.picture, byId("original").hidden = false;
  blend(tile);
}

function failTile(name, reason) {
  const tile = tiles.get(name), shown = element("div", "shown");
  shown.append(element("p", "why", reason));
  Object.assign(tile, { said: null, reason });
  tile.figure.className = "tile failed";
  tile.figure.replaceChildren(shown, makeCaption(name));
}

function forget(name, tile) {
  tile.urls.forEach((url) => URL.revokeObjectURL(url));
  tiles.delete(name);
}

// The overlay itself where it was drawn so, else the picture and the heat laid over each other.
function blend(tile) {
  if (!tile.said) return;
  const isDrawn = chosen.alpha === tile.drawn;
  for (const layer of tile.figure.querySelectorAll(".blend")) layer.hidden = isDrawn;
  tile.figure.querySelector(".over").style.opacity = alpha();
}

// With another opacity, the file is drawn anew before it is saved.
async function saveAnew(event, name) {
  const tile = tiles.get(name);
  if (chosen.alpha === tile.drawn) return;
  event.preventDefault();
  try {
    fillTile(name, await ask(name, new AbortController().signal));
    tile.figure.querySelector(".save").click();
  } catch (error) {
    say(error.message, true);
  }
}

function showLikeliest(method, said) {
  const key = said.likeliest.map(({ category }) => category).join();
  if (!said.likeliest.length || key === likeliestOf) return markLikeliest(method, said);
  likeliestOf = key;
  byId("likeliest").replaceChildren(...said.likeliest.map(({ category, label, probability }) => {
    const item = element("li"), button = element("button"), fill = element("span", "fill");
    button.type = "button";
    button.dataset.category = category;
    fill.style.width = `${100 * probability}%`;
    button.append(fill, element("span", "label", label || `class ${category}`), element("span", "share", percent(probability)));
    button.addEventListener("click", () => {
      chosen.category = String(category);
      byId("category").value = label;
      explain();
    });
    item.append(button);
    return item;
  }));
  markLikeliest(method, said);
}

function markLikeliest(method, said) {
  if (!asksClass(method)) return;
  for (const button of byId("likeliest").querySelectorAll("button")) button.setAttribute("aria-pressed", Number(button.dataset.category) === said.category);
}

function showAlpha() {
  byId("alpha").value = alpha();
  byId("alpha-value").textContent = chosen.alpha === null && choices.alpha === "auto" ? "follows the heat" : `${Math.round(100 * alpha())}%`;
}

// ---- The same in a terminal

let commands = 0;
async function showCommand() {
  const number = ++commands;
  const answer = await fetch(`command?${makeQuery(chosen.methods, picture ? picture.name || "picture.png" : "picture.jpg")}`).catch(() => null);
  if (number !== commands || !answer) return;
  const said = await answer.json();
  byId("command-field").hidden = !answer.ok;
  if (answer.ok) byId("command").textContent = said.command;
}

async function copy(button, text) {
  const words = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // not every page may: then it is marked, to be copied by hand
    getSelection().selectAllChildren(byId("command"));
    button.textContent = "Press Ctrl C";
  }
  setTimeout(() => { button.textContent = words; }, 1500);
}

// ---- What a visitor does

function changeModel(event) {
  chosen.model = event.target.value;
  Object.assign(chosen, { category: "", layer: "" });
  likeliestOf = "";
  byId("likeliest").replaceChildren();
  settle();
  showChoices();
  explain();
}

function changeMethods(event) {
  const inputs = [...byId("controls").querySelectorAll("input[type=checkbox]")];
  const checked = inputs.filter((input) => input.checked).map((input) => input.value);
  const methods = model().methods.map(({ name }) => name).filter((name) => checked.includes(name));
  if (!methods.length) {
    event.target.checked = true;
    return;
  }
  const isFewer = methods.length < chosen.methods.length;
  chosen.methods = methods;
  showAbout();
  if (isFewer && !byId("tiles").querySelector(".waiting")) {
    writeAddress();
    showCommand();
    if (picture) makeTilesStay(methods);
  } else explain();
}

// One method less: what is shown of the others stays.
function makeTilesStay(methods) {
  for (const [name, tile] of tiles) if (!methods.includes(name)) { tile.figure.remove(); forget(name, tile); }
}

let moved = 0;
function changeAlpha(event) {
  chosen.alpha = Number(event.target.value);
  showAlpha();
  for (const tile of tiles.values()) blend(tile);
  clearTimeout(moved);
  moved = setTimeout(() => { writeAddress(); showCommand(); }, 150);
}

function connect() {
  byId("file").addEventListener("change", (event) => { takePicture(event.target.files); event.target.value = ""; });
  byId("category").addEventListener("input", suggest);
  byId("category").addEventListener("focus", suggest);
  byId("category").addEventListener("change", (event) => { chosen.category = event.target.value.trim(); explain(); });
  byId("layer").addEventListener("change", (event) => { chosen.layer = event.target.value; explain(); });
  byId("alpha").addEventListener("input", changeAlpha);
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("copy").addEventListener("click", (event) => copy(event.target, byId("command").textContent));
  byId("link").addEventListener("click", (event) => copy(event.target, location.href));
  let inside = 0;
  const mark = (by) => { inside = Math.max(inside + by, 0); document.body.classList.toggle("dropping", inside > 0); };
  addEventListener("dragenter", (event) => { event.preventDefault(); mark(1); });
  addEventListener("dragleave", () => mark(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    inside = 0;
    mark(0);
    if (event.dataTransfer.files.length) takePicture(event.dataTransfer.files);
    else say("That is no file: save the picture first, or copy and paste it.", true);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) takePicture(event.clipboardData.files);
  });
  addEventListener("hashchange", () => { readAddress(); showChoices(); explain(); });
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme-button").textContent = name === "dark" ? "Light" : "Dark";
}

setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
byId("theme-button").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));

async function start() {
  try {
    choices = await (await fetch("choices")).json();
  } catch {
    say("The server does not answer: has it been stopped?", true);
    return;
  }
  byId("limits").textContent = `At most ${megabytes(choices.max_bytes)} and ${(choices.max_pixels / 1e6).toLocaleString("en")} million pixels. It is kept in memory while it is explained, and nowhere else.`;
  readAddress();
  showChoices();
  connect();
  showCommand();
  document.body.dataset.ready = "yes";
}
start();

})();
