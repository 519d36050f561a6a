// The user's own photographs: uploaded, inverted, picked, kept.

import { ask, element, say, upload } from "./api.js";

const byId = (id) => document.getElementById(id);

export function makePhotos(shared, { present, pick }) {
  let timer = 0;

  async function list() {
    const { photos } = await ask("photos", { domain: shared.domain.name });
    byId("photos").replaceChildren(...photos.map(({ name, own }) => element("div", { class: "row" },
      element("button", { class: "pick", "data-photo": name, "aria-pressed": String(present() === name), onclick: () => { pick(name); mark(); } }, name),
      ...(own ? [element("button", { title: "Put it into the folder of photos, where recipes find it", onclick: () => keep(name) }, "keep")] : []))));
  }
  function mark() {
    for (const button of byId("photos").querySelectorAll(".pick")) {
      button.setAttribute("aria-pressed", String(button.dataset.photo === present()));
    }
  }
  async function keep(name) {
    try {
      const kept = (await ask("photo/keep", { name })).name;
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
      if (found.state === "done") { await list(); pick(found.name); mark(); }
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
