// The frame around the pages: menu, namespace, keys, login.

import { hasToken, json, setToken, whenExpired } from "./api.js";
import { ask, fill, h } from "./dom.js";
import { KINDS, SECTIONS } from "./kinds.js";
import { showDetail } from "./detail.js";
import { showList } from "./list.js";
import { showLogin, whoami } from "./login.js";
import { showOverview } from "./overview.js";

const THEMES = ["", "dark", "light"];
const app = document.getElementById("app");
let page = new AbortController();
let keys = {};
let namespace = sessionStorage.getItem("timonel-namespace") ?? "";
let main = null;

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  localStorage.setItem("timonel-theme", theme);
}
setTheme(localStorage.getItem("timonel-theme") ?? "");
const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(localStorage.getItem("timonel-theme") ?? "") + 1) % THEMES.length]);

function logout(why) {
  setToken("", false);
  page.abort();
  keys = {};
  showLogin(app, why, start);
}
whenExpired(() => main && logout("The token is not valid any more."));

/** Shows what the address names. */
async function route() {
  page.abort();
  page = new AbortController();
  keys = {};
  const { signal } = page;
  const [view, resource, ...rest] = location.hash.slice(2).split("/").map(decodeURIComponent);
  const kind = KINDS.get(resource);
  const place = h("div");
  fill(main, place);
  main.scrollTop = 0;
  document.querySelectorAll("nav a").forEach((link) => {
    const current = link.hash === `#/list/${resource}` || (!kind && link.hash === "#/overview");
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  document.title = kind ? `${rest[1] ?? kind.title} · Kubernetes` : "Kubernetes dashboard";
  let found;
  if (view === "list" && kind) found = showList(place, kind, kind.namespaced ? namespace : "", signal);
  else if (view === "show" && kind) {
    const [of, name, tab = ""] = rest;
    found = await showDetail(place, kind, of === "-" ? "" : of, name, tab, signal);
  } else found = await showOverview(place, namespace, signal);
  if (!signal.aborted) keys = found;
}

function help() {
  const rows = [["/", "filter the table"], ["j  k", "next, previous row"], ["Enter", "open the row"], ["e", "YAML of the object"],
    ["n", "choose a namespace"], ["o", "overview"], ["t", "light or dark"], ["Esc", "leave a field, go back"], ["?", "this help"]];
  ask("Keys", h("dl", { class: "facts" }, rows.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])), "Close");
}

function onKey(event) {
  if (!main || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape") {
    if (typing) typing.blur();
    else history.back();
    return;
  }
  if (typing || (event.key === "Enter" && event.target.closest("a, button"))) return;
  const common = { "?": help, t: nextTheme, o: () => { location.hash = "#/overview"; }, n: () => document.getElementById("namespace").focus() };
  const action = keys[event.key] ?? common[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

async function start(user) {
  const names = h("datalist", { id: "namespaces" });
  const chosen = h("input", { id: "namespace", list: "namespaces", value: namespace, placeholder: "all namespaces",
    "aria-label": "Namespace", onchange: () => {
      namespace = chosen.value.trim();
      sessionStorage.setItem("timonel-namespace", namespace);
      route();
    } });
  main = h("main", { tabindex: "-1" });
  fill(app, h("div", { class: "shell" },
    h("header", {}, h("span", { class: "brand" }, "Kubernetes"), chosen, names, h("span", { class: "space" }),
      h("span", { class: "who", title: user }, user),
      h("button", { type: "button", onclick: help, "aria-label": "Keys" }, "?"),
      h("button", { type: "button", onclick: nextTheme, "aria-label": "Theme" }, "◐"),
      h("button", { type: "button", onclick: () => { main = null; logout(""); } }, "Log out")),
    h("nav", {}, h("a", { href: "#/overview" }, "Overview"), SECTIONS.map(([title, kinds]) =>
      [h("h2", {}, title), kinds.map((kind) => h("a", { href: `#/list/${kind.resource}` }, kind.title))])),
    main));
  route();
  try {
    const list = await json("/api/v1/namespaces?limit=500");
    fill(names, list.items.map((item) => h("option", { value: item.metadata.name })));
  } catch {
    // Who may not list namespaces types the name.
  }
}

window.addEventListener("hashchange", () => main && route());
document.addEventListener("keydown", onKey);
if (hasToken()) whoami().then(start).catch(() => logout(""));
else logout("");
