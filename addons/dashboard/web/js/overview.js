// The first page: how much there is, and what is wrong.

import { follow, table } from "./api.js";
import { age, fill, h, message } from "./dom.js";
import { KINDS } from "./kinds.js";

const CARDS = ["nodes", "pods", "deployments", "statefulsets", "daemonsets", "jobs", "services", "ingresses",
  "persistentvolumeclaims", "configmaps"];
const WARNINGS = 30;

/** Says how many of a kind are as they should be, by the columns of its table. */
function summary(kind, whole) {
  const column = (name) => whole.columnDefinitions.findIndex((definition) => definition.name === name);
  const [ready, status] = [column("Ready"), column("Status")];
  const good = whole.rows.filter((row) => {
    if (kind.resource === "nodes") return String(row.cells[status]).split(",")[0] === "Ready";
    if (kind.resource === "pods") return ["Running", "Completed", "Succeeded"].includes(row.cells[status]);
    const counts = String(row.cells[ready]).split("/");
    if (counts.length === 2) return counts[0] === counts[1];
    return status < 0 || ["Bound", "Complete", "Running"].includes(row.cells[status]);
  }).length;
  return { total: whole.rows.length, bad: whole.rows.length - good, cut: whole.cut };
}

async function card(resource, namespace, signal) {
  const kind = KINDS.get(resource);
  const place = h("a", { class: "card", href: `#/list/${resource}` }, h("b", {}, "…"), kind.title);
  table(kind, namespace, { signal }).then((whole) => {
    const { total, bad, cut } = summary(kind, whole);
    fill(place, h("b", {}, `${total}${cut ? "+" : ""}`), kind.title, " ",
      bad > 0 && h("span", { class: "warn" }, `${bad} not ready`));
  }).catch((error) => {
    if (!signal.aborted) fill(place, h("b", { class: "faint" }, "–"), kind.title, h("div", { class: "faint" }, error.reason));
  });
  return place;
}

/** Shows the page in `place` until the signal. */
export async function showOverview(place, namespace, signal) {
  const body = h("tbody");
  const problem = h("div");
  const cards = h("div", { class: "cards" });
  fill(place, h("h1", {}, namespace ? `Overview of ${namespace}` : "Overview"), cards,
    h("h1", {}, "Warnings"), problem,
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Age", "Object", "Reason", "Message"].map((name) => h("th", {}, name)))), body)));
  fill(cards, await Promise.all(CARDS.map((resource) => card(resource, namespace, signal))));

  const events = new Map();
  const draw = () => {
    const all = [...events.values()].sort((a, b) =>
      Date.parse(b.object.metadata.creationTimestamp) - Date.parse(a.object.metadata.creationTimestamp));
    fill(body, all.slice(0, WARNINGS).map((row) => h("tr", {},
      h("td", {}, age(row.object.metadata.creationTimestamp)), h("td", {}, String(row.object_ ?? "")),
      h("td", { class: "warn" }, String(row.reason ?? "")), h("td", { title: String(row.message ?? "") }, String(row.message ?? "")))));
    if (all.length === 0) fill(body, h("tr", {}, h("td", { class: "faint", colspan: 4 }, "none")));
  };
  let columns = [];
  const keep = (row) => {
    const cell = (name) => row.cells[columns.findIndex((column) => column.name === name)];
    Object.assign(row, { object_: cell("Object"), reason: cell("Reason"), message: cell("Message") });
    events.set(row.object.metadata.uid, row);
  };
  follow(KINDS.get("events"), namespace, {
    selector: "type=Warning",
    signal,
    reset: (whole) => {
      columns = whole.columnDefinitions ?? [];
      events.clear();
      whole.rows.forEach(keep);
      draw();
    },
    change: (type, row) => {
      if (type === "DELETED") events.delete(row.object.metadata.uid);
      else keep(row);
      draw();
    },
    state: (state, error) => state === "failed" && fill(problem, message("bad", error.message)),
  });
  return {};
}
