// A shell in a container.

import { pathOf, tokenProtocol } from "./api.js";
import { fill, h } from "./dom.js";
import { KINDS } from "./kinds.js";
import { containersOf } from "./logs.js";
import { Screen, keyBytes } from "./screen.js";

const [STDIN, STDOUT, STDERR, FAILURE, RESIZE] = [0, 1, 2, 3, 4];

/** Shows a terminal in `place` until the signal. */
export function showExec(place, pod, signal) {
  const container = h("select", { "aria-label": "Container" }, containersOf(pod).map((name) => h("option", {}, name)));
  const command = h("input", { value: "/bin/sh", "aria-label": "Command", size: 24 });
  const state = h("span", { class: "live" });
  const output = h("div", { class: "screen", tabindex: "0", role: "textbox", "aria-label": "Terminal" });
  fill(place, h("form", { class: "bar", onsubmit: (event) => { event.preventDefault(); start(); } },
    container, command, h("button", { type: "submit", class: "primary" }, "Connect"), h("span", { class: "space" }), state),
  output);

  let socket = null;
  let screen = new Screen();
  const encoder = new TextEncoder();
  const draw = () => {
    const before = screen.lines.slice(0, screen.row).map((line) => `${line}\n`).join("");
    const line = (screen.lines[screen.row] ?? "").padEnd(screen.column + 1);
    const after = screen.lines.slice(screen.row + 1).map((text) => `\n${text}`).join("");
    fill(output, before, line.slice(0, screen.column), h("span", { class: "cursor" }, line[screen.column]),
      line.slice(screen.column + 1), after);
    output.scrollTop = output.scrollHeight;
  };
  const sendTo = (channel, bytes) => {
    if (socket?.readyState !== WebSocket.OPEN) return;
    const frame = new Uint8Array(bytes.length + 1);
    frame[0] = channel;
    frame.set(bytes, 1);
    socket.send(frame);
  };
  const start = () => {
    socket?.close();
    screen = new Screen();
    const query = new URLSearchParams({ container: container.value, stdin: true, stdout: true, tty: true });
    command.value.trim().split(/\s+/).forEach((word) => query.append("command", word));
    const path = pathOf(KINDS.get("pods"), pod.metadata.namespace, pod.metadata.name, "exec");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(`${scheme}://${location.host}${path}?${query}`,
      ["v5.channel.k8s.io", "v4.channel.k8s.io", tokenProtocol()]);
    socket.binaryType = "arraybuffer";
    const decoder = new TextDecoder();
    const own = socket;
    state.textContent = "connecting";
    socket.onopen = () => {
      state.dataset.state = "live";
      state.textContent = "connected";
      const size = { Width: Math.floor(output.clientWidth / 8), Height: Math.floor(output.clientHeight / 18) };
      sendTo(RESIZE, encoder.encode(JSON.stringify(size)));
      output.focus();
    };
    socket.onmessage = (event) => {
      const bytes = new Uint8Array(event.data);
      const data = bytes.subarray(1);
      if (bytes[0] === STDOUT || bytes[0] === STDERR) screen.write(decoder.decode(data, { stream: true }));
      if (bytes[0] === FAILURE) {
        const status = JSON.parse(new TextDecoder().decode(data));
        if (status.status !== "Success") screen.write(`\r\n${status.message}\r\n`);
      }
      draw();
    };
    socket.onclose = () => {
      if (own !== socket) return;
      delete state.dataset.state;
      state.textContent = "closed";
    };
    draw();
  };
  output.addEventListener("keydown", (event) => {
    event.stopPropagation();
    const bytes = keyBytes(event);
    if (bytes === null) return;
    event.preventDefault();
    sendTo(STDIN, encoder.encode(bytes));
  });
  output.addEventListener("paste", (event) => {
    event.preventDefault();
    sendTo(STDIN, encoder.encode(event.clipboardData.getData("text").replace(/\r?\n/g, "\r")));
  });
  signal.addEventListener("abort", () => socket?.close());
}
