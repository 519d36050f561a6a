// The Learn tab: a prompt becomes an edit, in a process of its own.

import { ask, element, newest, picture, say, show } from "./api.js";

const byId = (id) => document.getElementById(id);
const COLOURS = { loss: "#d9533a", clip: "#2f6fed" };

function clock(seconds) {
  if (seconds === null) return "unknown";
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return (hours ? `${hours}:${String(minutes).padStart(2, "0")}` : `${minutes}`) + `:${String(whole % 60).padStart(2, "0")}`;
}

export function makeLearn(shared, { seeds, learned }) {
  const cards = new Map(); // by name: {card, sheet, states}
  let timer = 0, typing = 0, visible = false;
  let ownSteps = false; // whether the number of steps was typed

  // ---- before it starts ----

  const wish = () => ({
    domain: shared.domain.name, prompt: byId("prompt").value, method: byId("method").value,
    steps: byId("steps").value === "" ? null : Number(byId("steps").value), seeds: seeds(),
  });
  const plan = newest(async () => {
    const warning = byId("unknown"), expected = byId("expected"), asking = wish();
    const named = Boolean(asking.prompt.trim());
    if (!named) {
      warning.hidden = true;
      expected.textContent = "Type a prompt; the time it takes is shown here before it starts.";
      if (ownSteps) return;
      asking.prompt = "face"; // for the method's own number of steps
    }
    if (!ownSteps) asking.steps = null;
    try {
      const found = await ask("learn/plan", asking);
      if (!ownSteps) byId("steps").value = found.steps;
      if (!named) return;
      warning.hidden = !found.unknown.length;
      warning.textContent = `An edit would mean nothing: the CLIP of ${shared.domain.name} never saw ${found.unknown.join(", ")}`;
      expected.textContent = found.seconds === null
        ? `${found.steps} steps; how long is not known yet (${found.from}).`
        : `${found.steps} steps, about ${clock(found.seconds)} (${found.from}).`;
    } catch (error) { expected.textContent = error.message; }
  });
  function planSoon() { clearTimeout(typing); typing = setTimeout(plan, 250); }
  function planAnew() { ownSteps = false; return plan(); }
  byId("prompt").addEventListener("input", planSoon);
  byId("steps").addEventListener("input", () => { ownSteps = true; planSoon(); });
  byId("method").addEventListener("change", planAnew);
  byId("learn-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    byId("start").disabled = true;
    try { await ask("learn/start", wish()); await update(); } catch (error) { say(error.message); }
    byId("start").disabled = false;
  });

  // ---- while it learns ----

  function make(name) {
    const card = element("article", { class: "training", "data-name": name });
    const sheet = element("img", { alt: "Faces before and after the edit so far", hidden: "" });
    cards.set(name, { card, sheet, stamp: 0, state: null });
    return cards.get(name);
  }
  function control(name, action, text) {
    return element("button", { "data-action": action, onclick: async () => {
      try { await ask("learn/control", { name, action }); await update(); } catch (error) { say(error.message); }
    } }, text);
  }
  function fillCard(entry, one) {
    const running = one.state === "learning" || one.state === "starting";
    const buttons = running ? [control(one.name, "pause", "Pause"), control(one.name, "stop", "Stop")]
      : one.state === "paused" ? [control(one.name, "go_on", "Go on"), control(one.name, "stop", "Stop")]
      : one.state === "stopped" ? [control(one.name, "go_on", "Go on")] : [];
    const left = one.seconds_left === null || one.state !== "learning" ? "" : `, ${clock(one.seconds_left)} left`;
    const canvas = element("canvas", {});
    const legend = element("div", { class: "legend" });
    for (const [name, title] of [["loss", "loss"], ["clip", "distance of picture and prompt"]]) {
      const bar = element("i");
      bar.style.background = COLOURS[name];
      legend.append(element("span", {}, bar, title));
    }
    entry.card.replaceChildren(
      element("div", { class: "row" }, element("strong", {}, one.prompt), element("span", { class: `state ${one.state}` }, one.state),
        element("span", { class: "grow" }), ...buttons),
      element("div", { class: "hint" }, `${one.method} on ${one.domain}, ${one.name}: step ${one.step} of ${one.steps}${left}`),
      element("progress", { max: one.steps, value: one.step }),
      ...(one.error ? [element("p", { class: "warning" }, one.error)] : []),
      ...(one.curves.step.length > 1 ? [canvas, legend] : []), entry.sheet);
    if (one.curves.step.length > 1) requestAnimationFrame(() => curve(canvas, one)); // when it has its width
  }
  addEventListener("resize", () => { for (const entry of cards.values()) if (entry.text) fillCard(entry, JSON.parse(entry.text)); });
  function curve(canvas, one) {
    const ratio = devicePixelRatio, width = canvas.clientWidth || 600, height = 150;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const all = [...one.curves.loss, ...one.curves.clip];
    const low = Math.min(...all), high = Math.max(...all), span = high - low || 1;
    context.font = "11px system-ui";
    for (const share of [0, 0.5, 1]) {
      const y = 8 + (height - 26) * share;
      context.fillStyle = "#e0e2e8";
      context.fillRect(40, y, width - 48, 1);
      context.fillStyle = "#6a6f7c";
      context.fillText((high - share * span).toFixed(2), 4, y + 4);
    }
    context.fillText("0", 40, height - 3);
    context.fillText(String(one.steps), width - 8 - 7 * String(one.steps).length, height - 3);
    for (const name of ["loss", "clip"]) {
      context.beginPath();
      one.curves[name].forEach((value, index) => {
        context.lineTo(40 + one.curves.step[index] / one.steps * (width - 48), 8 + (high - value) / span * (height - 26));
      });
      [context.strokeStyle, context.lineWidth] = [COLOURS[name], 2];
      context.stroke();
    }
  }
  async function update() {
    const { trainings } = await ask("learn/trainings");
    byId("no-trainings").hidden = trainings.length > 0;
    for (const one of trainings) {
      const entry = cards.get(one.name) ?? make(one.name);
      const text = JSON.stringify(one);
      if (text !== entry.text) fillCard(entry, one);
      entry.text = text;
      if (one.sheet !== entry.stamp) {
        entry.stamp = one.sheet;
        const blob = await picture("learn/live", { name: one.name });
        entry.sheet.hidden = blob === null;
        if (blob) show(entry.sheet, blob);
      }
      if (entry.state && entry.state !== "finished" && one.state === "finished") {
        say(`${one.prompt} is learned; the Edit tab has it`);
        await learned();
      }
      entry.state = one.state;
    }
    const names = trainings.map((one) => one.name);
    for (const name of cards.keys()) if (!names.includes(name)) { cards.get(name).card.remove(); cards.delete(name); }
    const order = names.map((name) => cards.get(name).card);
    if (order.some((card, index) => byId("trainings").children[index] !== card)) byId("trainings").replaceChildren(...order);
    return trainings.some((one) => ["learning", "starting", "paused"].includes(one.state));
  }
  async function watch() {
    clearTimeout(timer);
    let active = false;
    try { active = await update(); } catch (error) { say(error.message); }
    if (visible || active) timer = setTimeout(watch, visible ? 1000 : 5000);
  }

  return {
    async domainChanged() {
      byId("method").replaceChildren(...shared.domain.methods.map((name) => new Option(name)));
      byId("method").value = shared.domain.methods.includes("attention_mapper") ? "attention_mapper" : shared.domain.methods[0];
      await planAnew();
    },
    shown(now) { visible = now; if (now) watch(); },
  };
}
