// The page is rendered by the server; this keeps it up to date, sends its forms without leaving it, and shows the figures under the pointer.

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
root.classList.add("js");

// --- updating ---

// morph makes the children of `old` those of `next`, changing as little as possible: what has the focus, is being edited or is scrolled stays.
function morph(old, next) {
  let at = old.firstChild;
  for (let wanted = next.firstChild; wanted; wanted = wanted.nextSibling) {
    const match = find(at, wanted);
    if (match) {
      while (at !== match) at = drop(at);
      at = match.nextSibling;
      sync(match, wanted);
    } else {
      old.insertBefore(document.importNode(wanted, true), at);
    }
  }
  while (at) at = drop(at);
}

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

// find looks from `at` on for the node that `wanted` continues: of the same id, or the next one of the same kind without an id.
function find(at, wanted) {
  if (wanted.id) {
    for (let node = at; node; node = node.nextSibling) if (node.id === wanted.id) return node;
    return null;
  }
  return at && !at.id && at.nodeName === wanted.nodeName ? at : null;
}

function sync(old, next) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  if (old.isEqualNode(next) && !("value" in old)) return;
  for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name) && name !== "aria-busy" && name !== "data-dirty") old.removeAttribute(name);
  morph(old, next);
  if (old === document.activeElement || old.closest("form[data-dirty]")) return;
  if (old instanceof HTMLInputElement) {
    old.checked = next.checked;
    if (old.value !== next.value) old.value = next.value;
  } else if (old instanceof HTMLSelectElement) {
    if (old.value !== next.value) old.value = next.value;
  }
}

const held = new Set(); // parts that stand still because they are looked at
let seq = 0;
let boot = document.body.dataset.boot;
const late = new Map(); // what they would show

function apply(update) {
  if (update.boot !== boot) return location.reload(); // another process: it may serve another page
  seq = update.seq;
  document.title = update.title;
  for (const [name, html] of Object.entries(update.parts)) {
    if (held.has(name)) late.set(name, html);
    else show(name, html);
  }
}

function show(name, html) {
  const part = $("p-" + name);
  const parsed = document.createElement("template");
  parsed.innerHTML = html;
  morph(part, parsed.content);
  if (name === "traffic") point();
}

// A list that moves twice a second cannot be clicked: it stands still while the pointer or the focus is in it.
for (const name of ["orders", "events"]) {
  const part = $("p-" + name);
  const hold = () => { held.add(name); part.classList.add("held"); };
  const release = () => {
    if (part.matches(":hover") || part.contains(document.activeElement)) return;
    held.delete(name);
    part.classList.remove("held");
    if (late.has(name)) show(name, late.get(name));
    late.delete(name);
  };
  part.addEventListener("pointerenter", (e) => { if (e.pointerType === "mouse") hold(); });
  part.addEventListener("pointerleave", release);
  part.addEventListener("focusin", hold);
  part.addEventListener("focusout", () => setTimeout(release));
}

// --- the stream ---

let stream, poll;
const pause = $("pause");
pause.hidden = false;

function state(name, word) {
  $("live").dataset.state = name;
  $("live-word").textContent = word;
}

function start() {
  stream = new EventSource("live");
  stream.addEventListener("parts", (e) => { apply(JSON.parse(e.data)); state("live", "live"); });
  stream.onerror = () => {
    state("lost", "not connected");
    if (stream.readyState === EventSource.CLOSED) { // refused: too many viewers
      stop();
      poll = setInterval(refresh, 5000);
    }
  };
}

function stop() {
  stream?.close();
  stream = null;
  clearInterval(poll);
}

async function refresh() {
  try {
    const answer = await fetch("parts.json");
    if (!answer.ok) throw new Error(answer.statusText);
    apply(await answer.json());
    state(stream ? "live" : "polled", stream ? "live" : "every 5 s");
  } catch {
    state("lost", "not connected");
  }
}

pause.addEventListener("click", () => {
  const paused = !(pause.dataset.paused === "true");
  pause.dataset.paused = paused;
  pause.textContent = paused ? "Resume" : "Pause";
  pause.setAttribute("aria-label", paused ? "Resume live updates" : "Pause live updates");
  if (paused) {
    stop();
    state("paused", "paused");
  } else {
    start();
  }
});

addEventListener("pagehide", stop);
addEventListener("pageshow", (e) => { if (e.persisted && pause.dataset.paused !== "true") start(); });
start();

// --- forms ---

let toast;
function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = false;
  clearTimeout(toast);
  toast = setTimeout(() => { $("trouble").hidden = true; }, 6000);
}

document.addEventListener("submit", async (e) => {
  const form = e.target;
  e.preventDefault();
  const body = new URLSearchParams(new FormData(form, e.submitter));
  e.submitter?.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
    if (!answer.ok) {
      trouble((await answer.text()).trim());
      form.reset();
    }
  } catch {
    trouble("The shop does not answer.");
  } finally {
    e.submitter?.removeAttribute("aria-busy");
    delete form.dataset.dirty;
    if (!stream) refresh();
  }
});

// A form marked data-auto is sent when a field changes; until then the server's older values do not overwrite it.
document.addEventListener("input", (e) => {
  const form = e.target.form;
  if (!form?.matches("[data-auto]")) return;
  form.dataset.dirty = "";
  if (e.target.type === "range") form.querySelector("output").textContent = e.target.value + "/s";
});
document.addEventListener("change", (e) => {
  if (e.target.form?.matches("[data-auto]")) e.target.form.requestSubmit();
});

// --- orders ---

const opened = $("order");
let follow;

async function open(href, focus) {
  clearTimeout(follow);
  try {
    const answer = await fetch(href + "&part=1");
    if (!answer.ok) throw new Error("gone");
    const parsed = document.createElement("template");
    parsed.innerHTML = await answer.text();
    morph(opened, parsed.content);
  } catch {
    trouble("That order cannot be shown any more.");
    return;
  }
  opened.hidden = false;
  if (focus) {
    opened.querySelector("h2").focus({ preventScroll: true });
    opened.scrollIntoView({ block: "nearest" });
  }
  if (opened.querySelector("[data-open]")) follow = setTimeout(open, 1000, href, false);
}

document.addEventListener("click", (e) => {
  if (e.ctrlKey || e.metaKey || e.shiftKey || e.altKey) return;
  const order = e.target.closest(".list a");
  if (order) {
    e.preventDefault();
    open(order.getAttribute("href"), true);
    return;
  }
  if (e.target.closest("#order .close")) {
    clearTimeout(follow);
    opened.hidden = true;
    return;
  }
  const tab = e.target.closest(".tabs a");
  if (tab) {
    e.preventDefault();
    $("p-orders").dataset.show = tab.dataset.show;
  }
});

// --- figures under the pointer ---

const cross = Object.assign(document.createElement("div"), { className: "cross", hidden: true });
const tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
tip.setAttribute("role", "status");
let second = -1; // seconds before the end; -1: none is pointed at

const charts = () => document.querySelector(".charts");

function millis(text) {
  const ms = Number(text);
  return ms >= 1000 ? (ms / 1000).toFixed(2) + " s" : ms + " ms";
}

// point draws the line and the figures at `second`. Positions are set through the object model, which the policy on inline styles allows.
function point() {
  const figure = charts();
  if (!figure) return;
  const points = figure.dataset.points ? figure.dataset.points.split(";") : [];
  const gone = second < 0 || second >= points.length;
  cross.hidden = tip.hidden = gone;
  if (gone) return;
  const [offered, good, failed, p50, p99, age, depth] = points[points.length - 1 - second].split(",");
  const at = new Date(Date.parse(figure.dataset.end) - second * 1000);
  tip.textContent = `${at.toLocaleTimeString()} (${second} s before the end)\n${offered} offered, ${good} good, ${failed} failed\np50 ${millis(p50)}, p99 ${millis(p99)}\noutbox ${depth} waiting, oldest ${millis(age)}`;
  figure.append(cross, tip);
  const width = figure.querySelector(".plot svg").getBoundingClientRect().width;
  const left = width * (1 - second / 119);
  cross.style.left = left + "px";
  if (left > width / 2) {
    tip.style.left = "auto";
    tip.style.right = figure.clientWidth - left + 10 + "px";
  } else {
    tip.style.right = "auto";
    tip.style.left = left + 10 + "px";
  }
}

const traffic = $("p-traffic");
traffic.addEventListener("pointermove", (e) => {
  const figure = charts();
  if (!figure.contains(e.target)) return leave();
  const box = figure.querySelector(".plot svg").getBoundingClientRect();
  second = Math.round((1 - (e.clientX - box.left) / box.width) * 119);
  point();
});
function leave() { second = -1; point(); }
traffic.addEventListener("pointerleave", leave);
traffic.addEventListener("focusout", leave);
traffic.addEventListener("keydown", (e) => {
  if (e.key === "ArrowLeft") second = Math.min(second + 1, 118);
  else if (e.key === "ArrowRight") second = Math.max(second - 1, 0);
  else if (e.key === "Escape") second = -1;
  else return;
  e.preventDefault();
  point();
});
