// The page: its tabs, and what they share.

import { ask, open, say } from "./api.js";
import { makeEdit } from "./edit.js";
import { makeLearn } from "./learn.js";
import { makeCompare } from "./compare.js";

const domains = document.getElementById("domain");
const tabs = ["edit", "learn", "compare"];

async function start() {
  const opened = await open();
  const shared = { domain: null, edits: opened.edits };
  const edit = makeEdit(shared);
  const learn = makeLearn(shared, { seeds: edit.seeds, learned: async () => { await refresh(); } });
  const compare = makeCompare(shared, { openEdit: async (name) => { await refresh(); if (await edit.open(name, choose)) pick("edit"); } });

  async function refresh() {
    shared.edits = (await ask("shelf")).edits;
    edit.shelfChanged();
  }
  function pick(name) {
    for (const tab of tabs) {
      document.getElementById(tab).hidden = tab !== name;
      document.getElementById(`tab-${tab}`).setAttribute("aria-selected", String(tab === name));
    }
    learn.shown(name === "learn");
    if (name === "compare") compare.shown();
  }
  let wished = ""; // the domain chosen last: others may still be loading
  async function choose(name) {
    wished = name;
    const domain = await ask("domain", { domain: name });
    if (name !== wished) return;
    shared.domain = domain;
    domains.value = name;
    await Promise.all([edit.domainChanged(), learn.domainChanged()]);
  }

  for (const tab of tabs) document.getElementById(`tab-${tab}`).addEventListener("click", () => pick(tab));
  for (const name of opened.domains) domains.append(new Option(name));
  domains.addEventListener("change", () => choose(domains.value).catch((error) => say(error.message)));
  const wanted = decodeURIComponent(location.hash.slice(1)); // a link such as http://127.0.0.1:7860/#faces
  await choose(opened.domains.includes(wanted) ? wanted : opened.domains[0]);
}

start().catch((error) => say(error.message));
