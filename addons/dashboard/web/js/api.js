// Requests to the API, with the user's token. The token is in this module and, if wanted, in the tab's sessionStorage.

const KEY = "timonel-token";
const TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PAGE = 500;
const MOST = 5000;

let token = sessionStorage.getItem(KEY) ?? "";
let onExpired = () => {};

export class ApiError extends Error {
  constructor(status, body) {
    super(body?.message ?? `the server answered ${status}`);
    this.status = status;
    this.reason = body?.reason ?? "";
  }
}

export const hasToken = () => token !== "";
export const whenExpired = (handler) => { onExpired = handler; };

export function setToken(value, keep) {
  token = value;
  if (value && keep) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

/** Subprotocol that shows the token when a WebSocket opens. */
export function tokenProtocol() {
  const encoded = btoa(token).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  return `base64url.bearer.authorization.k8s.io.${encoded}`;
}

/** Path of a resource: pathOf(kind), pathOf(kind, namespace), pathOf(kind, namespace, name, subresource). */
export function pathOf(kind, namespace, name, subresource) {
  const part = (text) => {
    if (!/^[A-Za-z0-9._:-]+$/.test(text) || text === "." || text === "..") throw new Error(`not a name: ${text}`);
    return text;
  };
  let path = kind.group ? `/apis/${kind.group}/${kind.version}` : `/api/${kind.version}`;
  if (kind.namespaced && namespace) path += `/namespaces/${part(namespace)}`;
  path += `/${kind.resource}`;
  if (name) path += `/${part(name)}`;
  return subresource ? `${path}/${subresource}` : path;
}

/** One request; the answer as it begins. */
export async function send(path, { method = "GET", body, type = "application/json", accept = "application/json", signal } = {}) {
  const headers = { Accept: accept, Authorization: `Bearer ${token}` };
  if (body !== undefined) headers["Content-Type"] = type;
  const payload = typeof body === "string" || body === undefined ? body : JSON.stringify(body);
  const answer = await fetch(path, { method, headers, body: payload, signal, credentials: "omit", cache: "no-store", redirect: "error" });
  if (answer.ok) return answer;
  const text = await answer.text();
  let parsed = { message: text.slice(0, 500) };
  try { parsed = JSON.parse(text); } catch { /* it was text */ }
  if (answer.status === 401) onExpired();
  throw new ApiError(answer.status, parsed);
}

export const json = async (path, options) => (await send(path, options)).json();
export const text = async (path, options) => (await send(path, options)).text();

/** Lines of a stream, as they come. */
export async function* lines(path, options) {
  const answer = await send(path, options);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** A table of a kind, up to some thousand rows. */
export async function table(kind, namespace, { selector = "", signal } = {}) {
  let whole = null;
  let next = "";
  do {
    const query = new URLSearchParams({ limit: PAGE });
    if (selector) query.set("fieldSelector", selector);
    if (next) query.set("continue", next);
    const page = await json(`${pathOf(kind, namespace)}?${query}`, { accept: TABLE, signal });
    page.rows ??= [];
    if (whole) whole.rows.push(...page.rows);
    else whole = page;
    next = page.metadata?.continue ?? "";
  } while (next && whole.rows.length < MOST);
  whole.cut = Boolean(next);
  return whole;
}

/** Changes of a kind from a revision on; ends when the server ends it. */
export async function* changes(kind, namespace, revision, { selector = "", signal } = {}) {
  const query = new URLSearchParams({ watch: "true", resourceVersion: revision, allowWatchBookmarks: "true" });
  if (selector) query.set("fieldSelector", selector);
  for await (const line of lines(`${pathOf(kind, namespace)}?${query}`, { accept: TABLE, signal })) {
    if (!line) continue;
    const event = JSON.parse(line);
    if (event.type === "ERROR") throw new ApiError(event.object.code ?? 500, event.object);
    yield event;
  }
}

/** Follows a kind until the signal: `reset(table)` first and after gaps, `change(type, row)` in between. */
export async function follow(kind, namespace, { selector, signal, reset, change, state }) {
  let wait = 1000;
  let revision = "";
  while (!signal.aborted) {
    try {
      if (!revision) {
        const whole = await table(kind, namespace, { selector, signal });
        revision = whole.metadata?.resourceVersion ?? "";
        reset(whole);
      }
      state("live");
      wait = 1000;
      for await (const event of changes(kind, namespace, revision, { selector, signal })) {
        const rows = event.object.rows ?? [];
        revision = event.object.metadata?.resourceVersion || rows.at(-1)?.object?.metadata?.resourceVersion || revision;
        if (event.type !== "BOOKMARK") rows.forEach((row) => change(event.type, row));
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError) {
        if (error.status === 410) { revision = ""; continue; }
        if (error.status < 500 && error.status !== 429) { state("failed", error); return; }
      }
      state("waiting", error);
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(wait * 2, 30000);
    }
  }
}
