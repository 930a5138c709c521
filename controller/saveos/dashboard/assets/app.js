// Behaviour of every page: change feed, selection, palette, toast, clocks. Pages work without it.
import "./log-view.js";
import "./chart.js";
import "./basket.js";

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// ---- change feed: a topic becomes a DOM event; the parts of the page that show it fetch themselves -------

const pill = one("#live");
let missed = false;

function show(state) {
  if (pill) pill.dataset.state = state;
  if (state === "off") missed = true;
  else if (missed) {
    missed = false; // whatever changed while the feed was away
    const topics = ["hosts", "jobs", "archives", "alerts", "running", "registrations", "schedules", "policies"];
    topics.forEach(fire);
  }
}

function fire(topic) {
  document.body.dispatchEvent(new CustomEvent(`saveos:${topic.replaceAll(":", "-")}`));
}

function listen() {
  if (window.SharedWorker) {
    const worker = new SharedWorker(new URL("feed.js", import.meta.url), "saveos-feed");
    worker.port.onmessage = ({ data }) => (data.topic ? fire(data.topic) : show(data.state));
    addEventListener("pagehide", () => worker.port.postMessage("bye"));
    addEventListener("pageshow", (event) => event.persisted && location.reload());
    return;
  }
  let source = null;
  const sync = () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (!source) {
      source = new EventSource("/events");
      source.onopen = () => show("on");
      source.onerror = () => show("off");
      source.addEventListener("change", (event) => fire(JSON.parse(event.data).topic));
    }
  };
  document.addEventListener("visibilitychange", sync);
  sync();
}

if (pill) listen();
setInterval(() => document.hidden || fire("minute"), 60000); // "5 minutes ago" grows old

// ---- selection of hosts ------------------------------------------------------------------------------

function countSelected() {
  const bar = one("#bulk");
  if (!bar) return;
  const boxes = all("input[name=host][type=checkbox]");
  const ticked = boxes.filter((box) => box.checked).length;
  const every = one("[data-every]", bar);
  const matching = one("#matching");
  if (matching) one("[data-matching]", bar).textContent = matching.textContent;
  if (!ticked) every.checked = false;
  const chosen = every.checked && matching ? Number(matching.dataset.number) : ticked;
  bar.hidden = !ticked;
  one("[data-count]", bar).textContent = new Intl.NumberFormat(document.documentElement.lang).format(chosen);
  const head = one("[data-all]");
  if (head) {
    head.checked = ticked > 0 && ticked === boxes.length;
    head.indeterminate = ticked > 0 && ticked < boxes.length;
  }
}

// Arrow keys and letters step through a closed list: it is sent when one is chosen (Enter) or left.
const stepping = new WeakMap(); // list → what was chosen before

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-all]")) {
    for (const box of all("input[name=host][type=checkbox]")) box.checked = event.target.checked;
  }
  if (event.target.matches("[data-submit]") && !stepping.has(event.target)) event.target.form.requestSubmit();
  countSelected();
});

document.addEventListener("keydown", ({ target, key, altKey }) => {
  if (!target.matches("select[data-submit]")) return;
  if (stepping.has(target)) {
    if (key !== "Enter") return;
    stepping.set(target, target.value); // else leaving this page sends it once more
    target.form.requestSubmit();
  } else if (!altKey && /^(Arrow|Page|Home|End|\S$)/.test(key)) stepping.set(target, target.value);
});
document.addEventListener("pointerdown", ({ target }) => stepping.delete(target));
document.addEventListener("focusout", ({ target }) => {
  const before = stepping.get(target);
  stepping.delete(target);
  if (before !== undefined && target.value !== before) target.form.requestSubmit();
});
document.addEventListener("htmx:after:swap", countSelected);
countSelected();

// What a page waited for gets the focus, unless its reader is somewhere else by now.
document.addEventListener("htmx:after:swap", () => {
  const arrived = one("[data-arrives]");
  arrived?.removeAttribute("data-arrives");
  if (document.activeElement === document.body) arrived?.focus({ preventScroll: true });
});

for (const current of all(".tabs [aria-current], .chips [aria-current]")) {
  const row = current.parentElement; // on a phone it scrolls sideways
  row.scrollLeft = current.offsetLeft - row.offsetLeft - (row.clientWidth - current.clientWidth) / 2;
}

// ---- copying ------------------------------------------------------------------------------------------

async function copy(button) {
  const source = one(button.dataset.copy);
  getSelection().selectAllChildren(source);
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(source.textContent);
    else if (!document.execCommand("copy")) return; // a page over plain HTTP: the text is selected at least
  } catch {
    return;
  }
  const said = one("#said");
  if (said) said.textContent = said.dataset.copied;
  button.dataset.copied = "";
  setTimeout(() => {
    delete button.dataset.copied;
    if (said) said.textContent = "";
  }, 2000);
}

for (const button of all("[data-copy]")) button.hidden = false;
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});

// ---- theme, toast ------------------------------------------------------------------------------------

one("#theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  const next = root.dataset.bsTheme === "dark" ? "light" : "dark";
  root.dataset.theme = root.dataset.bsTheme = next;
  document.cookie = `theme=${next};path=/;max-age=31536000;samesite=lax`;
  dispatchEvent(new Event("themechange"));
});

const toast = one(".toast-box");
if (toast) {
  const close = () => toast.remove();
  one("button", toast).addEventListener("click", close);
  let timer = setTimeout(close, 9000);
  toast.addEventListener("focusin", () => clearTimeout(timer));
  toast.addEventListener("pointerenter", () => clearTimeout(timer));
  toast.addEventListener("pointerleave", () => (timer = setTimeout(close, 4000)));
}

// ---- palette and keys ----------------------------------------------------------------------------------

const palette = one("#palette");

function openPalette() {
  if (!palette || palette.open) return;
  palette.showModal();
  const input = one("input", palette);
  input.select();
  input.dispatchEvent(new Event("open"));
}

one("#open-palette")?.addEventListener("click", openPalette);
palette?.addEventListener("click", (event) => event.target === palette && palette.close());
palette?.addEventListener("keydown", (event) => {
  if (!["ArrowDown", "ArrowUp", "Enter"].includes(event.key)) return;
  const stops = [one("input", palette), ...all("li a", palette)];
  const at = stops.indexOf(document.activeElement);
  if (event.key === "Enter") {
    if (at === 0 && stops[1]) {
      event.preventDefault();
      stops[1].click();
    }
    return;
  }
  event.preventDefault();
  stops[(at + (event.key === "ArrowDown" ? 1 : stops.length - 1)) % stops.length].focus();
});

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    openPalette();
  } else if (event.key === "/" && !event.target.matches("input, textarea, select")) {
    const search = one("main input[type=search]");
    if (search) {
      event.preventDefault();
      search.focus();
    } else openPalette();
  }
});

// ---- <elapsed-time since="epoch seconds">: a running clock -----------------------------------------------

customElements.define(
  "elapsed-time",
  class extends HTMLElement {
    connectedCallback() {
      this.timer = setInterval(() => this.tick(), 1000);
      this.tick();
    }

    disconnectedCallback() {
      clearInterval(this.timer);
    }

    tick() {
      const total = Math.max(0, Math.floor(Date.now() / 1000 - Number(this.getAttribute("since"))));
      const two = (value) => String(value).padStart(2, "0");
      this.textContent = `${two(Math.floor(total / 3600))}:${two(Math.floor(total / 60) % 60)}:${two(total % 60)}`;
    }
  },
);
