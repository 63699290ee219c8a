// The last events, newest first.
const { html, clock } = guardfs;
const MOST = 200; // rows that are elements
const AT_ONCE = 25; // rows added in one frame

export class Tail {
  #waiting = [];
  #left = 0;
  #pressed = false; // rows stand still, or a click would begin on one and end on another
  utc = true;

  /** onselect: gets the session of a row that was clicked. */
  constructor(root, { onselect }) {
    this.root = root;
    root.addEventListener("pointerdown", () => (this.#pressed = true));
    for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => (this.#pressed = false));
    root.addEventListener("click", (event) => {
      const row = event.target.closest(".event");
      if (row?.dataset.session && !String(getSelection())) onselect(row.dataset.session);
    });
  }

  /** Takes rows (`guardfs.web.tail.Tail`), oldest first. */
  take({ rows, more, fresh }) {
    if (fresh) {
      this.#waiting = [];
      this.#left = 0;
      this.root.replaceChildren();
    } else if (more) this.#left += 1;
    this.#waiting.push(...rows);
    if (this.#waiting.length > MOST) {
      this.#waiting = this.#waiting.slice(-MOST);
      this.#left += 1;
    }
  }

  /** Draws what has come; whether there is still more to draw. */
  draw() {
    if (this.#pressed) return true;
    if (!this.#waiting.length) {
      if (!this.root.firstChild) this.root.append(html("p", { class: "empty" }, "no such event yet"));
      return false;
    }
    if (this.root.firstChild?.classList.contains("empty")) this.root.replaceChildren();
    const now = this.#waiting.splice(0, AT_ONCE), part = document.createDocumentFragment();
    for (let i = now.length - 1; i >= 0; i--) part.append(this.#row(now[i]));
    if (this.#left) {
      part.append(html("div", { class: "event more" }, "… more events came than are shown"));
      this.#left = 0;
    }
    this.root.prepend(part);
    while (this.root.childElementCount > MOST) this.root.lastChild.remove();
    return this.#waiting.length > 0;
  }

  zone(utc) {
    this.utc = utc;
    for (const time of this.root.querySelectorAll("time")) time.textContent = clock(Number(time.dataset.us), utc, "milli");
  }

  #row({ t, op, lane = "", who = "guardfs", where = "", session = "", what = "", result = "", tone = "" }) {
    const place = session || where, time = html("time", { "data-us": t }, clock(t, this.utc, "milli"));
    const cell = (name, text, title = text) => html("span", title ? { class: name, title } : { class: name }, text);
    const file = html("span", { class: "where", title: where || place }, ...guardfs.ends(place));
    const row = html("div", { class: `event ${tone}` }, time, cell("lane", lane || who, who),
      cell("op", where.endsWith(".lock") ? `lock ${op}` : op), file, cell("what", what), cell("result", result));
    if (session) row.dataset.session = session;
    return row;
  }
}
