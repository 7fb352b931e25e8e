// Elements without markup: text stays text whatever it holds.

/** Makes an element: h("a", {href: "#"}, "text", [more]). */
export function h(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child != null && child !== false) element.append(child);
  }
}

/** Replaces all children. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** A box with a message. */
export function message(kind, text) {
  return h("div", { class: `message ${kind}`, role: kind === "bad" ? "alert" : "status" }, text);
}

/** Asks; resolves to what `read` gives for the accepted form, or to null. Without `read` there is nothing to decide. */
export function ask(title, content, accept, read = null) {
  return new Promise((resolve) => {
    const form = h("form", { method: "dialog" },
      h("h1", {}, title), content,
      h("div", { class: "bar" },
        read && h("button", { type: "button", onclick: () => done(null) }, "Cancel"),
        h("button", { type: "submit", class: "primary" }, accept)));
    const dialog = h("dialog", { onclose: () => done(null) }, form);
    let open = true;
    const done = (value) => {
      if (!open) return;
      open = false;
      dialog.remove();
      resolve(value);
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      done(read?.() ?? null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** How long ago, as kubectl says it. */
export function age(time) {
  const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(time)) / 1000));
  if (Number.isNaN(seconds)) return "<unknown>";
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours}h` : `${Math.floor(hours / 24)}d`;
}

const GOOD = /^(Running|Ready|Active|Bound|Available|Complete|Completed|Succeeded|Normal|True)$/;
const WARN = /^(Pending|ContainerCreating|Terminating|Warning|Unknown|Released|PodInitializing|Init:.*|.*SchedulingDisabled)$/;
const BAD = /^(Failed|Error|CrashLoopBackOff|ImagePullBackOff|ErrImagePull|Evicted|OOMKilled|NotReady.*|Lost|Invalid.*)$/;

/** Class of a cell's text. */
export function tone(text) {
  if (GOOD.test(text)) return "good";
  if (BAD.test(text)) return "bad";
  return WARN.test(text) ? "warn" : "";
}
