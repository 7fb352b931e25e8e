// One object: facts, YAML, events, logs, a shell, and what can be done to it.

import { follow, json, pathOf, send } from "./api.js";
import { age, ask, fill, h, message, tone } from "./dom.js";
import { KINDS, kindNamed, linkTo } from "./kinds.js";
import { showExec } from "./exec.js";
import { showLogs } from "./logs.js";
import { yaml } from "./yaml.js";

const MANAGER = "fieldManager=timonel-dashboard";
const SCALED = ["deployments", "statefulsets", "replicasets"];
const RESTARTED = ["deployments", "statefulsets", "daemonsets"];
const HIDDEN = "••••••";

function facts(kind, object) {
  const { metadata, status = {} } = object;
  const chips = (all) => Object.entries(all ?? {}).map(([key, value]) => h("span", { class: "chip" }, value ? `${key}=${value}` : key));
  const owners = (metadata.ownerReferences ?? []).map((owner) => {
    const known = kindNamed(owner.kind);
    return known ? h("a", { href: linkTo(known, metadata.namespace, owner.name) }, `${owner.kind} ${owner.name}`) : `${owner.kind} ${owner.name}`;
  });
  const conditions = (status.conditions ?? []).map((condition) =>
    h("div", { title: condition.message ?? null }, h("span", { class: tone(condition.status) }, `${condition.type}=${condition.status}`), " ",
      h("span", { class: "faint" }, condition.reason ?? "")));
  const entries = [
    ["Namespace", metadata.namespace], ["Created", metadata.creationTimestamp && `${metadata.creationTimestamp} (${age(metadata.creationTimestamp)} ago)`],
    ["Labels", chips(metadata.labels)], ["Owner", owners], ["Phase", status.phase],
    ["Node", object.spec?.nodeName && h("a", { href: linkTo(KINDS.get("nodes"), "", object.spec.nodeName) }, object.spec.nodeName)],
    ["Addresses", status.podIP ?? object.spec?.clusterIP], ["Conditions", conditions],
  ].filter(([, value]) => value && (!Array.isArray(value) || value.length));
  return h("dl", { class: "facts" }, entries.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/** Shows an object in `place` until the signal. Returns what keys do. */
export async function showDetail(place, kind, namespace, name, tab, signal) {
  const path = pathOf(kind, namespace, name);
  const notice = h("div");
  const content = h("div");
  let object;
  const load = async () => { object = await json(path, { signal }); };
  const tell = (type, text) => fill(notice, message(type, text));
  const attempt = async (work, done) => {
    try {
      await work();
      await load();
      tell("good", done);
      draw();
    } catch (error) {
      if (!signal.aborted) tell("bad", error.message);
    }
  };
  const patch = (body, subresource = "", type = "application/merge-patch+json") =>
    send(`${path}${subresource && `/${subresource}`}?${MANAGER}`, { method: "PATCH", body, type });

  const scale = async () => {
    const input = h("input", { type: "number", min: 0, required: true, value: object.spec.replicas ?? 1 });
    const replicas = await ask(`Scale ${name}`, h("label", {}, "Replicas ", input), "Scale", () => Number(input.value));
    if (replicas !== null) attempt(() => patch({ spec: { replicas } }, "scale"), `Scaled to ${replicas}.`);
  };
  const restart = async () => {
    if (!await ask(`Restart ${name}?`, "Its Pods are replaced, a few at a time.", "Restart", () => true)) return;
    const annotations = { "kubectl.kubernetes.io/restartedAt": new Date().toISOString() };
    attempt(() => patch({ spec: { template: { metadata: { annotations } } } }), "Restarting.");
  };
  const cordon = () => {
    const unschedulable = !object.spec.unschedulable;
    attempt(() => patch({ spec: { unschedulable } }), unschedulable ? "No Pods will be placed here." : "Pods may be placed here again.");
  };
  const remove = async () => {
    if (!await ask(`Delete ${kind.kind} ${name}?`, "This cannot be undone.", "Delete", () => true)) return;
    try {
      await send(path, { method: "DELETE", body: { apiVersion: "v1", kind: "DeleteOptions", propagationPolicy: "Background" } });
      location.hash = `#/list/${kind.resource}`;
    } catch (error) {
      tell("bad", error.message);
    }
  };

  const tabs = [["", "Summary"], ["yaml", "YAML"], ["events", "Events"]];
  if (kind.resource === "pods") tabs.push(["logs", "Logs"], ["exec", "Terminal"]);
  const head = () => [
    h("h1", {}, h("a", { href: `#/list/${kind.resource}` }, kind.title), ` / ${name}`),
    h("div", { class: "bar" },
      SCALED.includes(kind.resource) && h("button", { type: "button", onclick: scale }, "Scale"),
      RESTARTED.includes(kind.resource) && h("button", { type: "button", onclick: restart }, "Restart"),
      kind.resource === "nodes" && h("button", { type: "button", onclick: cordon }, object.spec.unschedulable ? "Uncordon" : "Cordon"),
      h("button", { type: "button", class: "danger", onclick: remove }, "Delete")),
    notice,
    h("div", { class: "tabs" }, tabs.map(([id, title]) =>
      h("a", { href: linkTo(kind, namespace, name, id), "aria-current": id === tab ? "page" : null }, title))),
  ];
  const draw = () => {
    fill(place, head(), content);
    if (tab === "yaml") editor(content, kind, object, path, { tell, load, signal });
    else if (tab === "events") events(content, object, namespace, signal);
    else if (tab === "logs") showLogs(content, object, signal);
    else if (tab === "exec") showExec(content, object, signal);
    else fill(content, facts(kind, object));
  };
  // The summary is what it is now; what is being edited or read stays.
  const refresh = async () => {
    await load();
    if (tab === "") draw();
  };
  const stay = () => follow(kind, namespace, {
    selector: `metadata.name=${name}`,
    signal,
    reset: () => {},
    change: (type) => (type === "DELETED" ? tell("bad", "It is deleted.") : refresh().catch(() => {})),
    state: () => {},
  });
  try {
    await load();
    draw();
    stay();
  } catch (error) {
    if (!signal.aborted) fill(place, h("h1", {}, `${kind.title} / ${name}`), message("bad", error.message));
  }
  return { e: () => { location.hash = linkTo(kind, namespace, name, "yaml"); } };
}

/** YAML without what nobody edits. Secrets' values are hidden until asked for. */
function shown(kind, object, revealed) {
  const copy = { apiVersion: kind.group ? `${kind.group}/${kind.version}` : kind.version, kind: kind.kind, ...structuredClone(object) };
  delete copy.metadata.managedFields;
  if (kind.resource === "secrets" && !revealed) {
    for (const values of [copy.data, copy.stringData]) {
      for (const key of Object.keys(values ?? {})) values[key] = HIDDEN;
    }
    // What was applied last holds the values too.
    delete copy.metadata.annotations?.["kubectl.kubernetes.io/last-applied-configuration"];
  }
  return copy;
}

function editor(place, kind, object, path, { tell, load, signal }) {
  let revealed = kind.resource !== "secrets";
  const text = h("textarea", { class: "code", spellcheck: "false", "aria-label": "YAML" });
  const force = h("input", { type: "checkbox", id: "force" });
  const apply = h("button", { type: "button", class: "primary", onclick: async () => {
    try {
      const query = `${MANAGER}${force.checked ? "&force=true" : ""}`;
      await send(`${path}?${query}`, { method: "PATCH", body: text.value, type: "application/apply-patch+yaml" });
      object = await json(path, { signal });
      show();
      tell("good", "Applied.");
    } catch (error) {
      if (!signal.aborted) tell("bad", error.message);
    }
  } }, "Apply");
  const reveal = h("button", { type: "button", onclick: () => { revealed = true; show(); } }, "Reveal values");
  const again = h("button", { type: "button", onclick: async () => {
    await load();
    object = await json(path, { signal });
    show();
  } }, "Reload");
  const show = () => {
    const copy = shown(kind, object, revealed);
    delete copy.status;
    text.value = yaml(copy);
    text.readOnly = !revealed;
    apply.disabled = !revealed;
    reveal.hidden = revealed;
  };
  fill(place, h("div", { class: "bar" }, apply, force, h("label", { for: "force" }, "Take over fields of others"), again, reveal), text,
    object.status && [h("h1", {}, "Status"), h("pre", { class: "text" }, yaml(object.status))]);
  text.addEventListener("keydown", (event) => {
    if (event.key === "s" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (!apply.disabled) apply.click();
    }
  });
  show();
}

function events(place, object, namespace, signal) {
  const rows = new Map();
  let columns = [];
  const body = h("tbody");
  const problem = h("div");
  fill(place, problem, h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Last seen", "Type", "Reason", "Message"].map((name) => h("th", {}, name)))), body)));
  const draw = () => {
    const cell = (row, name) => String(row.cells[columns.findIndex((column) => column.name === name)] ?? "");
    fill(body, [...rows.values()].reverse().map((row) => h("tr", {},
      ["Last Seen", "Type", "Reason", "Message"].map((name) => h("td", { class: tone(cell(row, name)), title: cell(row, name) }, cell(row, name))))));
    if (rows.size === 0) fill(body, h("tr", {}, h("td", { class: "faint", colspan: 4 }, "none")));
  };
  follow(KINDS.get("events"), namespace === "-" ? "" : namespace, {
    selector: `involvedObject.uid=${object.metadata.uid}`,
    signal,
    reset: (whole) => {
      columns = whole.columnDefinitions ?? [];
      rows.clear();
      whole.rows.forEach((row) => rows.set(row.object.metadata.uid, row));
      draw();
    },
    change: (type, row) => {
      if (type === "DELETED") rows.delete(row.object.metadata.uid);
      else rows.set(row.object.metadata.uid, row);
      draw();
    },
    state: (state, error) => state === "failed" && fill(problem, message("bad", error.message)),
  });
}
