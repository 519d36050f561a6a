// The picture: before and after, and the brush that paints on it.

const ERASED = 1, LEARNED = 128, PAINTED = 255; // as coral_jax/canvas.py has them
const VALUES = { paint: PAINTED, erase: ERASED, restore: LEARNED };

export function makeStage({ stroked }) {
  const stage = document.getElementById("stage"), strokes = document.getElementById("strokes");
  const before = document.getElementById("before"), after = document.getElementById("after");
  const split = document.getElementById("split"), line = document.getElementById("split-line");
  const width = document.getElementById("brush-size");
  const tools = [...document.querySelectorAll("[data-tool][role=radio]")];
  let tool = "look", size = 1, rows = [0, 1], whole = 1; // of the brush's square; of the picture in it
  const map = document.createElement("canvas"); // the brush: grey levels
  const levels = map.getContext("2d", { willReadFrequently: true });
  let last = null, filled = 0;

  function setSplit(percent) {
    split.value = percent;
    before.style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
    line.style.left = `${percent}%`;
    line.hidden = percent <= 0 || percent >= 100;
  }
  function pickTool(name) {
    tool = name;
    stage.dataset.tool = name;
    for (const one of tools) one.setAttribute("aria-checked", String(one.dataset.tool === name));
    if (name !== "look") setSplit(0);
  }
  function place(event) { // in the brush's square
    const box = stage.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    return [x * size, (rows[0] + y * (rows[1] - rows[0])) / whole * size];
  }
  function grey(value) { return `rgb(${value},${value},${value})`; }
  function stroke(from, to) {
    levels.strokeStyle = grey(VALUES[tool]);
    levels.lineWidth = Math.max(1, Number(width.value) / 100 * size);
    levels.lineCap = "round";
    levels.beginPath();
    levels.moveTo(...from);
    levels.lineTo(to[0] + 0.01, to[1]);
    levels.stroke();
    showStrokes();
  }
  // Strokes in colour over the picture: green where painted, red where erased.
  function showStrokes() {
    const { data } = levels.getImageData(0, 0, size, size);
    const shown = new ImageData(size, size);
    for (let i = 0; i < data.length; i += 4) {
      const value = data[i] - LEARNED;
      shown.data.set(value > 0 ? [20, 160, 90, value * 2] : [220, 50, 40, -value * 2], i);
    }
    const top = Math.round(rows[0] / whole * size), height = Math.round((rows[1] - rows[0]) / whole * size);
    strokes.width = size;
    strokes.height = height;
    strokes.getContext("2d").putImageData(shown, 0, -top);
  }
  function fill(value) {
    filled += 1;
    levels.fillStyle = grey(value);
    levels.fillRect(0, 0, size, size);
    showStrokes();
  }

  stage.addEventListener("pointerdown", (event) => {
    if (tool !== "look" && !stroked.allowed()) return;
    stage.setPointerCapture(event.pointerId);
    last = place(event);
    if (tool === "look") setSplit(Math.round(last[0] / size * 100));
    else stroke(last, last);
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (last === null) return;
    const here = place(event);
    if (tool === "look") setSplit(Math.max(0, Math.min(100, Math.round(here[0] / size * 100))));
    else { stroke(last, here); stroked.moving(); }
    last = here;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, () => {
      if (last !== null && tool !== "look") stroked.done();
      last = null;
    });
  }
  split.addEventListener("input", () => setSplit(Number(split.value)));
  for (const one of tools) one.addEventListener("click", () => pickTool(one.dataset.tool));
  pickTool("look");
  setSplit(0);

  return {
    before, after, fill: { none: () => fill(LEARNED), all: () => fill(ERASED) },
    domainChanged(domain) {
      [size, rows, whole] = [domain.brush, domain.rows, domain.size];
      map.width = map.height = size;
      stage.style.aspectRatio = `${whole} / ${rows[1] - rows[0]}`;
      fill(LEARNED);
    },
    // The brush as PNG in base64; null where nothing was painted.
    brush() {
      const { data } = levels.getImageData(0, 0, size, size);
      for (let i = 0; i < data.length; i += 4) if (data[i] !== LEARNED) return map.toDataURL("image/png").split(",")[1];
      return null;
    },
    async setBrush(brush) {
      fill(LEARNED);
      if (!brush) return;
      const mine = filled, image = new Image();
      image.src = `data:image/png;base64,${brush}`;
      await image.decode();
      if (mine !== filled) return; // another brush took its place
      levels.drawImage(image, 0, 0);
      showStrokes();
    },
  };
}
