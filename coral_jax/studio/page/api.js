// Requests to the studio.  Each page has a session of its own; its token goes into a header that no other site can send.

let session = null;
const notice = document.getElementById("notice");
let hiding = 0;

export function say(text) {
  notice.textContent = text;
  notice.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { notice.hidden = true; }, 8000);
}

async function send(path, body, type) {
  const response = await fetch(`/api/${path}`, {
    method: "POST", body, headers: { "content-type": type, "x-studio-session": session ?? "" },
  }).catch(() => { throw new Error("the studio does not answer; is it still running?"); });
  if (!response.ok) {
    const content = await response.json().catch(() => ({}));
    if (response.status === 410 && session !== null) { session = null; location.reload(); }
    throw new Error(content.error ?? `the studio answered ${response.status}`);
  }
  return response;
}

const json = (path, content) => send(path, JSON.stringify(content ?? {}), "application/json");

export async function ask(path, content) {
  const response = await json(path, content);
  return response.status === 204 ? null : response.json();
}

export async function picture(path, content) {
  const response = await json(path, content);
  return response.status === 204 ? null : response.blob();
}

export const upload = (file, asked) => send(`photo/upload?${new URLSearchParams(asked)}`, file, "application/octet-stream");

export async function open() {
  const opened = await ask("open");
  session = opened.session;
  setInterval(() => ask("alive").catch(() => {}), 30000);
  addEventListener("pagehide", () => navigator.sendBeacon("/api/close", JSON.stringify({ session })));
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  return opened;
}

// An image's new content; the memory of the old one is freed.
export function show(image, blob) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
}

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Calls `work` with the newest of many requests, one at a time: a slider never waits for pictures that nobody needs.
export function newest(work) {
  let running = false, waiting = null;
  return async function call(...given) {
    if (running) { waiting = given; return; }
    running = true;
    try { await work(...given); } catch (error) { say(error.message); }
    running = false;
    if (waiting) { const next = waiting; waiting = null; call(...next); }
  };
}
