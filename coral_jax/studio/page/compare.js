// The Compare tab: what evaluations found.

import { ask, element, newest, picture, show } from "./api.js";

const byId = (id) => document.getElementById(id);

export function makeCompare(shared, { openEdit }) {
  let known = [];

  const present = () => known.find((one) => one.name === byId("evaluation").value);
  const picked = (id) => [...byId(id).querySelectorAll("input:checked")].map((box) => box.value);

  function checks(id, values) {
    byId(id).replaceChildren(...values.map((value) => {
      const box = element("input", { type: "checkbox", value, onchange: () => draw() });
      box.checked = true;
      return element("label", {}, box, value);
    }));
  }
  function choose() {
    const one = present();
    checks("methods", one?.methods ?? []);
    checks("prompts", one?.prompts ?? []);
    draw();
  }
  const draw = newest(async () => {
    const name = byId("evaluation").value;
    if (!name) return;
    const methods = picked("methods"), prompts = picked("prompts");
    const table = await ask("compare/table", { name, methods, prompts });
    const heads = ["method", "prompt", ...table.columns.map((column) => column.title), ""];
    const head = element("tr", {}, ...heads.map((title, index) => element("th", { title: table.columns[index - 2]?.meaning ?? "" }, title)));
    const rows = table.rows.map((row) => element("tr", { class: row.edit ? null : "mean" },
      element("td", {}, row.method), element("td", {}, row.prompt),
      ...row.cells.map((cell) => element("td", { class: cell.best ? "best" : null }, cell.text)),
      element("td", {}, row.edit ? element("button", { "data-edit": row.edit, onclick: () => openEdit(row.edit) }, "Open in Edit") : "")));
    byId("table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
    const images = table.prompts.map((prompt) => element("img", { alt: `Faces edited to ${prompt}`, "data-prompt": prompt }));
    byId("sheets").replaceChildren(...images);
    for (const image of images) show(image, await picture("compare/sheet", { name, methods, prompt: image.dataset.prompt }));
  });
  byId("evaluation").addEventListener("change", choose);

  return {
    async shown() {
      const before = byId("evaluation").value, names = JSON.stringify(known);
      known = (await ask("compare/evaluations")).evaluations;
      byId("no-evaluations").hidden = known.length > 0;
      if (JSON.stringify(known) === names) return;
      byId("evaluation").replaceChildren(...known.map((one) => new Option(`${one.name} (${one.domain})`, one.name)));
      if (known.some((one) => one.name === before)) byId("evaluation").value = before;
      choose();
    },
  };
}
