// The Edit tab: a face, edits on it, undo; the state is a recipe, and the studio draws it.

import { ask, download, element, newest, picture, say, show } from "./api.js";
import { makePhotos } from "./photos.js";
import { makeStage } from "./stage.js";

const SHOWN = 12; // faces of the gallery
const MOST_EDITS = 8;
const byId = (id) => document.getElementById(id);

export function makeEdit(shared) {
  let state = null; // {face: {seed, truncation} or {photo, picture_sha256, codes_sha256}, edits: [{edit, weights_sha256, alpha, tau, layers_off, brush}], chosen}
  let past = [], future = [], first = 0;
  const tau = (name) => shared.edits.find((one) => one.name === name)?.tau ?? 0;
  const stage = makeStage({
    stroked: {
      allowed() { if (!state.edits.length) say("add an edit first: the brush says where it acts"); return state.edits.length > 0; },
      moving: () => takeBrush(), done: () => { takeBrush(); changed(); },
    },
  });

  // ---- state and history ----

  const copy = (value) => JSON.parse(JSON.stringify(value));
  const chosen = () => state.edits[state.chosen];
  function takeBrush() { chosen().brush = stage.brush(); draw("preview"); }
  // A change that is done: undo comes back to before it.
  function changed() {
    const present = JSON.stringify(state);
    if (past.at(-1) === present) return;
    past.push(present);
    if (past.length > 200) past.shift();
    future = [];
    refresh();
  }
  function refresh() {
    byId("undo").disabled = past.length < 2;
    byId("redo").disabled = !future.length;
    byId("no-edits").hidden = state.edits.length > 0;
    draw(shared.domain.preview === shared.domain.size ? "preview" : "full");
    drawLayers();
  }
  async function restore(text) {
    const face = JSON.stringify(state.face);
    state = JSON.parse(text);
    if (JSON.stringify(state.face) !== face) await faceChanged(false);
    showEdits();
    refresh();
  }
  function undo() { if (past.length > 1) { future.push(past.pop()); restore(past.at(-1)); } }
  function redo() { if (future.length) { past.push(future.pop()); restore(past.at(-1)); } }

  // ---- drawing ----

  function recipe(edits = state.edits) {
    return { format: 1, domain: shared.domain.name, domain_fingerprint: shared.domain.fingerprint, face: state.face, edits };
  }
  const draw = newest(async (size) => {
    const timer = setTimeout(() => { byId("busy").hidden = false; }, 250);
    try {
      const blob = await picture("draw", { recipe: recipe(), size });
      show(stage.after, blob);
      await stage.after.decode().catch(() => {}); // another took its place
      byId("stage").dataset.drawn = String(Number(byId("stage").dataset.drawn ?? 0) + 1); // for tests
      if (size === "full") drawBefore(size);
    } finally { clearTimeout(timer); byId("busy").hidden = true; }
  });
  let before = ""; // what is shown of the unedited face
  const drawBefore = newest(async (size) => {
    const wanted = JSON.stringify([state.face, shared.domain.name, size]);
    if (wanted === before) return;
    show(stage.before, await picture("draw", { recipe: recipe([]), size }));
    before = wanted;
  });
  const drawLayers = newest(async () => {
    if (!state.edits.length) return;
    const edits = copy(state.edits);
    const { layers } = await ask("layers", { recipe: recipe(edits) });
    if (JSON.stringify(edits.map((one) => one.edit)) !== JSON.stringify(state.edits.map((one) => one.edit))) return;
    layers.forEach((own, index) => showLayers(index, own));
  });

  // ---- edits ----

  function shelfChanged() {
    const shelf = byId("shelf");
    const own = shared.edits.filter((one) => one.domain === shared.domain?.name);
    const kept = shelf.value;
    shelf.replaceChildren(...own.map((one) => new Option(`${one.prompt} · ${one.name}`, one.name)));
    if (own.some((one) => one.name === kept)) shelf.value = kept;
    byId("add").disabled = !own.length;
    if (!own.length) shelf.append(new Option("no edit of this domain yet: learn one"));
  }
  function add(name) {
    const known = shared.edits.find((one) => one.name === name);
    if (!known) return;
    if (state.edits.length >= MOST_EDITS) { say(`at most ${MOST_EDITS} edits go on one face`); return; }
    state.edits.push({ edit: name, weights_sha256: known.sha256, alpha: 1, tau: known.tau, layers_off: [], brush: null });
    state.chosen = state.edits.length - 1;
    showEdits();
    changed();
  }
  function remove(index) {
    state.edits.splice(index, 1);
    state.chosen = Math.max(0, Math.min(state.chosen, state.edits.length - 1));
    showEdits();
    changed();
  }
  function choose(index) {
    if (state.chosen === index) return;
    state.chosen = index;
    [...byId("applied").children].forEach((card, place) => card.classList.toggle("chosen", place === index));
    stage.setBrush(chosen().brush);
  }
  function slider(label, one, name, low, high) {
    const output = element("output", {}, one[name].toFixed(2));
    const input = element("input", { type: "range", min: low, max: high, step: 0.01, value: one[name], "aria-label": label });
    input.addEventListener("input", () => { one[name] = Number(input.value); output.textContent = one[name].toFixed(2); draw("preview"); });
    input.addEventListener("change", changed);
    return element("label", { class: `slider ${name}` }, label, input, output);
  }
  function showEdits() {
    byId("applied").replaceChildren(...state.edits.map((one, index) => {
      const known = shared.edits.find((other) => other.name === one.edit);
      const card = element("div", { class: `applied${index === state.chosen ? " chosen" : ""}` },
        element("div", { class: "row" },
          element("span", { class: "title" }, known?.prompt ?? one.edit, element("small", {}, `${one.edit} · ${known?.method ?? ""}`)),
          element("span", { class: "grow" }),
          element("button", { class: "remove", title: "Take this edit away", onclick: () => remove(index) }, "×")),
        slider("strength", one, "alpha", -1.5, 1.5), slider("threshold", one, "tau", 0, 1),
        element("div", { class: "layers" }));
      card.addEventListener("pointerdown", () => choose(index));
      card.addEventListener("focusin", () => choose(index));
      return card;
    }));
    stage.setBrush(chosen()?.brush);
  }
  function showLayers(index, layers) {
    const one = state.edits[index], strip = byId("applied").children[index]?.querySelector(".layers");
    if (!strip) return;
    if (!layers.length) { strip.replaceChildren(element("p", { class: "hint" }, "This method edits the whole picture: no masks.")); return; }
    const focused = [...strip.children].indexOf(document.activeElement);
    strip.replaceChildren(...layers.map((layer) => {
      const off = one.layers_off.includes(layer.layer);
      const share = layer.area === 0 ? "none" : layer.area >= 0.0995 ? `${Math.round(layer.area * 100)}%` : `${(layer.area * 100).toFixed(1)}%`;
      return element("button", {
        class: `layer${layer.matters ? " matters" : ""}`, "aria-pressed": String(!off), "data-layer": layer.layer,
        title: `Layer ${layer.layer}, ${layer.resolution} px: switch it ${off ? "on" : "off"}`,
        onclick: () => {
          one.layers_off = off ? one.layers_off.filter((number) => number !== layer.layer) : [...one.layers_off, layer.layer];
          changed();
        },
      }, element("img", { src: layer.tile, alt: "" }), element("span", {}, `${layer.resolution} px · ${off ? "off" : share}`));
    }));
    strip.children[focused]?.focus();
  }

  // ---- faces ----

  const photos = makePhotos(shared, {
    present: () => state.face, pick: (face) => { state.face = face; faceChanged(true); },
  });

  let asked = 0;
  async function showGallery() {
    const mine = ++asked, truncation = Number(byId("truncation").value);
    const buttons = Array.from({ length: SHOWN }, (_, index) => {
      const seed = first + index;
      return element("button", { "aria-label": `Face ${seed}`, "data-seed": seed, onclick: () => pickFace(seed, truncation) },
        element("span", {}, String(seed)));
    });
    byId("gallery").replaceChildren(...buttons);
    markFace();
    for (const button of buttons) {
      if (mine !== asked) return;
      const blob = await picture("face", { domain: shared.domain.name, seed: Number(button.dataset.seed), truncation });
      const image = element("img", { alt: "" });
      image.onload = () => URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(blob);
      button.prepend(image);
    }
  }
  const gallery = () => showGallery().catch((error) => say(error.message));
  function markFace() {
    for (const button of byId("gallery").children) button.setAttribute("aria-pressed", String(Number(button.dataset.seed) === state.face.seed));
  }
  function pickFace(seed, truncation) {
    state.face = { seed, truncation };
    faceChanged(true);
  }
  async function faceChanged(by_user) {
    if (state.face.photo === undefined) {
      byId("seed").value = state.face.seed;
      setTruncation(state.face.truncation);
    }
    markFace();
    photos.mark();
    drawBefore("preview");
    if (by_user) changed();
  }
  function setTruncation(value) {
    byId("truncation").value = value;
    byId("truncation").nextElementSibling.textContent = Number(value).toFixed(2);
  }
  function turn(by) { first = Math.max(0, Math.min(2 ** 32 - SHOWN, by)); gallery(); }

  byId("faces-back").addEventListener("click", () => turn(first - SHOWN));
  byId("faces-on").addEventListener("click", () => turn(first + SHOWN));
  byId("faces-dice").addEventListener("click", () => turn(Math.floor(Math.random() * 100000)));
  byId("seed").addEventListener("change", () => {
    const seed = Number(byId("seed").value);
    if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) { say("a seed is a whole number from 0 to 4294967295"); return; }
    if (seed < first || seed >= first + SHOWN) turn(seed);
    pickFace(seed, Number(byId("truncation").value));
  });
  byId("truncation").addEventListener("input", () => setTruncation(byId("truncation").value));
  byId("truncation").addEventListener("change", () => {
    gallery();
    pickFace(Number(byId("seed").value), Number(byId("truncation").value));
  });
  byId("add").addEventListener("click", () => add(byId("shelf").value));
  byId("undo").addEventListener("click", undo);
  byId("redo").addEventListener("click", redo);
  addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.target.type === "text") return;
    event.preventDefault();
    if (event.shiftKey) redo(); else undo();
  });
  for (const [id, how] of [["brush-none", "all"], ["brush-clear", "none"]]) {
    byId(id).addEventListener("click", () => { if (state.edits.length) { stage.fill[how](); takeBrush(); changed(); } });
  }
  byId("save-picture").addEventListener("click", async () => {
    try { download(await picture("draw", { recipe: recipe(), size: "saved" }), "picture.png"); } catch (error) { say(error.message); }
  });
  byId("save-recipe").addEventListener("click", async () => {
    try {
      const text = JSON.stringify(await ask("recipe", { recipe: recipe() }), null, 2);
      download(new Blob([`${text}\n`], { type: "application/json" }), "recipe.json");
    } catch (error) { say(error.message); }
  });

  return {
    shelfChanged,
    seeds: () => Array.from({ length: 8 }, (_, index) => (index ? first + index - 1 : state.face.seed ?? first)),
    // Begin anew with the domain that was chosen.
    async domainChanged() {
      first = 0;
      state = { face: { seed: 0, truncation: shared.domain.truncation }, edits: [], chosen: 0 };
      [past, future] = [[], []];
      stage.domainChanged(shared.domain);
      shelfChanged();
      showEdits();
      const own = shared.edits.find((one) => one.domain === shared.domain.name);
      await faceChanged(false);
      if (own) add(own.name); else changed();
      gallery();
      await photos.domainChanged();
    },
    // Show one edit, of any domain, on the present face.
    async open(name, chooseDomain) {
      const known = shared.edits.find((one) => one.name === name);
      if (!known) { say(`the run of ${name} holds no edit any more`); return false; }
      if (known.domain !== shared.domain.name) await chooseDomain(known.domain);
      if (known.domain !== shared.domain.name) return false; // another one was chosen meanwhile
      state.edits = [];
      add(name);
      return true;
    },
  };
}
