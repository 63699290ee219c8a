// What is said of something in the picture: {title, rows: [[name, text]]}.
// A thing is one of {kind: "mark", index, members?}, {kind: "fence", fence}, {kind: "note", note},
// {kind: "incident", incident} and {kind: "incidents", incidents}.
(() => {
  "use strict";
  const { span, count, bytes } = guardfs;
  const REASONS = {
    closed: "the owner's last check passed", died: "a check failed: the turn died", exit: "the owner's process ended",
    idle: "nothing was heard of the owner", replaced: "the same process opened a new one",
  };
  guardfs.roles = {
    owner: "has fences", own: "the same program", other: "another program", unseen: "changed the file below the mount",
  };

  guardfs.about = (session, thing, utc) => {
    const when = (time) => session.clock(time, utc);
    if (thing.kind === "incident") return incident(session, thing.incident, when);
    if (thing.kind === "incidents") return many(thing.incidents, when);
    if (thing.kind === "note") return { title: "Noticed", rows: [["time", when(thing.note[0])], ["what", thing.note[1]]] };
    if (thing.kind === "fence") return fence(session, thing.fence, when);
    return thing.members && thing.members.length > 1 ? several(session, thing, when) : mark(session, thing.index, when);
  };

  function incident(session, found, when) {
    const { culprit } = found, rows = [["who", found.label]];
    if (culprit) rows.push(["changed", when(culprit.time)]);
    const later = culprit ? `, ${span(found.time - culprit.time)} later` : "";
    rows.push([found.lost ? "died" : "would have died", when(found.time) + later]);
    rows.push(["owner", session.lanes[found.lane].name]);
    if (culprit && culprit.mark !== null) {
      rows.push(...mark(session, culprit.mark, when).rows.filter(([name]) => !["time", "lane"].includes(name)));
    }
    return { title: `Incident ${found.number}: turn ${found.lost ? "lost" : "saved"}`, rows };
  }

  function many(incidents, when) {
    const lost = incidents.filter((each) => each.lost).length, said = new Map();
    for (const { label } of incidents) said.set(label, (said.get(label) || 0) + 1);
    const rows = [["from", when(incidents[0].time)], ["to", when(incidents[incidents.length - 1].time)]];
    rows.push(...[...said].map(([label, n]) => [`${count(n)} ×`, label]), ["", "zoom in to tell them apart"]);
    return { title: `${count(incidents.length)} incidents, ${count(lost)} turns lost`, rows };
  }

  function fence(session, { token, open, close, reason, lane, tgid, late }, when) {
    const rows = [["owner", session.lanes[lane].name], ["process", String(tgid)]];
    rows.push(["opened", when(open) + (late ? " (seen only later)" : "")]);
    rows.push(["closed", close === null ? "still open" : when(close)]);
    if (close !== null) rows.push(["lasted", span(close - open)], ["why", REASONS[reason] || reason]);
    return { title: `Fence, token ${token}`, rows };
  }

  function several(session, { members, total }, when) {
    const ops = new Map(), first = members[0], last = members[members.length - 1];
    for (const i of members) ops.set(session.op(i), (ops.get(session.op(i)) || 0) + session.count(i));
    const rows = [["lane", session.lanes[session.lane[first]].name], ["from", when(session.time[first])]];
    rows.push(["to", when(session.time[last])], ...[...ops].map(([op, n]) => [op, `${count(n)} ×`]));
    return { title: `${count(total)} changes`, rows: [...rows, ["", "zoom in to tell them apart"]] };
  }

  function mark(session, i, when) {
    const [, path, , rule, verdict, would, held, errno, to] = session.facts(i), text = (index) => session.text(index);
    const [comm, exe, tgid, tid, main, known] = session.writer(i), rows = [["time", when(session.time[i])]];
    if (session.count(i) > 1) {
      rows.push(["events", `${count(session.count(i))} within ${span(session.until(i) - session.time[i])}`]);
    }
    rows.push(["lane", session.lanes[session.lane[i]].name]);
    const program = [text(comm), text(exe)].filter(Boolean).join(" · ") || text(known);
    if (program) rows.push(["program", program]);
    if (tgid) rows.push(["process", `${tgid}, ${main ? "main thread" : `thread ${tid}`}`]);
    if (text(known)) rows.push(["known", text(known)]);
    if (session.bytes(i) >= 0) rows.push(["bytes", bytes(session.bytes(i))]);
    const record = session.record(i);
    if (record) {
      const [type, role, id, parent, note] = record, kind = [type, role].filter(Boolean).join("/");
      rows.push(["record", [kind, id && `id ${id}`, parent && `after ${parent}`, note].filter(Boolean).join(", ")]);
    }
    rows.push(["file", text(path) + (to ? ` → ${text(to)}` : "")]);
    if (rule) rows.push(["rule", text(rule)]);
    if (verdict) rows.push(["verdict", text(verdict) + (would ? `; the rule would ${text(would)}` : "")]);
    if (held) rows.push(["fence", text(held)]);
    if (errno) rows.push(["error", `errno ${errno}`]);
    return { title: session.op(i) || "event", rows };
  }
})();
