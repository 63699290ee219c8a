// The live page: what comes is kept at once, and drawn with the next frame.
import { List } from "./list.js";
import { Policy } from "./policy.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { Tail } from "./tail.js";

const { html, button, count, span } = guardfs;
const by = (id) => document.getElementById(id);
const SPANS = [["10 s", 10e6], ["1 min", 60e6], ["10 min", 0]]; // 0: all that there is
const OPS = ["write", "create", "truncate", "rename", "unlink", "attributes", "xattr", "open", "look", "fence", "branch", "incident", "policy", "mode", "unseen"];

class Page {
  #asked = 0;
  #late = new Set(); // parts to draw with the next frame
  #new = false; // a session was chosen that is not drawn yet
  #offset = 0; // us by which the server's clock is ahead of ours
  #rate = [];

  constructor() {
    this.utc = true;
    this.paused = false;
    this.span = 10e6;
    this.store = new Store();
    this.about = null;
    this.totals = null;
    this.state = "connecting";
    this.why = "";
    this.asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    this.stream = new Stream({ onmessage: (message) => this.take(message), onstate: (state, why) => this.connection(state, why) });
    this.list = new List(by("list"), { onselect: (name) => this.watch(name), changed: () => this.later("list") });
    this.list.selected = this.asked.session ?? "";
    this.tail = new Tail(by("events"), { onselect: (name) => this.list.select(name, true) });
    this.policy = new Policy(by("policy"));
    this.picture = new guardfs.Swimlanes(by("picture"), { onmove: () => this.follow(null, false) });
    this.controls();
    this.connect(["tail", "picture"]);
    setInterval(() => this.later("list", "head", "policy", "picture"), 1000);
  }

  get now() { return Date.now() * 1000 + this.#offset; }

  // ---- what comes

  connect(fresh) {
    const { guard, session, lane, op, verdict, incidents, here } = this.asked;
    this.stream.open({ guard, session, lane, op, verdict, incidents, within: here && session }, fresh);
    const kept = Object.entries(this.asked).filter(([, value]) => value);
    history.replaceState(null, "", kept.length ? `#${new URLSearchParams(kept)}` : location.pathname);
  }

  take(message) {
    this.#offset = message.now - Date.now() * 1000;
    if (message.guards) this.guards(message.guards);
    if (message.guard) this.about = message.guard;
    this.#count(message.totals);
    if (message.sessions || message.gone) {
      const gone = new Map(message.gone ?? []);
      this.list.take(message.sessions ?? [], message.all ?? false, [...gone.keys()]);
      if (gone.get(this.asked.session)) this.list.select(gone.get(this.asked.session));
      else if (!this.asked.session || (message.all && !this.list.rows.has(this.asked.session))) this.choose();
    }
    if (message.tail) {
      this.tail.take(message.tail);
      if (!message.tail.fresh) this.tell(message.tail.rows);
    }
    if (message.picture && message.picture.session.name === this.asked.session) {
      this.store.take(message.picture);
      if (this.store.worn) this.connect(["picture"]);
      else this.later("picture");
    }
    this.later("list", "tail", "head", "policy");
  }

  /** The first session: one that somebody should look at, else the last that something happened in. */
  choose() {
    const rows = [...this.list.rows.values()];
    const best = rows.reduce((a, b) => (!a || b.lost - a.lost || b.last - a.last) > 0 ? b : a, null);
    if (best) this.list.select(best.name);
  }

  watch(name) {
    if (name === this.asked.session) return;
    this.asked.session = name;
    this.store = new Store();
    this.#new = true;
    this.picture.clear();
    this.follow(this.span);
    this.later("picture", "head");
    clearTimeout(this.#asked); // who runs through the list does not want each of them
    this.#asked = setTimeout(() => this.connect(this.asked.here ? ["picture", "tail"] : ["picture"]), 120);
  }

  tell(rows) {
    const row = rows.findLast((each) => each.op === "incident");
    if (row) by("told").textContent = `Incident: ${row.what}`;
  }

  connection(state, why) {
    Object.assign(this, { state, why });
    this.later("head");
  }

  #count(totals) {
    const time = performance.now();
    this.#rate.push([time, totals.events]);
    while (this.#rate.length > 2 && time - this.#rate[0][0] > 5000) this.#rate.shift();
    if (this.totals && totals.events < this.totals.events) this.#rate = [[time, totals.events]];
    this.totals = totals;
  }
  get rate() {
    const [first, last] = [this.#rate[0], this.#rate[this.#rate.length - 1]];
    const seconds = (performance.now() - first[0]) / 1000;
    return seconds > 0.5 ? (last[1] - first[1]) / seconds : 0;
  }

  guards(guards) {
    const select = by("guard"), chosen = this.asked.guard || guards[0]?.[0] || "";
    select.replaceChildren(...guards.map(([name, directory]) => html("option", { value: name, title: directory }, directory)));
    select.value = chosen;
    select.title = select.selectedOptions[0]?.title ?? "";
    select.disabled = guards.length < 2;
  }

  // ---- what is drawn

  later(...parts) {
    const asleep = this.#late.size === 0;
    for (const part of parts) this.#late.add(part);
    if (asleep && this.#late.size) requestAnimationFrame(() => this.draw());
  }

  draw() {
    const parts = new Set(this.#late);
    this.#late.clear();
    this.list.now = this.now;
    if (parts.has("list")) this.list.draw();
    if (parts.has("head")) this.head();
    if (parts.has("picture") && (this.#new || !this.paused)) this.drawn();
    if (this.paused) return;
    if (parts.has("tail") && this.tail.draw()) this.later("tail");
    if (parts.has("policy") && this.about) this.policy.draw(this.about, this.now, this.utc);
  }

  drawn() {
    const { store } = this, none = store.empty;
    by("picture").hidden = none;
    by("empty").hidden = !none;
    this.#new &&= none;
    if (!none) this.picture.set(...store.model(this.state === "live" ? this.now : null));
  }

  head() {
    const { about, totals, state } = this, row = this.list.rows.get(this.asked.session);
    by("connection").textContent = this.paused ? "paused" : { live: "live", lost: "connection lost", connecting: "connecting" }[state];
    by("connection").dataset.state = this.paused ? "paused" : state;
    const troubles = state === "lost" ? [this.why || "The connection is lost; it is tried again. What is shown is as it was."] : [];
    if (about) {
      const { silent, unread, attention, mode } = about;
      troubles.push(...[silent && `The guard does not answer: ${silent}`, unread && `Its log cannot be read: ${unread}`].filter(Boolean), ...attention);
      by("mode").textContent = mode;
      by("mode").dataset.mode = mode;
    }
    this.banner(troubles);
    if (totals) this.tiles(totals);
    const where = by("guard").selectedOptions[0]?.textContent ?? "", lost = totals?.lost ? `${count(totals.lost)} lost · ` : "";
    document.title = `${lost}guardfs · ${where}`;
    by("sessions-count").textContent = this.list.shown.length === this.list.rows.size ? count(this.list.rows.size) : `${count(this.list.shown.length)} of ${count(this.list.rows.size)}`;
    by("session-name").textContent = this.asked.session || "No session yet";
    by("session-facts").textContent = row ? this.facts(row) : "";
  }

  facts({ events, lanes, files, owner, branch }) {
    const age = (since) => span(Math.max(0, this.now - since));
    return [`${count(events)} events`, `${lanes} lanes`, files > 1 ? `${files} files` : "",
      owner ? `${owner.lane} relies on it for ${age(owner.since)}` : "nobody relies on it now",
      branch ? `${guardfs.bytes(branch.size)} of ${branch.lane} wait` : ""].filter(Boolean).join(" · ");
  }

  banner(troubles) {
    const banner = by("banner"), text = troubles.join("\n");
    if (banner.dataset.text === text) return;
    banner.dataset.text = text;
    banner.hidden = !text;
    banner.replaceChildren(...troubles.map((trouble) => html("p", {}, trouble)));
  }

  tiles({ open, waiting, lost, saved }) {
    const values = { open: ["open fences", open], waiting: ["staged branches", waiting], saved: ["turns saved", saved], lost: ["turns lost", lost], rate: ["events a second", Math.round(this.rate)] };
    const tiles = by("tiles");
    for (const [key, [name, value]] of Object.entries(values)) {
      let tile = tiles.querySelector(`[data-tile="${key}"]`);
      if (!tile) {
        tile = html("div", { "data-tile": key }, html("dt", {}, name), html("dd", {}));
        tiles.append(tile);
      }
      tile.lastChild.textContent = count(value);
      tile.classList.toggle("some", value > 0);
    }
  }

  // ---- what a reader does

  /** Follows what comes, the last so many us of it (0: all); null: the reader has gone elsewhere. */
  follow(us, move = true) {
    if (us !== null) this.span = us;
    for (const each of by("spans").children) each.setAttribute("aria-pressed", String(us !== null && Number(each.dataset.us) === us));
    if (move) this.picture.last(this.span);
  }

  pause(on = !this.paused) {
    this.paused = on;
    by("pause").setAttribute("aria-pressed", String(on));
    by("pause").textContent = on ? "Go on" : "Pause";
    document.documentElement.classList.toggle("paused", on);
    this.later("head", "list", "tail", "policy", "picture");
  }

  controls() {
    for (const op of OPS) by("filter").elements.op.append(html("option", {}, op));
    this.readFilter();
    by("spans").append(...SPANS.map(([name, us]) => {
      const one = button(`Follow, the last ${name}`, name, () => this.follow(us));
      one.dataset.us = us;
      return one;
    }));
    this.picture.utc(this.utc);
    this.follow(this.span);
    by("legend").append(...guardfs.legend());
    by("pause").addEventListener("click", () => this.pause());
    by("theme").addEventListener("click", () => guardfs.theme());
    by("help").addEventListener("click", () => by("keys").showModal());
    by("zone").addEventListener("click", () => this.zone());
    by("sort").addEventListener("change", (event) => this.list.sort(event.target.value));
    by("search").addEventListener("input", (event) => {
      this.list.seek(event.target.value);
      this.later("head");
    });
    by("search").addEventListener("keydown", (event) => event.key === "Enter" && this.list.move(1));
    by("guard").addEventListener("change", (event) => this.guard(event.target.value));
    by("filter").addEventListener("submit", (event) => event.preventDefault());
    by("filter").addEventListener("input", () => this.filter());
    document.addEventListener("keydown", (event) => this.key(event));
  }

  guard(name) {
    this.asked = { ...this.asked, guard: name, session: "" };
    this.about = null;
    this.list.take([], true, []);
    this.store = new Store();
    this.stream.forget();
    this.connect(["tail", "picture"]);
    this.later("head", "list", "picture");
  }

  readFilter() {
    const { lane, op, verdict, incidents, here } = by("filter").elements, { asked } = this;
    [lane.value, op.value, verdict.value, incidents.checked, here.checked] = [asked.lane ?? "", asked.op ?? "", asked.verdict ?? "", Boolean(asked.incidents), Boolean(asked.here)];
  }
  filter() {
    const { lane, op, verdict, incidents, here } = by("filter").elements;
    Object.assign(this.asked, { lane: lane.value.trim(), op: incidents.checked ? "" : op.value, verdict: verdict.value, incidents: incidents.checked ? "1" : "", here: here.checked ? "1" : "" });
    clearTimeout(this.#asked);
    this.#asked = setTimeout(() => this.connect(this.store.empty ? ["tail", "picture"] : ["tail"]), 200);
  }

  zone() {
    this.utc = !this.utc;
    by("zone").setAttribute("aria-pressed", String(!this.utc));
    this.tail.zone(this.utc);
    this.picture.utc(this.utc);
    this.later("policy");
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || by("keys").open) return;
    const field = event.target.closest("input, select, textarea");
    if (event.key === "Escape" && field) {
      if (field.type === "search") {
        field.value = "";
        field.dispatchEvent(new Event("input", { bubbles: true }));
      }
      return field.blur();
    }
    if (field && field.type !== "checkbox") return;
    const focus = (element) => {
      element.focus();
      element.select?.();
    };
    const acts = {
      j: () => this.list.move(1), k: () => this.list.move(-1), ArrowDown: () => this.list.move(1), ArrowUp: () => this.list.move(-1),
      "/": () => focus(by("search")), f: () => focus(by("filter").elements.lane), x: () => by("filter").elements.incidents.click(),
      " ": () => this.pause(), l: () => this.follow(this.span), d: () => guardfs.theme(), "?": () => by("keys").showModal(),
    };
    if (event.key === "Enter" && event.target === this.list.root) acts.Enter = () => this.picture.focus();
    if (event.key === " " && event.target.closest("button, [type=checkbox]")) return;
    if (event.key.startsWith("Arrow") && event.target.closest(".events, .session, .policy")) return;
    if (!Object.hasOwn(acts, event.key)) return;
    event.preventDefault();
    acts[event.key]();
  }
}

guardfs.page = new Page();
