// The user's own photographs: uploaded, inverted, picked, kept.

import { ask, element, say, upload } from "./api.js";

const byId = (id) => document.getElementById(id);

export function makePhotos(shared, { present, pick }) {
  let timer = 0;

  async function list() {
    const domain = shared.domain.name;
    const { photos } = await ask("photos", { domain });
    if (domain !== shared.domain.name) return []; // another one was chosen meanwhile
    byId("photos").replaceChildren(...photos.map(({ face, own }) => element("div", { class: "row" },
      element("button", { class: "pick", "data-photo": face.photo, "data-codes": face.codes_sha256, onclick: () => pick(face) }, face.photo),
      ...(own ? [element("button", { title: "Put it into the folder of photos, where recipes find it", onclick: () => keep(face) }, "keep")] : []))));
    mark();
    return photos;
  }
  function mark() {
    const face = present();
    for (const button of byId("photos").querySelectorAll(".pick")) {
      button.setAttribute("aria-pressed", String(button.dataset.photo === face.photo && button.dataset.codes === face.codes_sha256));
    }
  }
  async function keep(face) {
    try {
      const kept = (await ask("photo/keep", { name: face.photo })).name;
      const now = present();
      if (kept !== face.photo && now.photo === face.photo && now.codes_sha256 === face.codes_sha256) pick({ ...face, photo: kept });
      await list();
      say(`kept as ${kept}`);
    } catch (error) { say(error.message); }
  }
  async function watch() {
    clearTimeout(timer);
    let found;
    try { found = await ask("photo/state"); } catch (error) { byId("upload-state").textContent = error.message; return; }
    byId("upload-state").textContent = found.state === "working" ? `${found.name}: ${found.line}` : found.line;
    if (found.state === "working") timer = setTimeout(watch, 700);
    else {
      byId("upload").disabled = false;
      if (found.state !== "done") return;
      const made = (await list()).find(({ face, own }) => own && face.photo === found.name);
      if (made) pick(made.face); // none where another domain was chosen meanwhile
    }
  }
  byId("upload").addEventListener("change", async () => {
    const [file] = byId("upload").files;
    if (!file) return;
    byId("upload").disabled = true;
    byId("upload-state").textContent = "uploading";
    try {
      await upload(file, { domain: shared.domain.name, file: file.name, aligned: byId("aligned").checked });
      await watch();
    } catch (error) {
      byId("upload-state").textContent = error.message;
      byId("upload").disabled = false;
    }
    byId("upload").value = "";
  });

  return {
    mark,
    async domainChanged() {
      byId("aligned").checked = byId("aligned").disabled = !shared.domain.finds_faces;
      byId("upload-state").textContent = "";
      await list();
    },
  };
}
