// The review page. Ticket texts are hostile: they go into text nodes, never into markup, and the page's policy forbids
// everything that markup could do.

const PAGE = 20;
const STATS_EVERY_MS = 15_000;
const KEY = "triaged-key";
const SVG = "http://www.w3.org/2000/svg";

const at = (id) => document.getElementById(id);
const state = { list: [], event: null, feedbackId: null, cursor: null, queues: [], busy: false, skipped: new Set() };

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(text, bad = false) {
  at("state").textContent = text;
  at("state").classList.toggle("bad", bad);
}

/* The server */

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(method, path, body) {
  const key = sessionStorage.getItem(KEY);
  const headers = { accept: "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const options = { method, headers, cache: "no-store", credentials: "omit", redirect: "error" };
  const response = await fetch(path, { ...options, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await response.text();
  let answer = null;
  try { answer = text ? JSON.parse(text) : null; } catch { answer = null; }
  if (!response.ok) {
    const why = answer?.detail ?? answer?.message ?? answer?.error ?? answer?.title ?? response.statusText;
    throw new Refused(response.status, typeof why === "string" ? why : JSON.stringify(why));
  }
  return answer;
}

function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [8, 12, 16, 20, 32].map((end, part) => hex.slice([0, 8, 12, 16, 20][part], end)).join("-");
}

/* The list of reviews */

async function load() {
  say("loading");
  state.cursor = null;
  state.list = [];
  await more();
  await next();
}

async function more() {
  const query = new URLSearchParams({ limit: String(PAGE) });
  if (state.cursor) query.set("cursor", state.cursor);
  const page = await ask("GET", `/v1/reviews?${query}`);
  state.list = page.events.filter((event) => !state.skipped.has(event.event_id));
  state.cursor = page.next_cursor ?? null;
}

/** Takes the first event that nobody else has. */
async function next() {
  state.event = null;
  for (;;) {
    if (state.list.length === 0 && state.cursor) await more();
    const event = state.list.shift();
    if (!event) {
      if (state.cursor) continue;
      show(null);
      say("nothing is waiting; r looks again");
      return;
    }
    try {
      await ask("POST", `/v1/reviews/${event.event_id}/claim`);
    } catch (error) {
      if (error.status === 409 || error.status === 404) continue;
      throw error;
    }
    state.event = event;
    state.feedbackId = newId();
    show(event);
    say(`${state.list.length}${state.cursor ? "+" : ""} more`);
    return;
  }
}

/* One event */

function show(event) {
  const answers = ["accept", "other", "skip"];
  for (const id of answers) at(id).disabled = !event;
  at("facts").replaceChildren();
  at("text").replaceChildren();
  at("choices").replaceChildren();
  at("reasons").textContent = "";
  at("predicted").textContent = event ? event.queue : "";
  at("note").value = "";
  at("difficulty").value = "";
  if (!event) return;
  const share = `${Math.round(event.confidence * 100)} %`;
  const facts = [event.kind, event.ticket_id, event.origin, event.occurred_at, event.priority, event.decided_by, share];
  at("facts").textContent = facts.filter(Boolean).join(" · ");
  at("text").append(...highlighted(event.text ?? "(the event has no text)", event.reasons ?? []));
  at("text").scrollTop = 0;
  const signals = (event.reasons ?? []).filter((reason) => reason.feature.startsWith("signal "));
  at("reasons").textContent = signals.map((reason) => reason.feature.slice(7)).join(", ");
  choices(event).forEach((choice, place) => at("choices").append(choiceItem(choice, place)));
}

/** The model's other answers first, then queues in order, nine in all. */
function choices(event) {
  const known = new Set([event.queue]);
  const found = [];
  const add = (queue, share) => {
    if (queue && !known.has(queue) && found.length < 9) {
      known.add(queue);
      found.push({ queue, share });
    }
  };
  for (const other of event.alternatives ?? []) {
    if (state.queues.length === 0 || state.queues.includes(other.label)) add(other.label, other.probability);
  }
  state.queues.forEach((queue) => add(queue));
  return found;
}

function choiceItem({ queue, share }, place) {
  const button = element("button", undefined, "choice");
  button.type = "button";
  button.append(element("kbd", String(place + 1)), ` ${queue}`);
  if (share !== undefined) button.append(element("span", `${Math.round(share * 100)} %`, "share"));
  button.addEventListener("click", () => correct(queue));
  const item = element("li");
  item.append(button);
  return item;
}

/** The text as nodes; words, pairs and letters that moved the model are marked. */
function highlighted(text, reasons) {
  const words = [...text.matchAll(/[\p{L}\p{N}_]+/gu)].map((found) => ({ from: found.index, word: found[0] }));
  const weights = new Float32Array(text.length);
  const mark = (from, length, weight) => {
    for (let place = from; place < from + length; place += 1) {
      if (Math.abs(weight) > Math.abs(weights[place])) weights[place] = weight;
    }
  };
  for (const { feature, weight } of reasons) {
    const [sort, first, second] = feature.toLowerCase().split(" ");
    words.forEach(({ from, word }, place) => {
      const lower = word.toLowerCase();
      if (sort === "word" && lower === first) mark(from, word.length, weight);
      if (sort === "letters" && lower.length === word.length && lower.includes(first)) {
        mark(from + lower.indexOf(first), first.length, weight);
      }
      const after = words[place + 1];
      if (sort === "pair" && after && lower === first && after.word.toLowerCase() === second) {
        mark(from, after.from + after.word.length - from, weight);
      }
    });
  }
  const nodes = [];
  for (let from = 0; from < text.length;) {
    let to = from + 1;
    while (to < text.length && weights[to] === weights[from]) to += 1;
    const part = text.slice(from, to);
    const weight = weights[from];
    nodes.push(weight === 0 ? document.createTextNode(part) : element("mark", part, weight < 0 ? "against" : ""));
    from = to;
  }
  return nodes;
}

/* Answers */

async function submit(answer) {
  const event = state.event;
  if (!event || state.busy) return;
  state.busy = true;
  say("sending");
  const feedback = { feedback_id: state.feedbackId, event_id: event.event_id, ...answer };
  const note = at("note").value.trim();
  if (note) feedback.notes = note;
  if (at("difficulty").value) feedback.difficulty = Number(at("difficulty").value);
  try {
    await ask("POST", "/v1/feedback", feedback);
    state.skipped.add(event.event_id);
    await next();
  } catch (error) {
    failed(error);
  } finally {
    state.busy = false;
  }
}

const accept = () => submit({ correct: true });
const correct = (queue) => submit({ corrected_queue: queue });

async function skip() {
  const event = state.event;
  if (!event || state.busy) return;
  state.busy = true;
  try {
    state.skipped.add(event.event_id);
    await ask("POST", `/v1/reviews/${event.event_id}/release`);
    await next();
  } catch (error) {
    failed(error);
  } finally {
    state.busy = false;
  }
}

function failed(error) {
  if (error.status === 401) {
    sessionStorage.removeItem(KEY);
    open();
  }
  say(error.message || "the server cannot be reached", true);
}

/* Another queue */

function pick() {
  if (!state.event) return;
  at("wanted").value = "";
  find();
  at("picker").showModal();
  at("wanted").focus();
}

function find() {
  const wanted = at("wanted").value.trim().toLowerCase();
  const found = state.queues.filter((queue) => queue.toLowerCase().includes(wanted)).slice(0, 12);
  at("found").replaceChildren(...found.map((queue, place) => {
    const item = choiceItem({ queue }, place);
    item.classList.toggle("first", place === 0);
    item.addEventListener("click", () => at("picker").close());
    return item;
  }));
  return found;
}

/* Charts */

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

function bars(rows) {
  const height = 18 * Math.max(rows.length, 1);
  const svg = shape("svg", { viewBox: `0 0 300 ${height}`, role: "img", "aria-label": "events by queue" });
  const most = Math.max(1, ...rows.map((row) => row.events));
  rows.forEach((row, place) => {
    const width = (110 * row.events) / most;
    svg.append(
      shape("text", { x: 140, y: place * 18 + 12, "text-anchor": "end" }, row.queue.slice(0, 22)),
      shape("rect", { class: "bar", x: 146, y: place * 18 + 3, width, height: 11 }),
      shape("text", { x: 150 + width, y: place * 18 + 12 }, String(row.events)),
    );
  });
  return svg;
}

function band(points) {
  const svg = shape("svg", { viewBox: "0 0 300 90", role: "img", "aria-label": "forecast of all queues" });
  const most = Math.max(1, ...points.map((point) => point.upper80 ?? point.mean));
  const x = (step) => 4 + (292 * step) / Math.max(points.length - 1, 1);
  const y = (value) => 80 - (70 * Math.max(value ?? 0, 0)) / most;
  const line = (name) => points.map((point, step) => `${x(step).toFixed(1)},${y(point[name] ?? point.mean).toFixed(1)}`);
  svg.append(
    shape("polygon", { class: "band", points: [...line("upper80"), ...line("lower80").reverse()].join(" ") }),
    shape("polyline", { class: "line", points: line("mean").join(" ") }),
    shape("text", { x: 4, y: 89 }, `${points[0].at.slice(5, 16).replace("T", " ")}, at most ${Math.round(most)}`),
  );
  return svg;
}

async function charts() {
  try {
    const [stats, queues] = await Promise.all([ask("GET", "/v1/stats"), ask("GET", "/v1/queues")]);
    const rows = queues.queues.map((row) => ({ queue: String(row.queue), events: Number(row.events) }));
    rows.sort((a, b) => b.events - a.events);
    const routed = Object.entries(stats.by_routing ?? {}).map(([name, events]) => `${name} ${events}`);
    const sum = element("p", [`${stats.events} in a day`, ...routed].join(", "), "note");
    at("counts").replaceChildren(sum, bars(rows.slice(0, 12)));
  } catch (error) {
    at("counts").replaceChildren(element("p", error.message, "note"));
  }
  try {
    const { forecasts } = await ask("GET", "/v1/forecasts?queue=*");
    const total = forecasts.find((forecast) => forecast.bucket_seconds === 3600) ?? forecasts[0];
    const points = total?.points ?? [];
    at("forecast").replaceChildren(points.length > 1 ? band(points) : element("p", "none yet", "note"));
  } catch (error) {
    at("forecast").replaceChildren(element("p", error.message, "note"));
  }
}

/* Keys */

const commands = {
  a: accept,
  "/": pick,
  s: skip,
  r: () => load().catch(failed),
  d: () => at("difficulty").focus(),
  n: () => at("note").focus(),
  "?": () => at("help").showModal(),
  q: () => { sessionStorage.removeItem(KEY); location.reload(); },
};

document.addEventListener("keydown", (pressed) => {
  if (pressed.ctrlKey || pressed.metaKey || pressed.altKey || at("desk").hidden) return;
  if (document.querySelector("dialog[open]")) return;
  const typing = pressed.target instanceof HTMLInputElement || pressed.target instanceof HTMLSelectElement;
  if (typing) {
    if (pressed.key === "Escape" || pressed.key === "Enter") pressed.target.blur();
    return;
  }
  const choice = at("choices").querySelectorAll("button")[Number(pressed.key) - 1];
  const command = commands[pressed.key] ?? (choice && (() => choice.click()));
  if (!command) return;
  pressed.preventDefault();
  command();
});

at("accept").addEventListener("click", accept);
at("other").addEventListener("click", pick);
at("skip").addEventListener("click", skip);
at("again").addEventListener("click", commands.r);
at("help-open").addEventListener("click", commands["?"]);
at("wanted").addEventListener("input", find);
at("picker").querySelector("form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const [first] = find();
  at("picker").close();
  if (first) correct(first);
});
at("login").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  sessionStorage.setItem(KEY, at("key").value.trim());
  at("key").value = "";
  open();
});

/* Start */

let timer = null;

async function open() {
  const hasKey = sessionStorage.getItem(KEY) !== null;
  at("login").hidden = hasKey;
  at("desk").hidden = !hasKey;
  clearInterval(timer);
  if (!hasKey) {
    at("key").focus();
    return;
  }
  try {
    const { queues } = await ask("GET", "/v1/reviews/queues");
    state.queues = queues.map(String);
    await load();
  } catch (error) {
    failed(error);
    return;
  }
  charts();
  timer = setInterval(charts, STATS_EVERY_MS);
}

open();
