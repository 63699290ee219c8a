// The list of sessions. However many there are, only rows that are seen are elements.
const { html, span } = guardfs;
const HIGH = 58; // px a row, as in live.css
const SPARE = 4; // rows drawn above and below

/** A name whose end stays when there is no room for all of it: what tells sessions apart. */
guardfs.ends = (name) => {
  const characters = [...name], at = Math.max(0, characters.length - 14);
  return at < 6 ? [name] : [html("span", { class: "head" }, characters.slice(0, at).join("")), html("span", { class: "end" }, characters.slice(at).join(""))];
};
const SETTLE = 1500; // ms between two new orders: a list that moves cannot be read

const owned = (row) => (row.owner ? 1 : 0);
/** First those with a lost turn, then those where something waits, then those with an owner. */
const need = (row) => (row.lost ? 8 : 0) + (row.branch?.error ? 4 : 0) + (row.branch ? 2 : 0) + owned(row);
const coarse = (row) => Math.floor(row.last / 10e6);
const named = (one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : 0);
const ORDERS = {
  attention: (one, other) => need(other) - need(one) || coarse(other) - coarse(one) || named(one, other),
  recent: (one, other) => coarse(other) - coarse(one) || named(one, other),
  name: named,
};

export class List {
  rows = new Map();
  shown = [];
  order = "attention";
  sought = "";
  selected = "";
  now = 0;
  #elements = [];
  #ordered = -Infinity;
  #stale = true;

  /** onselect: gets the name of a session; changed: called when it wants to be drawn. */
  constructor(root, { onselect, changed }) {
    this.root = root;
    this.space = root.querySelector(".space");
    this.onselect = onselect;
    this.changed = changed;
    root.addEventListener("scroll", changed, { passive: true });
    root.addEventListener("click", (event) => {
      const element = event.target.closest("[role=option]");
      if (element) this.select(element.dataset.name);
    });
    new ResizeObserver(changed).observe(root);
  }

  /** Takes rows (`guardfs.web.sessions.Session.row`). all: there are no others. */
  take(rows, all, gone) {
    if (all) this.rows.clear();
    for (const name of gone) this.rows.delete(name);
    for (const row of rows) this.rows.set(row.name, row);
    this.#stale = true;
    if (all) this.#ordered = -Infinity;
  }

  sort(order) {
    this.order = order;
    this.#ordered = -Infinity;
    this.changed();
  }
  seek(text) {
    this.sought = text.trim().toLowerCase();
    this.#ordered = -Infinity;
    this.#stale = true;
    this.root.scrollTop = 0;
    this.changed();
  }

  select(name, scroll = false) {
    this.selected = name;
    if (scroll) this.#show(this.shown.findIndex((row) => row.name === name));
    this.changed();
    this.onselect(name);
  }
  /** Selects the next one, or the one before. */
  move(step) {
    if (!this.shown.length) return;
    const at = this.shown.findIndex((row) => row.name === this.selected);
    const next = at < 0 ? (step > 0 ? 0 : this.shown.length - 1) : Math.min(Math.max(at + step, 0), this.shown.length - 1);
    this.select(this.shown[next].name);
    this.#show(next);
  }

  #show(index) {
    if (index < 0) return;
    const top = index * HIGH, { scrollTop, clientHeight } = this.root;
    if (top < scrollTop) this.root.scrollTop = top;
    else if (top + HIGH > scrollTop + clientHeight) this.root.scrollTop = top + HIGH - clientHeight;
  }

  /** Whether a reader is in it, so that it should stand still. */
  get #held() { return this.root.matches(":hover") || this.root.contains(document.activeElement); }

  #arrange() {
    const wanted = (row) => !this.sought || row.name.toLowerCase().includes(this.sought) || (row.owner?.lane ?? "").toLowerCase().includes(this.sought);
    const time = performance.now(), due = time - this.#ordered;
    if (!this.#stale || (due < SETTLE && due !== Infinity)) {
      this.shown = this.shown.map((row) => this.rows.get(row.name)).filter(Boolean);
      return;
    }
    const found = [...this.rows.values()].filter(wanted);
    if (this.#held && due !== Infinity) { // new ones come last, the others stay where they are
      const place = new Map(this.shown.map((row, index) => [row.name, index]));
      found.sort((one, other) => (place.get(one.name) ?? 1e9) - (place.get(other.name) ?? 1e9) || named(one, other));
    } else found.sort(ORDERS[this.order]);
    this.shown = found;
    this.#stale = false;
    this.#ordered = time;
  }

  draw() {
    this.#arrange();
    const { scrollTop, clientHeight } = this.root, many = this.shown.length;
    this.space.style.height = `${many * HIGH}px`;
    const from = Math.max(0, Math.floor(scrollTop / HIGH) - SPARE);
    const to = Math.min(many, Math.ceil((scrollTop + clientHeight) / HIGH) + SPARE);
    while (this.#elements.length < to - from) this.#elements.push(this.#make());
    this.#elements.forEach((element, i) => {
      const index = from + i, row = index < to ? this.shown[index] : null;
      element.root.hidden = !row;
      if (row) this.#fill(element, row, index, many);
    });
    const at = this.shown.findIndex((row) => row.name === this.selected);
    if (at >= from && at < to) this.root.setAttribute("aria-activedescendant", this.#elements[at - from].root.id);
    else this.root.removeAttribute("aria-activedescendant");
  }

  #make() {
    const part = (name) => html("span", { class: name }), line = (...parts) => html("div", {}, ...parts);
    const found = { name: part("name"), badges: part("badges"), owner: part("owner"), branch: part("branch"), ago: part("ago") };
    const id = `session-${this.#elements.length}`;
    found.root = html("div", { role: "option", class: "row", id }, line(found.name, found.badges), line(found.owner, found.branch, found.ago));
    this.space.append(found.root);
    return found;
  }

  #fill(element, row, index, many) {
    const { root } = element, chosen = row.name === this.selected;
    const put = (part, text, title) => {
      if (part.textContent !== text) part.textContent = text;
      if (title !== undefined && part.title !== title) part.title = title;
    };
    root.style.transform = `translateY(${index * HIGH}px)`;
    root.dataset.name = row.name;
    root.setAttribute("aria-selected", String(chosen));
    root.setAttribute("aria-setsize", String(many));
    root.setAttribute("aria-posinset", String(index + 1));
    root.classList.toggle("active", this.now - row.last < 2e6);
    root.classList.toggle("owned", Boolean(row.owner));
    if (element.name.title !== row.name) {
      element.name.title = row.name;
      element.name.replaceChildren(...guardfs.ends(row.name));
    }
    const badges = `${row.lost ? `${row.lost} lost` : ""}|${row.saved ? `${row.saved} saved` : ""}`;
    if (element.badges.dataset.shown !== badges) {
      element.badges.dataset.shown = badges;
      element.badges.replaceChildren(...[["lost", row.lost], ["saved", row.saved]].filter(([, n]) => n).map(([kind, n]) => html("span", { class: `badge ${kind}` }, `${n} ${kind}`)));
    }
    const { owner, branch } = row, more = (n) => (n ? ` +${n}` : "");
    const age = (since) => span(Math.max(0, Math.floor((this.now - since) / 1e6)) * 1e6).replace("0 µs", "0 s").replace(/\.0 s/, " s");
    put(element.owner, owner ? `${owner.lane}${more(owner.more)} · ${age(owner.since)}` : "no owner", owner ? `fence ${owner.token} of ${owner.lane}, process ${owner.tgid}` : "");
    put(element.branch, branch ? `${branch.error ? "stuck" : "staged"} ${branch.lane}${more(branch.more)} · ${age(branch.since)}` : "",
      branch ? `${guardfs.bytes(branch.size)} by ${branch.lane} wait${branch.error ? `, and cannot be rebased: ${branch.error}` : " for the fence to close"}` : "");
    element.branch.classList.toggle("failed", Boolean(branch?.error));
    put(element.ago, branch ? "" : `${age(row.last)} ago`);
  }
}
