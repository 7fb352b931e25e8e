// A live table of any kind.

import { follow } from "./api.js";
import { age, fill, h, message, tone } from "./dom.js";
import { linkTo } from "./kinds.js";

const SHOWN = 500;

/** Shows a table in `place` until the signal. Returns what keys do. */
export function showList(place, kind, namespace, signal) {
  const rows = new Map();
  let columns = [];
  let filter = "";
  let sort = { column: 0, down: false };
  let selected = -1;
  let visible = [];
  let wide = false;
  let cut = false;
  let drawing = false;

  const live = h("span", { class: "live", "data-state": "waiting" }, "loading");
  const count = h("span", { class: "faint" });
  const search = h("input", { type: "search", placeholder: "Filter  ( / )", "aria-label": "Filter",
    oninput: () => { filter = search.value.toLowerCase(); draw(); } });
  const more = h("button", { type: "button", onclick: () => { wide = !wide; draw(); } }, "Columns");
  const head = h("thead");
  const body = h("tbody");
  const problem = h("div");
  fill(place, h("h1", {}, kind.title),
    h("div", { class: "bar" }, search, more, count, h("span", { class: "space" }), live), problem,
    h("div", { class: "scroll" }, h("table", {}, head, body)));

  const draw = () => {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => { drawing = false; render(); });
  };

  const cellText = (row, index) => {
    if (index < 0) return row.object.metadata.namespace ?? "";
    const value = row.cells[index];
    const isAge = columns[index]?.name === "Age" && row.object.metadata.creationTimestamp;
    return isAge ? age(row.object.metadata.creationTimestamp) : value == null ? "" : String(value);
  };

  const order = (index) => (a, b) => {
    if (columns[index]?.name === "Age") {
      return Date.parse(b.object.metadata.creationTimestamp) - Date.parse(a.object.metadata.creationTimestamp);
    }
    return cellText(a, index).localeCompare(cellText(b, index), undefined, { numeric: true });
  };

  const render = () => {
    const shown = columns.map((column, index) => ({ ...column, index })).filter((column) => wide || !column.priority);
    if (kind.namespaced && !namespace) shown.unshift({ name: "Namespace", index: -1 });
    fill(head, h("tr", {}, shown.map((column) => h("th", { scope: "col" },
      h("button", { type: "button", onclick: () => {
        sort = { column: column.index, down: sort.column === column.index && !sort.down };
        draw();
      } }, column.name, sort.column === column.index ? (sort.down ? " ▾" : " ▴") : "")))));
    const all = [...rows.values()].filter((row) => !filter
      || shown.some((column) => cellText(row, column.index).toLowerCase().includes(filter)));
    all.sort(order(sort.column));
    if (sort.down) all.reverse();
    visible = all.slice(0, SHOWN);
    selected = Math.min(selected, visible.length - 1);
    fill(body, visible.map((row, number) => h("tr", { "aria-selected": number === selected ? "true" : null },
      shown.map((column) => cell(row, column)))));
    const total = `${all.length}${cut ? "+" : ""}`;
    count.textContent = all.length > SHOWN ? `first ${SHOWN} of ${total}` : total;
  };

  const cell = (row, column) => {
    const text = cellText(row, column.index);
    const { name, namespace: own } = row.object.metadata;
    const content = column.index === 0 ? h("a", { href: linkTo(kind, own, name) }, text) : text;
    return h("td", { class: tone(text), title: text.length > 40 ? text : null }, content);
  };

  follow(kind, namespace, {
    signal,
    reset: (table) => {
      columns = table.columnDefinitions ?? [];
      cut = table.cut;
      rows.clear();
      table.rows.forEach((row) => rows.set(row.object.metadata.uid, row));
      fill(problem);
      draw();
    },
    change: (type, row) => {
      if (type === "DELETED") rows.delete(row.object.metadata.uid);
      else rows.set(row.object.metadata.uid, row);
      draw();
    },
    state: (state, error) => {
      live.dataset.state = state;
      live.textContent = state === "live" ? "live" : state === "waiting" ? "connecting" : "";
      if (state === "failed") fill(problem, message("bad", error.message));
    },
  });
  const clock = setInterval(draw, 10000);
  signal.addEventListener("abort", () => clearInterval(clock));

  const move = (by) => {
    selected = Math.max(0, Math.min(visible.length - 1, selected + by));
    render();
    body.children[selected]?.scrollIntoView({ block: "nearest" });
  };
  return {
    "/": () => search.focus(),
    j: () => move(1),
    k: () => move(-1),
    Enter: () => {
      const row = visible[selected];
      if (row) location.hash = linkTo(kind, row.object.metadata.namespace, row.object.metadata.name);
    },
  };
}
