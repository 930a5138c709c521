// <log-view>: a job's log of any length. Only the visible lines are in the page; the rest is fetched in
// blocks when scrolled to. Events may have several lines, so heights are counted per block: known for
// loaded blocks, estimated at one line per event for the others.

const LINE = 18; // px, as in app.css
const BLOCK = 1000; // events per request
const KEEP = 60; // loaded blocks at most
const MARGIN = 12; // lines painted above and below the visible ones

/** Shape of an event: {n: 1-based number, k: kind, h: host, task, text}. */
class Block {
  constructor(size) {
    this.size = size;
    this.events = null;
    this.tops = null; // first line of each event, relative to the block, plus the total
    this.lines = size;
  }

  fill(events) {
    this.events = events;
    this.size = events.length;
    this.tops = new Uint32Array(events.length + 1);
    events.forEach((event, index) => {
      this.tops[index + 1] = this.tops[index] + lineCount(event.text);
    });
    this.lines = this.tops[events.length];
  }

  unload() {
    this.events = null; // `lines` stays: the height is known
  }
}

function lineCount(text) {
  let count = 1;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) count += 1;
  return count;
}

class LogView extends HTMLElement {
  connectedCallback() {
    this.box = this.querySelector(".log-box");
    this.pad = this.querySelector(".log-pad");
    this.rows = this.querySelector(".log-rows");
    this.count = this.querySelector(".log-count");
    this.follow = this.querySelector("[data-follow]");
    this.search = this.querySelector("input[type=search]");
    this.scope = this.querySelector(".scope");
    this.host = this.getAttribute("host") ?? "";
    this.total = 0;
    this.generation = 0;
    this.loading = new Set();
    this.blocks = [];
    this.lastTop = 0;
    this.target = Number(/^#L(\d+)$/.exec(location.hash)?.[1] ?? 0);
    this.follow.checked = !this.target && this.getAttribute("active") === "true";

    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.follow.addEventListener("change", () => this.paint());
    this.search.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.refilter(), 200);
    });
    this.scope.querySelector("button").addEventListener("click", () => this.setHost(""));
    this.onVisible = () => (document.hidden ? this.disconnect() : this.connect());
    document.addEventListener("visibilitychange", this.onVisible);
    this.onHash = () => this.goTo(Number(/^#L(\d+)$/.exec(location.hash)?.[1] ?? 0));
    addEventListener("hashchange", this.onHash);
    this.resizing = new ResizeObserver(() => this.paint());
    this.resizing.observe(this.box);
    this.start();
  }

  disconnectedCallback() {
    this.disconnect();
    document.removeEventListener("visibilitychange", this.onVisible);
    removeEventListener("hashchange", this.onHash);
    this.resizing.disconnect();
  }

  async start() {
    const first = await this.fetch(1, 1);
    this.grow(first.total);
    this.showScope();
    if (this.target) this.goTo(this.target);
    if (this.filtering) this.refilter();
    this.connect();
    this.paint();
  }

  async fetch(start, count) {
    const response = await fetch(`${this.getAttribute("src")}?start=${start}&count=${count}`);
    if (!response.ok) throw new Error(`log: ${response.status}`);
    return response.json();
  }

  // ---- live ------------------------------------------------------------------------------------

  connect() {
    if (this.stream || this.ended || this.getAttribute("active") !== "true" || document.hidden) return;
    this.stream = new EventSource(`${this.getAttribute("events")}?after=${this.total}`);
    this.stream.addEventListener("log", (message) => this.arrived(JSON.parse(message.data)));
    this.stream.addEventListener("end", () => {
      this.ended = true;
      const head = this.querySelector("[data-ended]");
      head.textContent = head.dataset.ended;
      this.disconnect();
    });
  }

  disconnect() {
    this.stream?.close();
    this.stream = null;
  }

  /** Put live events in place; ones that are already there change nothing. */
  arrived({ events }) {
    const fresh = events.filter((event) => event.n > this.total);
    if (!fresh.length) return;
    const before = this.total;
    this.grow(fresh.at(-1).n);
    if (this.filtering) {
      if (this.scanned >= before) this.addMatches(fresh);
    } else {
      for (const index of new Set(fresh.map((event) => Math.floor((event.n - 1) / BLOCK)))) {
        const block = this.blocks[index];
        const own = fresh.filter((event) => Math.floor((event.n - 1) / BLOCK) === index);
        const old = block.events ?? [];
        if (old.length + own.length === block.size) block.fill([...old, ...own]);
      }
    }
    this.paint();
  }

  /** Make room for events up to number `total`. */
  grow(total) {
    this.total = Math.max(this.total, total);
    if (this.filtering) return;
    const count = Math.ceil(this.total / BLOCK);
    for (let index = Math.max(0, this.blocks.length - 1); index < count; index += 1) {
      const size = Math.min(BLOCK, this.total - index * BLOCK);
      const block = this.blocks[index];
      if (!block) this.blocks[index] = new Block(size);
      else if (block.size < size) {
        block.lines += size - block.size;
        block.size = size;
      }
    }
  }

  // ---- filter: every event is looked at, only matches are kept ------------------------------------

  get filtering() {
    return Boolean(this.host || this.search.value);
  }

  setHost(host) {
    this.host = host;
    const url = new URL(location.href);
    if (host) url.searchParams.set("host", host);
    else url.searchParams.delete("host");
    history.replaceState(history.state, "", url);
    this.showScope();
    this.refilter();
  }

  showScope() {
    this.scope.hidden = !this.host;
    this.scope.querySelector("span").textContent = this.host;
    for (const row of document.querySelectorAll("[data-scope-row]")) {
      row.toggleAttribute("aria-current", row.dataset.scopeRow === this.host);
    }
  }

  async refilter() {
    const generation = (this.generation += 1);
    this.blocks = [];
    this.loading.clear();
    this.scanned = 0;
    this.box.scrollTop = 0;
    this.lastTop = 0;
    if (!this.filtering) {
      this.grow(this.total);
      this.paint();
      return;
    }
    while (this.scanned < this.total) {
      const answer = await this.fetch(this.scanned + 1, 5 * BLOCK);
      if (generation !== this.generation) return;
      if (!answer.events.length) break;
      this.addMatches(answer.events);
      this.paint();
    }
  }

  addMatches(events) {
    const wish = this.search.value.toLowerCase();
    const matches = events.filter(
      (event) =>
        (!this.host || event.h === this.host) &&
        (!wish || `${event.k} ${event.h} ${event.task} ${event.text}`.toLowerCase().includes(wish)),
    );
    this.scanned = events.at(-1).n;
    while (matches.length) {
      let last = this.blocks.at(-1);
      if (!last || last.size >= BLOCK) this.blocks.push((last = new Block(0)));
      last.fill([...(last.events ?? []), ...matches.splice(0, BLOCK - last.size)]);
    }
  }

  // ---- blocks -------------------------------------------------------------------------------------

  async load(index) {
    if (this.loading.has(index) || this.filtering) return;
    this.loading.add(index);
    const generation = this.generation;
    try {
      const answer = await this.fetch(index * BLOCK + 1, BLOCK);
      if (generation !== this.generation) return;
      const anchor = this.firstVisible();
      this.blocks[index].fill(answer.events.slice(0, BLOCK));
      this.grow(answer.total);
      if (anchor) this.scrollToEvent(anchor);
      this.forget(index);
    } finally {
      this.loading.delete(index);
    }
    this.paint();
  }

  /** Drop the blocks farthest from `index` when too many are loaded. */
  forget(index) {
    const loaded = [...this.blocks.keys()].filter((key) => this.blocks[key].events);
    if (loaded.length <= KEEP) return;
    loaded.sort((one, other) => Math.abs(other - index) - Math.abs(one - index));
    for (const key of loaded.slice(0, loaded.length - KEEP + 20)) this.blocks[key].unload();
  }

  /** Event at the top of the box, as a number, so that it can stay there when heights change. */
  firstVisible() {
    if (this.follow.checked) return 0;
    const top = Math.floor(this.box.scrollTop / LINE);
    let line = 0;
    for (const [index, block] of this.blocks.entries()) {
      if (line + block.lines > top) {
        const inside = top - line;
        const within = block.events ? this.eventAt(block, inside) : Math.min(inside, block.size - 1);
        return index * BLOCK + within + 1;
      }
      line += block.lines;
    }
    return 0;
  }

  eventAt(block, line) {
    let low = 0;
    let high = block.size - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (block.tops[middle] <= line) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  scrollToEvent(number) {
    const index = Math.floor((number - 1) / BLOCK);
    let line = 0;
    for (let before = 0; before < index; before += 1) line += this.blocks[before]?.lines ?? 0;
    const block = this.blocks[index];
    const within = number - 1 - index * BLOCK;
    line += block?.events ? (block.tops[within] ?? 0) : within;
    this.pad.style.height = `${this.lineTotal() * LINE}px`;
    this.box.scrollTop = line * LINE;
    this.lastTop = this.box.scrollTop;
  }

  async goTo(number) {
    if (!number || number > this.total) return;
    this.target = number;
    this.follow.checked = false;
    if (this.filtering) {
      this.search.value = "";
      this.setHost("");
    }
    const index = Math.floor((number - 1) / BLOCK);
    if (!this.blocks[index]?.events) await this.load(index);
    this.scrollToEvent(Math.max(1, number - 4));
    this.paint();
  }

  // ---- paint --------------------------------------------------------------------------------------

  scrolled() {
    if (this.box.scrollTop < this.lastTop - 2) this.follow.checked = false; // only a move up ends following
    this.lastTop = this.box.scrollTop;
    this.paint();
  }

  lineTotal() {
    return this.blocks.reduce((sum, block) => sum + block.lines, 0);
  }

  paint() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paintNow();
    });
  }

  paintNow() {
    const lines = this.lineTotal();
    this.pad.style.height = `${lines * LINE}px`;
    if (this.follow.checked) {
      this.box.scrollTop = lines * LINE;
      this.lastTop = this.box.scrollTop;
    }
    this.showCount();
    const from = Math.max(0, Math.floor(this.box.scrollTop / LINE) - MARGIN);
    const to = Math.min(lines, Math.ceil((this.box.scrollTop + this.box.clientHeight) / LINE) + MARGIN);
    const out = [];
    let line = 0;
    let first = from;
    for (const [index, block] of this.blocks.entries()) {
      const end = line + block.lines;
      if (end > from && line < to) {
        if (!block.events) {
          if (!out.length) first = Math.max(line, from);
          for (let blank = Math.max(line, from); blank < Math.min(end, to); blank += 1) out.push(this.blank());
          this.load(index);
        } else {
          for (let event = this.eventAt(block, Math.max(0, from - line)); event < block.size; event += 1) {
            const top = line + block.tops[event];
            if (top >= to) break;
            if (!out.length) first = top;
            out.push(...this.draw(block.events[event]));
          }
        }
      }
      if (line >= to) break;
      line = end;
    }
    this.rows.style.transform = `translateY(${first * LINE}px)`;
    this.rows.replaceChildren(...out);
  }

  showCount() {
    const format = new Intl.NumberFormat(document.documentElement.lang);
    const shown = this.blocks.reduce((sum, block) => sum + block.size, 0);
    const words = this.count.dataset;
    const word = this.filtering ? words.filtered : this.total === 1 ? words.one : words.many;
    const text = word.replace("{shown}", format.format(shown)).replace("{total}", format.format(this.total));
    this.count.ariaLive = this.filtering && !this.stream ? "polite" : "off"; // not each line of a live log
    if (this.count.textContent !== text) this.count.textContent = text;
  }

  blank() {
    const row = document.createElement("div");
    row.className = "l";
    row.textContent = "\u00a0";
    return row;
  }

  /** Rows of one event; its first line carries the number, which is its permalink. */
  draw(event) {
    return event.text.split("\n").map((text, index) => {
      const row = document.createElement("div");
      row.className = `l k-${event.k}${event.n === this.target ? " at" : ""}`;
      const link = document.createElement("a");
      if (!index) {
        link.href = `#L${event.n}`;
        link.textContent = event.n;
        link.tabIndex = -1;
      }
      row.append(link);
      if (!index && event.h) {
        const kind = document.createElement("b");
        kind.textContent = `${event.k}:`;
        row.append(kind, `[${event.h}] `);
      }
      this.write(row, text);
      return row;
    });
  }

  write(row, text) {
    const wish = this.search.value.toLowerCase();
    if (!wish) {
      row.append(text || "\u00a0");
      return;
    }
    const lower = text.toLowerCase();
    let from = 0;
    for (let at = lower.indexOf(wish); at >= 0; at = lower.indexOf(wish, from)) {
      const hit = document.createElement("mark");
      hit.textContent = text.slice(at, at + wish.length);
      row.append(text.slice(from, at), hit);
      from = at + wish.length;
    }
    row.append(text.slice(from) || "\u00a0");
  }
}

customElements.define("log-view", LogView);
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("[data-scope]");
  const view = document.querySelector("log-view");
  if (!link || !view || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  view.setHost(view.host === link.dataset.scope ? "" : link.dataset.scope);
  view.scrollIntoView({ block: "nearest" });
});
