// The swimlane picture of one session as an element: lanes down, time across. It touches nothing outside of its root.
//
//   const picture = new guardfs.Swimlanes(root, { href: (incident) => "#story", onselect(thing) {} });
//   picture.set(model, model.sessions[0]);   // at any time again, as the log grows: what was looked at stays
//   picture.utc(true); picture.show(incidentNumber); picture.fit();
//   picture.last(10e6);                      // a live page: follow the last ten seconds; onmove: the reader goes elsewhere
(() => {
  "use strict";
  const { svg, html, button, about, paint } = guardfs;
  const LAYERS = ["silences", "bands", "axis", "fences", "looks", "lines", "marks", "notes", "points", "tags", "chosen"];
  const NEAR = 5; // px around the pointer in which the nearest look is meant
  const MOVED = 4; // px after which a press is a drag
  const KEYS = "← → pan, + − zoom, 0 shows all, n p next and previous change, i next incident, Esc closes the details";

  let pictures = 0;

  guardfs.Swimlanes = class Swimlanes {
    #view = new guardfs.View();
    #layers = {};
    #pointers = new Map();
    #moved = 0;
    #pressed = null; // what was under the pointer when it was pressed: a picture that grows moves on before it is released
    #things = [];
    #selected = null;
    #waiting = false;

    constructor(root, options = {}) {
      this.root = root;
      this.options = options;
      this.id = `lanes-${++pictures}`;
      this.#build();
      this.#listen();
      new ResizeObserver(() => this.#resized()).observe(this.frame);
    }

    /** Draws a session of a model. */
    set(model, session) {
      const before = this.#view.session;
      this.#view.set(new guardfs.Session(model, session));
      this.#things = [];
      if (this.#pressed && before) this.#pressed = this.#view.session.again(this.#pressed, before);
      if (this.#selected && before) this.#keep(this.#view.session.again(this.#selected, before));
      this.#resized();
    }
    /** What was shown is of another session than what comes next. */
    clear() {
      this.#select(null);
      this.#pressed = null;
      this.#view.session = null;
    }
    /** Follows what comes: the last so many us, 0: all; until the reader moves elsewhere. */
    last(us) {
      this.#view.last(us);
      this.#soon();
    }

    utc(on) {
      this.#view.utc = on;
      this.#details();
      this.#soon();
    }
    fit() { this.#move(() => this.#view.all()); }

    /** Moves to an incident and selects it; false if it is not in this session. */
    show(number) {
      const incident = this.#view.session.incidents.find((each) => each.number === number);
      if (!incident) return false;
      this.#move(() => this.#view.show(incident));
      this.#select({ kind: "incident", incident });
      return true;
    }
    /** From when until when is seen, us since the epoch. */
    window() {
      const { session, a, b } = this.#view;
      return [a, b].map((place) => session.begin + session.scale.time(place));
    }
    focus() { this.svg.focus({ preventScroll: true }); }

    // ---- elements

    #build() {
      const zoom = (factor) => this.#move(() => this.#view.zoom(factor));
      this.where = html("span", { class: "lanes-where" });
      this.jumps = [button("Previous incident", "‹", () => this.#jump(-1)), button("Next incident", "›", () => this.#jump(1))];
      const bar = html("div", { class: "lanes-buttons", role: "toolbar", "aria-label": "Picture" },
        this.jumps[0], this.where, this.jumps[1], html("span", { class: "lanes-room" }),
        button("Zoom out", "−", () => zoom(2)), button("Zoom in", "+", () => zoom(0.5)), button("Show all", "All", () => this.fit()));
      const help = html("p", { class: "lanes-help", id: `${this.id}-help` }, `Drag to pan, Ctrl and wheel or double click to zoom. Keys: ${KEYS}.`);
      this.tip = html("div", { class: "lanes-tip", role: "tooltip", hidden: "" });
      this.panel = html("div", { class: "lanes-details", role: "status", hidden: "" });
      this.#buildPicture();
      this.frame = html("div", { class: "lanes-frame" }, this.svg, this.tip);
      this.root.append(bar, this.frame, this.panel, help);
    }

    #buildPicture() {
      this.svg = svg("svg", { class: "lanes", tabindex: 0, role: "application", "aria-describedby": `${this.id}-help` });
      this.clip = svg("rect");
      this.svg.append(svg("defs", {}, svg("clipPath", { id: `${this.id}-clip` }, this.clip),
        svg("pattern", { id: `${this.id}-hatch`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
          svg("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 6 }))));
      const layer = (name) => (this.#layers[name] = svg("g", { class: `layer-${name}` }));
      this.svg.append(layer("rows"), svg("g", { "clip-path": `url(#${this.id}-clip)` }, ...LAYERS.map(layer)), layer("labels"));
    }

    // ---- pointer and keys

    #listen() {
      const s = this.svg;
      s.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
      s.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        this.#pointers.set(event.pointerId, this.#x(event));
        this.#moved = 0;
        this.#pressed = this.#at(event);
      });
      s.addEventListener("pointermove", (event) => this.#drag(event));
      s.addEventListener("pointerup", (event) => {
        if (this.#pointers.delete(event.pointerId) && this.#moved < MOVED) this.#select(this.#pressed);
      });
      s.addEventListener("pointercancel", (event) => this.#pointers.delete(event.pointerId));
      s.addEventListener("pointerleave", () => this.#hint(null));
      s.addEventListener("dblclick", (event) => this.#move(() => this.#view.zoom(0.4, this.#x(event))));
      s.addEventListener("keydown", (event) => this.#key(event));
      s.addEventListener("focus", () => this.#soon());
    }

    #wheel(event) {
      const across = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
      if (event.ctrlKey || event.metaKey) {
        const turn = Math.max(-120, Math.min(120, event.deltaY)), x = this.#x(event);
        this.#move(() => this.#view.zoom(Math.exp(turn * 0.004), x));
      } else if (event.shiftKey || Math.abs(across) > Math.abs(event.deltaY)) this.#move(() => this.#view.pan(across));
      else return; // the page scrolls
      event.preventDefault();
    }

    #drag(event) {
      const before = this.#pointers.get(event.pointerId), x = this.#x(event);
      if (before === undefined) {
        if (event.pointerType !== "touch") this.#hint(this.#at(event), event);
        return;
      }
      this.#moved += Math.abs(x - before);
      this.#pointers.set(event.pointerId, x);
      if (this.#moved < MOVED) return;
      if (!this.svg.hasPointerCapture(event.pointerId)) this.svg.setPointerCapture(event.pointerId);
      this.#hint(null);
      const other = [...this.#pointers].find(([id]) => id !== event.pointerId);
      if (!other) return this.#move(() => this.#view.pan(before - x));
      const was = Math.abs(before - other[1]), now = Math.abs(x - other[1]);
      if (was > 8 && now > 8) this.#move(() => this.#view.zoom(was / now, (x + other[1]) / 2));
    }

    #key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const view = this.#view, wide = view.width * 0.15;
      const acts = {
        ArrowLeft: () => this.#move(() => view.pan(-wide)), ArrowRight: () => this.#move(() => view.pan(wide)),
        "+": () => this.#move(() => view.zoom(0.6)), "=": () => this.#move(() => view.zoom(0.6)),
        "-": () => this.#move(() => view.zoom(1.6)), 0: () => this.fit(), Home: () => this.fit(),
        n: () => this.#next(1), p: () => this.#next(-1), i: () => this.#jump(1), I: () => this.#jump(-1),
        Escape: () => this.#select(null),
      };
      if (!Object.hasOwn(acts, event.key)) return;
      acts[event.key]();
      event.preventDefault();
    }

    #x(event) { return event.clientX - this.svg.getBoundingClientRect().left; }

    // ---- what is seen

    #move(act) {
      if (!this.#view.session) return;
      if (this.#view.span !== null) {
        this.#view.span = null;
        if (this.options.onmove) this.options.onmove();
      }
      act();
      this.#soon();
    }
    #resized() {
      if (!this.#view.session || !this.frame.clientWidth) return;
      this.#view.measure(Math.floor(this.frame.clientWidth));
      this.#soon();
    }
    #soon() {
      if (this.#waiting) return;
      this.#waiting = true;
      requestAnimationFrame(() => {
        this.#waiting = false;
        if (this.#view.session) this.#draw();
      });
    }

    #draw() {
      const view = this.#view, { name, events, lost, saved, lanes, incidents } = view.session;
      const set = (element, attributes) => Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
      set(this.svg, {
        width: view.whole, height: view.height, viewBox: `0 0 ${view.whole} ${view.height}`,
        "aria-label": `Session ${name}: ${events} events in ${lanes.length} lanes, ${lost} turns lost, ${saved} saved`,
      });
      set(this.clip, { x: view.gutter, y: 0, width: view.width + 6, height: view.height });
      this.#where(incidents);
      const { looks, things } = paint.gather(view), { lines, points, tags } = paint.incidents(view);
      this.#things = things;
      const layers = {
        rows: paint.rows(view), labels: paint.labels(view), silences: paint.silences(view, `${this.id}-hatch`),
        bands: paint.bands(view), axis: paint.axis(view), fences: paint.fences(view), looks, lines,
        marks: things.map((thing) => paint.mark(view, thing)), notes: paint.notes(view), points, tags,
        chosen: paint.chosen(view, this.#selected),
      };
      for (const [layer, elements] of Object.entries(layers)) this.#layers[layer].replaceChildren(...elements);
    }

    #where(incidents) {
      const at = this.#selected && this.#selected.kind === "incident" ? incidents.indexOf(this.#selected.incident) + 1 : 0;
      const many = `${guardfs.count(incidents.length)} incident${incidents.length === 1 ? "" : "s"}`;
      this.where.textContent = !incidents.length ? "no incident" : at ? `${at} of ${many}` : many;
      for (const each of this.jumps) each.disabled = !incidents.length;
    }

    // ---- what is selected, and what is said of it

    /** What lies under the pointer: what is drawn there, else the nearest look of the lane, else the fence. */
    #at(event) {
      if (!this.#view.session) return null;
      let fence = null;
      for (let node = event.target; node && node !== this.svg; node = node.parentNode) {
        if (node.thing && node.thing.kind !== "fence") return node.thing;
        fence ||= node.thing || null;
      }
      return this.#nearest(event) || fence;
    }
    #nearest(event) {
      const view = this.#view, { session } = view, x = this.#x(event);
      const lane = view.row(event.clientY - this.svg.getBoundingClientRect().top);
      if (lane < 0 || x <= view.gutter) return null;
      const place = view.place(x), end = view.place(x + NEAR), off = (i) => Math.abs(session.places[i] - place);
      let best = -1;
      for (let i = guardfs.lower(session.places, view.place(x - NEAR)); i < session.n && session.places[i] <= end; i++) {
        if (session.lane[i] === lane && (best < 0 || off(i) < off(best))) best = i;
      }
      return best < 0 ? null : { kind: "mark", index: best };
    }

    #hint(thing, event) {
      this.tip.hidden = !thing;
      if (!thing) return;
      const { title, rows } = about(this.#view.session, thing, this.#view.utc);
      this.tip.replaceChildren(html("b", {}, title), ...rows.slice(0, 8).map(([name, text]) => html("div", {}, html("span", {}, name), ` ${text}`)));
      const box = this.frame.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      const wide = this.tip.offsetWidth, high = this.tip.offsetHeight, below = event.clientY + 18 + high < window.innerHeight;
      this.tip.style.left = `${Math.max(4, Math.min(x + 14, box.width - wide - 4))}px`;
      this.tip.style.top = `${below ? y + 18 : y - high - 12}px`;
    }

    #select(thing) {
      this.#selected = thing;
      this.#details();
      this.#soon();
      if (this.options.onselect) this.options.onselect(thing);
    }
    #details() {
      const thing = this.#selected;
      this.panel.hidden = !thing;
      this.panel.className = `lanes-details ${thing ? thing.kind : ""}`;
      if (!thing) return this.panel.replaceChildren();
      const { title, rows } = about(this.#view.session, thing, this.#view.utc), head = html("header", {}, html("b", {}, title));
      const href = thing.kind === "incident" && this.options.href ? this.options.href(thing.incident) : null;
      if (href) head.append(html("a", { href }, "the whole story"));
      head.append(button("Close the details", "×", () => {
        this.#select(null);
        this.focus();
      }));
      const list = rows.map(([name, text]) => html("div", {}, html("dt", {}, name), html("dd", {}, text)));
      this.panel.replaceChildren(head, html("dl", {}, ...list));
    }
    /** What was selected, in a newer state of the session. Its details are told anew only where they have changed: a
        reader may be marking them. */
    #keep(thing) {
      if (!thing) return this.#select(null);
      const changed = thing.kind === "fence" && thing.fence.close !== this.#selected.fence.close;
      this.#selected = thing;
      if (changed) this.#details();
    }

    /** Selects the next change that is seen, an incident's too. */
    #next(step) {
      const view = this.#view, now = this.#selected, { session } = view;
      const culprits = session.incidents.filter(({ culprit }) => culprit).map((incident) =>
        ({ kind: "incident", incident, x: view.tx(incident.culprit.time) }));
      const things = [...this.#things, ...culprits.filter(({ x }) => x >= view.gutter && x <= view.right)];
      things.sort((one, other) => one.x - other.x);
      const same = (each) => each.kind === now.kind && each.index === now.index && each.incident === now.incident;
      const known = now ? things.findIndex(same) : -1;
      const next = known >= 0 ? things[known + step] : step > 0 ? things[0] : things[things.length - 1];
      if (next) this.#select(next);
      else this.#move(() => view.pan(step * view.width * 0.5));
    }
    #jump(step) {
      const { incidents } = this.#view.session, now = this.#selected;
      if (!incidents.length) return;
      const at = now && now.kind === "incident" ? incidents.indexOf(now.incident) : step > 0 ? -1 : 0;
      this.show(incidents[(at + step + incidents.length) % incidents.length].number);
    }
  };
})();
