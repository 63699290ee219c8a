// Draws incidents: the culprit's change in red, a line to the check that failed, a tag above; and what else was noticed.
(() => {
  "use strict";
  const { svg, paint } = guardfs;
  const NEAR = 24; // px within which incidents become one with a number
  const GLYPH = 6.4; // px, a character of a tag
  const fixed = (number) => number.toFixed(1);

  /** Elements of three layers: lines, points, tags. */
  paint.incidents = (view) => {
    const out = { lines: [], points: [], tags: [] }, ends = [-Infinity, -Infinity];
    for (const group of gather(view)) {
      const thing = group.length > 1 ? { kind: "incidents", incidents: group.map((each) => each.incident) }
        : { kind: "incident", incident: group[0].incident };
      const x = (group[0].x + group[group.length - 1].x) / 2, kind = group.some((each) => each.incident.lost) ? "lost" : "saved";
      const tag = place(view, thing, kind, x, ends);
      if (tag) out.tags.push(tag.element);
      out.lines.push(svg("line", { class: `death ${kind}`, x1: x, x2: x, y1: tag ? tag.bottom : view.top, y2: view.bottom }));
      if (group.length > 1) several(view, group, thing, kind, x, out);
      else one(view, group[0], thing, kind, out);
    }
    return out;
  };

  /** The incidents that are seen, by time; those that would lie on each other together. */
  function gather(view) {
    const groups = [], left = view.gutter - 200, right = view.right + 200;
    for (const incident of view.session.incidents) {
      const x = view.tx(incident.time), from = incident.culprit ? view.tx(incident.culprit.time) : x;
      if ((x < left && from < left) || (x > right && from > right)) continue;
      const last = groups[groups.length - 1];
      if (last && x - last[0].x < NEAR) last.push({ incident, x, from });
      else groups.push([{ incident, x, from }]);
    }
    return groups;
  }

  function one(view, { incident, x, from }, thing, kind, { lines, points }) {
    const { culprit, number } = incident, y = view.rows[incident.lane].middle;
    if (culprit) {
      const at = view.rows[culprit.lane].middle, bend = Math.min(90, (x - from) / 2);
      lines.push(svg("path", { class: `join ${kind}`, d: `M${from} ${at}C${from + bend} ${at} ${x - bend} ${y} ${x} ${y}` }));
      points.push(point("culprit", from, at, thing, guardfs.culprit(culprit.op),
        { "data-number": number, "data-lane": view.session.lanes[culprit.lane].name }));
    }
    points.push(point(`check ${kind}`, x, y, thing, guardfs.died(), { "data-number": number }));
  }

  function several(view, group, thing, kind, x, { points }) {
    const culprits = new Map(), owners = new Map();
    for (const { incident, from } of group) {
      owners.set(incident.lane, (owners.get(incident.lane) || 0) + 1);
      if (!incident.culprit) continue;
      const { lane, op } = incident.culprit, { n, sum } = culprits.get(lane) || { n: 0, sum: 0 };
      culprits.set(lane, { n: n + 1, sum: sum + from, op });
    }
    for (const [lane, n] of owners) points.push(point(`check ${kind} many`, x, view.rows[lane].middle, thing, pill(n)));
    for (const [lane, { n, sum, op }] of culprits) {
      const [name, shapes] = n > 1 ? ["culprit many", pill(n)] : ["culprit", guardfs.culprit(op)];
      points.push(point(name, sum / n, view.rows[lane].middle, thing, shapes, { "data-lane": view.session.lanes[lane].name }));
    }
  }

  function point(name, x, y, thing, shapes, attributes = {}) {
    const found = svg("g", { class: name, transform: `translate(${fixed(x)} ${y})`, ...attributes }, ...shapes);
    found.thing = thing;
    return found;
  }
  function pill(number) {
    const width = 10 + String(number).length * 6.4;
    return [svg("rect", { class: "pill", x: -width / 2, y: -8.5, width, height: 17, rx: 8.5 }),
      svg("text", { y: 3.8, "text-anchor": "middle" }, String(number))];
  }

  /** The tag of one or several incidents, in the first row with room for it; null if there is none. */
  function place(view, thing, kind, x, ends) {
    if (x < view.gutter || x > view.right + 4) return null;
    for (const text of texts(view, thing, kind)) {
      const width = text.length * GLYPH + 18;
      const begin = Math.max(view.gutter + 2, Math.min(x - width / 2, view.right - width));
      const row = ends.findIndex((end, index) => index < view.tagRows && end < begin);
      if (row < 0) continue;
      ends[row] = begin + width + 6;
      const y = view.tag(row), number = thing.kind === "incident" ? { "data-number": thing.incident.number } : {};
      const element = svg("g", { class: `tag ${kind}`, ...number }, svg("rect", { x: begin, y, width, height: 18, rx: 9 }),
        svg("text", { x: begin + width / 2, y: y + 9, dy: "0.35em", "text-anchor": "middle" }, text));
      element.thing = thing;
      return { element, bottom: y + 18 };
    }
    return null;
  }

  /** What a tag may say, from the longest on. */
  function texts(view, thing, kind) {
    if (thing.kind === "incidents") {
      const n = thing.incidents.length, all = thing.incidents.every((each) => each.lost === (kind === "lost"));
      return all ? [`${n} ${kind}`, `${n}`] : [`${n} incidents`, `${n}`];
    }
    const { culprit, number } = thing.incident, who = culprit ? view.session.lanes[culprit.lane].name : "nobody seen";
    return [`${number} ${kind} · ${who}`, `${number} ${kind}`, `${number}`];
  }

  paint.notes = (view) => {
    const found = [];
    let last = -Infinity;
    for (const note of view.session.notes) {
      const x = view.tx(note[0]);
      if (x < view.gutter || x > view.right || x - last < 3) continue;
      last = x;
      const flag = [svg("path", { d: "M0 0l-5-8h10z" }), svg("line", { x1: 0, x2: 0, y1: 0, y2: view.bottom - view.top })];
      found.push(point("note", x, view.top, { kind: "note", note }, flag));
    }
    return found;
  };

  /** A ring around what is selected. */
  paint.chosen = (view, thing) => {
    if (!thing || (thing.kind !== "mark" && thing.kind !== "incident")) return [];
    const { session } = view, ring = (time, lane, r) =>
      svg("circle", { class: "chosen", cx: view.tx(time), cy: view.rows[lane].middle, r });
    if (thing.kind === "mark") return [ring(session.time[thing.index], session.lane[thing.index], 13)];
    const { incident } = thing, rings = [ring(incident.time, incident.lane, 12)];
    if (incident.culprit) rings.push(ring(incident.culprit.time, incident.culprit.lane, 15));
    return rings;
  };
})();
