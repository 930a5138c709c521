// <restore-basket key="archive id">: the paths chosen for a restore, kept over folders of one archive.
// Without it the form still sends the ticked paths of the folder that is shown.

class RestoreBasket extends HTMLElement {
  connectedCallback() {
    this.key = `basket:${this.getAttribute("key")}`;
    this.list = this.querySelector("ul");
    this.paths = new Set(JSON.parse(sessionStorage.getItem(this.key) ?? "[]"));
    this.onChange = (event) => {
      if (!event.target.matches("[data-path]")) return;
      if (event.target.checked) this.paths.add(event.target.value);
      else this.paths.delete(event.target.value);
      this.show();
    };
    this.onSwap = () => this.show();
    document.addEventListener("change", this.onChange);
    document.addEventListener("htmx:after:swap", this.onSwap);
    this.addEventListener("click", (event) => {
      const button = event.target.closest("[data-remove]");
      if (!button) return;
      this.paths.delete(button.dataset.remove);
      this.show();
    });
    this.closest("form")?.addEventListener("submit", () => sessionStorage.removeItem(this.key));
    this.show();
  }

  disconnectedCallback() {
    document.removeEventListener("change", this.onChange);
    document.removeEventListener("htmx:after:swap", this.onSwap);
  }

  show() {
    sessionStorage.setItem(this.key, JSON.stringify([...this.paths]));
    for (const box of document.querySelectorAll("[data-path]")) {
      box.checked = this.paths.has(box.value);
      box.removeAttribute("name"); // the basket's own fields are what is sent
    }
    const template = this.querySelector("template");
    this.list.replaceChildren(
      ...[...this.paths].sort().map((path) => {
        const item = template.content.cloneNode(true).firstElementChild;
        item.querySelector("span").textContent = path;
        item.querySelector("input").value = path;
        const button = item.querySelector("button");
        button.dataset.remove = path;
        button.setAttribute("aria-label", `${button.getAttribute("aria-label")} ${path}`);
        return item;
      }),
    );
    this.querySelector("[data-none]").hidden = this.paths.size > 0;
    const count = this.querySelector("[data-count]");
    count.textContent = new Intl.NumberFormat(document.documentElement.lang).format(this.paths.size);
  }
}

customElements.define("restore-basket", RestoreBasket);
