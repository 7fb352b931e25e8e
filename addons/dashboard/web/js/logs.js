// Logs of a container, as they are written.

import { KINDS } from "./kinds.js";
import { lines, pathOf } from "./api.js";
import { fill, h } from "./dom.js";

const MOST = 5000;

/** Names of a Pod's containers. */
export function containersOf(pod) {
  const { initContainers = [], containers = [], ephemeralContainers = [] } = pod.spec;
  return [...containers, ...initContainers, ...ephemeralContainers].map((container) => container.name);
}

/** Shows logs in `place` until the signal. */
export function showLogs(place, pod, signal) {
  const text = h("pre", { class: "text logs wrap", tabindex: "0" });
  const container = h("select", { "aria-label": "Container", onchange: () => start() },
    containersOf(pod).map((name) => h("option", {}, name)));
  const previous = h("input", { type: "checkbox", id: "previous", onchange: () => start() });
  const stamps = h("input", { type: "checkbox", id: "stamps", onchange: () => start() });
  const wrap = h("input", { type: "checkbox", id: "wrap", checked: true,
    onchange: () => text.classList.toggle("wrap", wrap.checked) });
  const state = h("span", { class: "live" });
  fill(place, h("div", { class: "bar" }, container,
    previous, h("label", { for: "previous" }, "Previous"), stamps, h("label", { for: "stamps" }, "Timestamps"),
    wrap, h("label", { for: "wrap" }, "Wrap"), h("span", { class: "space" }), state), text);

  let running = new AbortController();
  let waiting = [];
  let scheduled = false;
  const flush = () => {
    scheduled = false;
    const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 20;
    text.append(...waiting.map((line) => document.createTextNode(`${line}\n`)));
    waiting = [];
    while (text.childNodes.length > MOST) text.firstChild.remove();
    if (atEnd) text.scrollTop = text.scrollHeight;
  };
  const add = (line) => {
    waiting.push(line);
    if (waiting.length > MOST) waiting.shift();
    if (!scheduled) {
      scheduled = true;
      requestAnimationFrame(flush);
    }
  };
  const start = async () => {
    running.abort();
    running = new AbortController();
    const own = AbortSignal.any([signal, running.signal]);
    fill(text);
    waiting = [];
    const query = new URLSearchParams({ container: container.value, tailLines: 1000, follow: !previous.checked,
      previous: previous.checked, timestamps: stamps.checked });
    state.dataset.state = "live";
    state.textContent = "following";
    try {
      const path = pathOf(KINDS.get("pods"), pod.metadata.namespace, pod.metadata.name, "log");
      for await (const line of lines(`${path}?${query}`, { accept: "*/*", signal: own })) add(line);
      if (!own.aborted) state.textContent = "ended";
    } catch (error) {
      if (own.aborted) return;
      state.textContent = error.message;
    }
    delete state.dataset.state;
  };
  start();
}
