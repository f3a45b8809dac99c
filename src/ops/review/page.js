// The review page. Ticket texts are hostile: they go into text nodes, never into markup, and the page's policy forbids
// everything that markup could do.

import { band, bars } from "./charts.js";
import { element, highlighted, visible } from "./text.js";

const PAGE = 20;
const STATS_EVERY_MS = 15_000;
const KEY = "triaged-key";

const at = (id) => document.getElementById(id);
const state = {
  list: [], event: null, feedbackId: null, cursor: null, busy: false, skipped: new Set(),
  queues: [], // what a correction may name
  used: [], // what had events lately, with counts by kind
};

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
  at("reasons").replaceChildren();
  at("predicted").textContent = event ? event.queue : "nothing to review";
  at("note").value = "";
  at("difficulty").value = "";
  if (!event) return;
  const share = `${Math.round(event.confidence * 100)} % sure`;
  const facts = [
    ["kind", event.kind], ["ticket", event.ticket_id], ["from", event.origin],
    ["occurred at", new Date(event.occurred_at).toLocaleString()], ["priority", event.priority],
    ["decided by", `${event.decided_by}, ${share}`],
  ];
  at("facts").append(...facts.filter(([, value]) => value).map(([name, value]) => fact(name, value)));
  const nodes = highlighted(event.text ?? "(the event has no text)", event.reasons ?? []);
  at("text").append(...nodes);
  at("text").scrollTop = 0;
  // So that arrows and page keys move a long text.
  if (document.activeElement === document.body) at("text").focus({ preventScroll: true });
  const signals = (event.reasons ?? []).filter((reason) => reason.feature.startsWith("signal "));
  const marks = nodes.some((node) => node.nodeName === "MARK");
  const legend = marks ? ["speaks ", element("mark", "for"), " or ", element("mark", "against", "against"), " the queue"] : [];
  const others = signals.map((reason) => `${reason.feature.slice(7)} ${reason.weight < 0 ? "against" : "for"} it`);
  at("reasons").append(...legend, marks && others.length > 0 ? "; " : "", others.join(", "));
  choices(event).forEach((choice, place) => at("choices").append(choiceItem(choice, place)));
}

/** What a ticket says of itself may run from right to left: `bdi` keeps that to itself. */
function fact(name, value) {
  const made = element("span", `${name} `);
  made.append(element("bdi", visible(String(value))));
  return made;
}

/** The model's other answers first, then the queues with most events of this kind, nine in all. */
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
  const events = new Map(state.used.map((row) => [row.queue, row.by_kind?.[event.kind] ?? 0]));
  const usual = [...state.queues].sort((a, b) => (events.get(b) ?? 0) - (events.get(a) ?? 0));
  usual.forEach((queue) => add(queue));
  return found;
}

function choiceItem({ queue, share }, place) {
  const button = element("button", undefined, "choice");
  button.type = "button";
  if (place !== undefined) button.append(element("kbd", String(place + 1)), " ");
  button.append(element("bdi", visible(queue)));
  if (share !== undefined) button.append(element("span", `${Math.round(share * 100)} %`, "share"));
  button.addEventListener("click", () => correct(queue));
  const item = element("li");
  item.append(button);
  return item;
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
    const asked = sessionStorage.getItem(KEY) === null;
    sessionStorage.removeItem(KEY);
    showLogin();
    if (asked) return say("");
  }
  say(error instanceof Refused ? error.message : "the server cannot be reached", true);
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
  // What begins with it comes before what only holds it.
  const place = (queue) => queue.toLowerCase().indexOf(wanted);
  const found = state.queues.filter((queue) => place(queue) >= 0).sort((a, b) => place(a) - place(b)).slice(0, 12);
  at("found").replaceChildren(...found.map((queue, place) => {
    const item = choiceItem({ queue });
    item.classList.toggle("first", place === 0);
    item.addEventListener("click", () => at("picker").close());
    return item;
  }));
  return found;
}

/* Charts */

async function charts() {
  try {
    const [stats, queues] = await Promise.all([ask("GET", "/v1/stats"), ask("GET", "/v1/queues")]);
    const rows = queues.queues.toSorted((a, b) => b.events - a.events);
    state.used = rows;
    const routed = Object.entries(stats.by_routing ?? {}).map(([name, events]) => `${name} ${events}`);
    const sum = element("p", [`${stats.events} events`, ...routed].join(", "), "note");
    at("counts").replaceChildren(sum, bars(rows.slice(0, 12)));
  } catch (error) {
    at("counts").replaceChildren(element("p", error.message, "note"));
  }
  try {
    const { forecasts } = await ask("GET", "/v1/forecasts?queue=*");
    const total = forecasts.find((forecast) => forecast.bucket_seconds === 3600) ?? forecasts[0];
    const known = (total?.points ?? []).length > 1;
    at("forecast").replaceChildren(known ? band(total) : element("p", "none yet", "note"));
  } catch (error) {
    at("forecast").replaceChildren(element("p", error.message, "note"));
  }
}

/* Keys */

const commands = {
  a: accept,
  "/": pick,
  s: skip,
  r: () => state.busy || open(),
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

function showLogin() {
  clearInterval(timer);
  at("desk").hidden = true;
  at("login").hidden = false;
  at("key").focus();
}

/** Asks for a key only where the server does. */
async function open() {
  try {
    const { queues } = await ask("GET", "/v1/reviews/queues");
    state.queues = queues.map(String);
    at("login").hidden = true;
    at("desk").hidden = false;
    clearInterval(timer);
    timer = setInterval(charts, STATS_EVERY_MS);
    await charts();
    await load();
  } catch (error) {
    failed(error);
  }
}

show(null);
open();
