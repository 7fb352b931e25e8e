// A small terminal: lines of text with a cursor, and the control sequences that shells and simple programs use.

const MOST = 2000;

export class Screen {
  constructor() {
    this.lines = [""];
    this.row = 0;
    this.column = 0;
    this.rest = "";
  }

  /** Takes output. */
  write(text) {
    let input = this.rest + text;
    this.rest = "";
    while (input) {
      const sequence = /^\x1b(?:\[([0-9;?]*)([ -/]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Za-z0-9]|[=>78cDEM])/.exec(input);
      if (sequence) {
        if (sequence[3]) this.control(sequence[3], sequence[1]);
        input = input.slice(sequence[0].length);
      } else if (input[0] === "\x1b") {
        // The rest of the sequence is still to come, unless it is none.
        if (input.length < 64) { this.rest = input; return; }
        input = input.slice(1);
      } else {
        const plain = /^[^\x00-\x1f\x7f]+/.exec(input)?.[0];
        if (plain) this.put(plain);
        else this.special(input[0]);
        input = input.slice(plain?.length ?? 1);
      }
    }
  }

  put(text) {
    const line = (this.lines[this.row] ?? "").padEnd(this.column);
    this.lines[this.row] = line.slice(0, this.column) + text + line.slice(this.column + text.length);
    this.column += text.length;
  }

  special(character) {
    if (character === "\n") {
      this.row += 1;
      if (this.row >= this.lines.length) this.lines.push("");
      if (this.lines.length > MOST) {
        this.lines.shift();
        this.row -= 1;
      }
    } else if (character === "\r") this.column = 0;
    else if (character === "\b") this.column = Math.max(0, this.column - 1);
    else if (character === "\t") this.column = (Math.floor(this.column / 8) + 1) * 8;
  }

  control(name, parameters) {
    const count = Math.max(1, parseInt(parameters, 10) || 1);
    const line = this.lines[this.row] ?? "";
    if (name === "K") {
      const mode = parseInt(parameters, 10) || 0;
      if (mode === 0) this.lines[this.row] = line.slice(0, this.column);
      else if (mode === 1) this.lines[this.row] = " ".repeat(this.column) + line.slice(this.column);
      else this.lines[this.row] = "";
    } else if (name === "J") {
      if ((parseInt(parameters, 10) || 0) >= 2) Object.assign(this, { lines: [""], row: 0, column: 0 });
      else {
        this.lines[this.row] = line.slice(0, this.column);
        this.lines.length = this.row + 1;
      }
    } else if (name === "C") this.column += count;
    else if (name === "D") this.column = Math.max(0, this.column - count);
    else if (name === "A") this.row = Math.max(0, this.row - count);
    else if (name === "B") this.row = Math.min(this.lines.length - 1, this.row + count);
    else if (name === "G") this.column = count - 1;
    else if (name === "P") this.lines[this.row] = line.slice(0, this.column) + line.slice(this.column + count);
    else if (name === "@") this.lines[this.row] = line.slice(0, this.column) + " ".repeat(count) + line.slice(this.column);
    else if (name === "H") Object.assign(this, { row: 0, column: 0 });
  }
}

const KEYS = { Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b", ArrowUp: "\x1b[A", ArrowDown: "\x1b[B",
  ArrowRight: "\x1b[C", ArrowLeft: "\x1b[D", Home: "\x1b[H", End: "\x1b[F", Delete: "\x1b[3~" };

/** What a key sends; null if it is not for the program. */
export function keyBytes(event) {
  if (event.metaKey || event.altKey) return null;
  if (event.ctrlKey) {
    if (event.shiftKey || !/^[a-z[\]\\]$/i.test(event.key)) return null;
    return String.fromCharCode(event.key.toUpperCase().charCodeAt(0) & 31);
  }
  return KEYS[event.key] ?? (event.key.length === 1 ? event.key : null);
}
