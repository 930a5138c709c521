// <restore-basket key="archive id">: the paths chosen for a restore, kept over folders of one archive.
// Without it the form still sends the ticked paths of the folder that is shown.

class RestoreBasket extends HTMLElement {
  connectedCallback() {
    this.key = `basket:${this.getAttribute("key")}`;
    this.list = this.querySelector("ul");
    this.chosen = new Map(JSON.parse(sessionStorage.getItem(this.key) ?? "[]")); // value → [field, path shown]
    this.onChange = (event) => {
      if (!event.target.matches("[data-path]")) return;
      const box = event.target;
      if (box.checked) this.chosen.set(box.value, [box.dataset.field, box.dataset.path]);
      else this.chosen.delete(box.value);
      this.show();
    };
    this.onSwap = () => this.show();
    document.addEventListener("change", this.onChange);
    document.addEventListener("htmx:after:swap", this.onSwap);
    this.addEventListener("click", (event) => {
      const button = event.target.closest("[data-remove]");
      if (!button) return;
      const place = [...this.list.children].indexOf(button.closest("li"));
      this.chosen.delete(button.dataset.remove);
      this.show();
      const next = this.list.children[Math.min(place, this.list.children.length - 1)] ?? this.closest("form");
      next?.querySelector("button:not([hidden])")?.focus(); // the button that had the focus is gone
    });
    this.closest("form")?.addEventListener("submit", () => sessionStorage.removeItem(this.key));
    this.show();
  }

  disconnectedCallback() {
    document.removeEventListener("change", this.onChange);
    document.removeEventListener("htmx:after:swap", this.onSwap);
  }

  show() {
    sessionStorage.setItem(this.key, JSON.stringify([...this.chosen]));
    for (const box of document.querySelectorAll("[data-path]")) {
      box.checked = this.chosen.has(box.value);
      box.dataset.field ||= box.name;
      box.removeAttribute("name"); // the basket's own fields are what is sent
    }
    const template = this.querySelector("template");
    this.list.replaceChildren(
      ...[...this.chosen].sort(([, a], [, b]) => (a[1] < b[1] ? -1 : 1)).map(([value, [field, path]]) => {
        const item = template.content.cloneNode(true).firstElementChild;
        item.querySelector("span").textContent = path;
        const input = item.querySelector("input");
        input.name = field;
        input.value = value;
        const button = item.querySelector("button");
        button.dataset.remove = value;
        button.setAttribute("aria-label", `${button.getAttribute("aria-label")} ${path}`);
        return item;
      }),
    );
    this.querySelector("[data-none]").hidden = this.chosen.size > 0;
    const count = this.querySelector("[data-count]");
    count.textContent = new Intl.NumberFormat(document.documentElement.lang).format(this.chosen.size);
  }
}

customElements.define("restore-basket", RestoreBasket);
