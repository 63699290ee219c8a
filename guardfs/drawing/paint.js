// Draws the parts of a picture that are not incidents: each function gives the elements of one layer.
(() => {
  "use strict";
  const { svg, span, lower, shape } = guardfs;
  const BIN = 11; // px within which changes of a lane become one mark with a number
  const BAR = 22; // px, the height of a fence
  const MEMBERS = 200; // of such a mark that are remembered
  const MINUTE = 6e7, HOUR = 60 * MINUTE, DAY = 24 * HOUR; // us
  const STEPS = [100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 15e6, 3e7, MINUTE,
    2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, DAY];

  const paint = (guardfs.paint = {});
  /** px that a time on the axis needs, for ticks so many us apart. */
  const room = (step) => (step < 1e3 ? 104 : step < 1e6 ? 88 : 72);
  const pill = (total) => 9 + brief(total).length * 6;
  const brief = (total) => (total > 999 ? `${Math.round(total / 1000)}k` : String(total));
  const fixed = (number) => number.toFixed(1);

  paint.rows = (view) => view.session.lanes.map((_, index) =>
    svg("rect", { class: `row ${index % 2 ? "odd" : "even"}`, x: 0, y: view.rows[index].y, width: view.whole, height: view.rows[index].high }));

  paint.labels = (view) => {
    const { session, bottom, utc } = view, zone = guardfs.zone(session.begin + session.scale.time(view.a), utc);
    const found = session.lanes.map((lane, index) => label(view, lane, view.rows[index]));
    if (!view.narrow) found.push(svg("text", { class: "zone", x: 18, y: bottom + 16 }, zone)); // else beside the date
    return found;
  };

  function label(view, lane, { y, middle }) {
    const at = view.narrow ? y + 12 : middle, high = view.narrow ? 12 : 18;
    const most = Math.floor(((view.narrow ? view.whole : view.gutter) - 24) / 7);
    const name = lane.name.length > most ? `${lane.name.slice(0, Math.max(3, most - 1))}…` : lane.name;
    return svg("g", { class: `label role-${lane.role}`, "data-lane": lane.name },
      svg("title", {}, `${lane.name} (${guardfs.roles[lane.role] || lane.role})`),
      svg("rect", { class: "swatch", x: 6, y: at - high / 2, width: 4, height: high, rx: 2 }),
      svg("text", { x: 18, y: at, dy: "0.35em" }, name));
  }

  paint.silences = (view, hatch) => {
    const found = [];
    for (const silence of view.session.scale.silences) {
      if (silence.end < view.a || silence.begin > view.b) continue;
      const x = view.px(silence.begin), width = view.px(silence.end) - x;
      if (width < 3) continue;
      const text = span(silence.to - silence.from), at = { x, y: view.top, width, height: view.bottom - view.top };
      const group = svg("g", { class: "silence" }, svg("title", {}, `nothing happened for ${text}`),
        svg("rect", { class: "ground", ...at }), svg("rect", { ...at, fill: `url(#${hatch})` }));
      if (width > text.length * 6 + 6) {
        group.append(svg("text", { x: x + width / 2, y: view.bottom + 29, "text-anchor": "middle" }, text));
      }
      found.push(group);
    }
    return found;
  };

  /** Ticks at round times, none within a silence. */
  paint.axis = (view) => {
    const { scale, begin } = view.session, { utc, bottom } = view, out = [];
    const step = STEPS.find((each) => each >= (view.wide / view.width) * room(each)) || DAY;
    const what = step < 1e3 ? "micro" : step < 1e6 ? "milli" : step < MINUTE ? "second" : "minute";
    const label = room(step) - 12, dated = view.narrow ? 100 : 76; // px that a time, and a date, need
    let last = -Infinity, day = "", dayAt = -Infinity;
    const tick = (time, form) => {
      const x = view.tx(time);
      if (x - last < label || x > view.right - 30 || x < view.gutter + 46) return;
      last = x;
      out.push(svg("line", { class: "grid", x1: x, x2: x, y1: view.top, y2: bottom + 4 }),
        svg("text", { x, y: bottom + 16, "text-anchor": "middle" }, guardfs.clock(begin + time, utc, form)));
      const date = guardfs.clock(begin + time, utc, "date") + (view.narrow ? ` ${guardfs.zone(begin + time, utc)}` : "");
      if (date === day || x - dayAt < dated) return;
      out.push(svg("text", { class: "day", x, y: bottom + 29, "text-anchor": "middle" }, date));
      [day, dayAt] = [date, x];
    };
    for (const [from, to] of pieces(scale, view.a, view.b)) {
      if (view.tx(to) - last < label) continue;
      const shift = utc ? 0 : -new Date((begin + from) / 1000).getTimezoneOffset() * MINUTE;
      let time = Math.ceil((begin + from + shift) / step) * step - begin - shift;
      if (time > to) tick((from + to) / 2, what === "minute" ? "second" : what);
      for (; time <= to; time += step) tick(time, what);
    }
    out.push(svg("line", { class: "base", x1: view.gutter, x2: view.whole, y1: bottom, y2: bottom }));
    return out;
  };

  /** The stretches of time between silences, from place a to b. */
  function* pieces(scale, a, b) {
    let from = scale.time(a);
    for (const silence of scale.silences) {
      if (silence.end < a) continue;
      if (silence.begin > b) break;
      if (silence.begin > a) yield [from, scale.time(silence.begin)];
      from = Math.max(from, scale.time(silence.end));
    }
    const to = scale.time(b);
    if (to > from) yield [from, to];
  }

  /** How far each fence reaches: across all lanes, since it is their writes that break it. */
  paint.bands = (view) => {
    const bands = [];
    for (const { x, width, fence } of visible(view)) {
      const died = fence.reason === "died", last = bands.findLast((each) => each.died === died);
      if (last && x <= last.end) last.end = Math.max(last.end, x + width); // each place is tinted once
      else bands.push({ x, end: x + width, died });
    }
    return bands.map(({ x, end, died }) =>
      svg("rect", { class: `band${died ? " died" : ""}`, x, y: view.top, width: end - x, height: view.bottom - view.top }));
  };

  paint.fences = (view) => visible(view).map(({ x, width, fence }) => {
    const row = view.rows[fence.lane], died = fence.reason === "died";
    const y = row.middle - BAR / 2 + (fence.track - (view.session.tracks[fence.lane] - 1) / 2) * 14;
    const group = svg("g", { class: `fence${died ? " died" : ""}${fence.close === null ? " open" : ""}`, "data-token": fence.token, "data-reason": fence.reason },
      svg("rect", { x, y, width, height: BAR, rx: Math.min(5, width / 2) }));
    const text = `#${fence.token}`;
    if (width > 24 + text.length * 6 && free(view, fence.lane, x, x + 12 + text.length * 6)) {
      group.append(svg("text", { x: x + 6, y: row.middle, dy: "0.35em" }, text));
    }
    group.thing = { kind: "fence", fence };
    return group;
  });

  /** Fences that are seen, those that would share a pixel but once. */
  function visible(view) {
    const left = view.gutter - 8, right = view.right + 8, ends = new Map(), found = [];
    for (const fence of view.session.fences) {
      const a = view.tx(fence.open), b = fence.close === null ? view.right + 8 : view.tx(fence.close);
      if (b < left || a > right) continue;
      const key = `${fence.lane}/${fence.track}`;
      if (b - a < 1.5 && ends.get(key) > a - 1) continue;
      ends.set(key, b);
      const x = Math.max(a, left);
      found.push({ x, width: Math.max(Math.min(b, right) - x, 2.5), fence });
    }
    return found;
  }

  /** Whether no change of a lane, and no check, is drawn between two x. */
  function free(view, lane, from, to) {
    const { incidents } = view.session, near = (x) => x > from - 10 && x < to + 10;
    if (incidents.some((each) => each.lane === lane && near(view.tx(each.time)))) return false;
    const { places, n } = view.session, end = view.place(to + 6);
    for (let i = lower(places, view.place(from - 6)); i < n && places[i] <= end; i++) {
      if (view.session.lane[i] === lane && !view.session.quiet(i)) return false;
    }
    return true;
  }

  /** Looks as fine lines, one path a lane; and things {kind: "mark"} with x, lane and total: what is drawn as one. */
  paint.gather = (view) => {
    const { session } = view, { places, lane } = session, air = view.wide * 0.02;
    const from = Math.max(0, lower(places, view.a - air) - 1), to = lower(places, view.b + air);
    const seen = session.lanes.map(() => new Set()), groups = session.lanes.map(() => null), things = [];
    for (let i = from; i < to; i++) {
      const x = view.px(places[i]);
      if (session.quiet(i)) seen[lane[i]].add(Math.round(x));
      else if (!session.blamed.has(i)) {
        let group = groups[lane[i]];
        if (!group || x - group.x > (group.total > 1 ? Math.max(BIN, pill(group.total) + 1) : BIN)) {
          group = groups[lane[i]] = { kind: "mark", index: i, x, total: 0, held: false, members: [] };
          things.push(group);
        }
        group.total += session.count(i);
        group.held ||= session.held(i);
        if (group.members.length < MEMBERS) group.members.push(i);
      }
    }
    const looks = seen.map((xs, index) => {
      const y = view.rows[index].middle + BAR / 2 + 3;
      const d = Array.from(xs, (x) => `M${x + 0.5} ${y}v6`).join("");
      return svg("path", { class: `looks role-${session.lanes[index].role}`, "data-lane": session.lanes[index].name, d });
    });
    return { looks, things };
  };

  paint.mark = (view, thing) => {
    const { session } = view, i = thing.index, lane = session.lanes[session.lane[i]], op = session.op(i);
    const classes = `mark role-${lane.role}${thing.held ? " held" : ""}${session.failed(i) ? " failed" : ""}`;
    const group = svg("g", { class: classes, transform: `translate(${fixed(thing.x)} ${view.rows[session.lane[i]].middle})`, "data-op": op, "data-lane": lane.name, "data-count": thing.total });
    if (thing.held) group.append(svg("path", { class: "around", d: guardfs.around }));
    if (thing.total === 1) group.append(svg("path", { class: "symbol", d: shape(op) }));
    else {
      const width = pill(thing.total);
      group.append(svg("rect", { class: "symbol", x: -width / 2, y: -7.5, width, height: 15, rx: 7.5 }),
        svg("text", { class: "number", y: 3.6, "text-anchor": "middle" }, brief(thing.total)));
    }
    group.append(svg("circle", { class: "hit", r: 10 }));
    group.thing = thing;
    return group;
  };
})();
