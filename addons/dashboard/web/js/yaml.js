// Writes YAML of what came as JSON.

const PLAIN = /^[A-Za-z_/][A-Za-z0-9_./ @+=()-]*$/;
const SPECIAL = /^(true|false|null|yes|no|on|off|y|n|nan|inf|~)$/i;

function scalar(value) {
  if (typeof value !== "string") return JSON.stringify(value ?? null);
  const plain = PLAIN.test(value) && !SPECIAL.test(value) && !value.endsWith(" ");
  return plain ? value : JSON.stringify(value);
}

function isBlock(value) {
  return typeof value === "string" && value.includes("\n") && !/[^\n\t\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]/.test(value)
    && !/^[ \n\t]/.test(value) && !/[ \t]\n/.test(value) && !/\t/.test(value);
}

function block(value, indent) {
  const end = value.endsWith("\n\n") ? "+" : value.endsWith("\n") ? "" : "-";
  const text = value.endsWith("\n") ? value.slice(0, -1) : value;
  const lines = text.split("\n").map((line) => (line ? `${indent}${line}` : ""));
  return `|${end}\n${lines.join("\n")}\n`;
}

function write(value, indent) {
  if (Array.isArray(value)) {
    if (value.length === 0) return " []\n";
    return `\n${value.map((item) => `${indent}-${item_(item, indent)}`).join("")}`;
  }
  if (value !== null && typeof value === "object") {
    const keys = Object.keys(value).filter((key) => value[key] !== undefined);
    if (keys.length === 0) return " {}\n";
    return `\n${keys.map((key) => `${indent}${scalar(key)}:${entry(value[key], indent)}`).join("")}`;
  }
  return isBlock(value) ? ` ${block(value, `${indent}  `)}` : ` ${scalar(value)}\n`;
}

function entry(value, indent) {
  if (Array.isArray(value)) return write(value, indent);
  if (value !== null && typeof value === "object") return write(value, `${indent}  `);
  return isBlock(value) ? ` ${block(value, `${indent}  `)}` : ` ${scalar(value)}\n`;
}

/** An item of a list: the first key of an object stands behind the dash. */
function item_(value, indent) {
  if (value !== null && typeof value === "object") {
    const text = write(value, `${indent}  `);
    return text.startsWith("\n") ? ` ${text.slice(1).slice(indent.length + 2)}` : text;
  }
  return isBlock(value) ? ` ${block(value, `${indent}  `)}` : ` ${scalar(value)}\n`;
}

/** YAML of an object. */
export function yaml(object) {
  const text = write(object, "");
  return text.startsWith("\n") ? text.slice(1) : text.trimStart();
}
