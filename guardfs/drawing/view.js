// Which part of a session is seen, and where it lies on the screen. No element is touched here.
(() => {
  "use strict";
  const ROW = 42, TRACK = 14, AXIS = 36, TAG = 22, HEAD = 17; // px; HEAD: a lane's name above its line, on narrow screens
  const NARROW = 620; // px
  const LEAST = 400; // us that are seen at least

  /**
   * span: us that are seen of what comes, null: none is followed. a, b: first and last place that is seen. gutter, width, whole: px of the lanes' names, of the picture, of both.
   * rows: of each lane, y, high and middle. top, bottom, height: of the lanes, and of all with the axis. tagRows: lines
   * of tags above.
   */
  guardfs.View = class View {
    constructor() {
      this.session = null;
      this.span = null;
      this.utc = false;
      this.a = this.b = 0;
      this.measure(800);
    }

    /** Takes a session, or a newer state of it: what was seen stays; who looked at the end still does. */
    set(session) {
      const before = this.session && this.session.scale;
      const whole = !before || this.b - this.a >= before.end * 0.999;
      const follows = before && this.b >= before.end * 0.999, wide = this.b - this.a;
      const [from, to] = before ? [before.time(this.a), before.time(this.b)] : [0, 0];
      this.session = session;
      if (this.span !== null) this.last(this.span);
      else if (whole) this.look(0, session.scale.end);
      else if (follows) this.look(session.scale.end - wide, session.scale.end);
      else this.look(session.scale.place(from), session.scale.place(to));
      this.measure(this.whole);
    }

    /** Lays all out for a width in px. */
    measure(whole) {
      this.whole = whole;
      this.narrow = whole < NARROW;
      if (!this.session) return;
      const { lanes, incidents, notes, tracks } = this.session;
      const longest = Math.max(8, ...lanes.map((lane) => lane.name.length));
      this.gutter = this.narrow ? 0 : Math.min(240, 30 + longest * 7.2);
      this.width = Math.max(whole - this.gutter - 6, 50);
      this.tagRows = incidents.length ? Math.min(2, incidents.length) : notes.length ? 1 : 0;
      let y = 6 + TAG * this.tagRows;
      this.top = y;
      const head = this.narrow ? HEAD : 0;
      this.rows = lanes.map((_, index) => {
        const high = ROW + (tracks[index] - 1) * TRACK + head;
        const row = { y, high, middle: y + head + (high - head) / 2 - 3 };
        y += high;
        return row;
      });
      this.bottom = y;
      this.height = y + AXIS;
    }

    get wide() { return this.b - this.a; }
    get right() { return this.gutter + this.width; }
    /** The top of a row of tags: the first lies next to the lanes. */
    tag(row) { return 4 + (this.tagRows - 1 - row) * TAG; }
    px(place) { return this.gutter + ((place - this.a) / this.wide) * this.width; }
    tx(time) { return this.px(this.session.scale.place(time)); }
    place(x) { return this.a + ((x - this.gutter) / this.width) * this.wide; }
    row(y) { return this.rows.findIndex((row) => y >= row.y && y < row.y + row.high); }

    look(a, b) {
      const end = this.session.scale.end, wide = Math.min(Math.max(b - a, LEAST), end);
      this.a = Math.max(0, Math.min((a + b - wide) / 2, end - wide));
      this.b = this.a + wide;
    }
    /** Follows what comes: the last so many us, 0: all. Until `span` is null again. */
    last(us) {
      this.span = us;
      if (!this.session) return;
      const { end } = this.session.scale;
      this.look(us ? Math.max(0, end - us) : 0, end);
    }
    all() { this.look(0, this.session.scale.end); }
    pan(pixels) {
      const shift = (pixels / this.width) * this.wide;
      const room = Math.max(-this.a, Math.min(shift, this.session.scale.end - this.b));
      this.look(this.a + room, this.b + room);
    }
    /** factor: below 1 to see less, larger. x: what stays where it is. */
    zoom(factor, x = this.gutter + this.width / 2) {
      const part = (x - this.gutter) / this.width, at = this.place(x);
      const wide = Math.min(Math.max(this.wide * factor, LEAST), this.session.scale.end);
      this.look(at - wide * part, at + wide * (1 - part));
    }
    /** Makes the span of an incident fill most of the picture: from the fence's opening to the check. */
    show(incident) {
      const { scale } = this.session, fence = this.session.broken(incident);
      const starts = [fence ? fence.open : incident.time - 1e6, incident.culprit ? incident.culprit.time : Infinity];
      const a = scale.place(Math.min(...starts)), b = scale.place(incident.time);
      const air = Math.max((b - a) * 0.25, 5e4);
      this.look(a - air, b + air);
    }
  };
})();
