// One session of the model (guardfs/report/model.py), unpacked.
(() => {
  "use strict";
  const STEP = 6; // numbers a mark

  /**
   * n: marks. time, lane: of each mark. Further facts of a mark by its number: op, quiet, held, failed, bytes, count,
   * until, record. now: up to when it is drawn though nothing happens; null: no further than that. blamed: numbers of the marks that are a culprit's change. tracks: lines that each lane's fences need.
   */
  guardfs.Session = class Session {
    constructor(shared, session) {
      this.shared = shared;
      Object.assign(this, {
        name: session.name, files: session.files, lanes: session.lanes, begin: session.begin, events: session.events,
        lost: session.lost, saved: session.saved, fences: session.fences.map((each) => ({ ...each })),
        incidents: session.incidents, notes: session.notes, now: session.now ?? null,
      });
      this.flat = session.marks;
      this.records = session.records;
      this.untils = session.until;
      this.n = this.flat.length / STEP;
      this.time = new Float64Array(this.n);
      this.lane = new Uint16Array(this.n);
      for (let i = 0; i < this.n; i++) {
        this.time[i] = this.flat[i * STEP];
        this.lane[i] = this.flat[i * STEP + 1];
      }
      this.blamed = new Set();
      for (const { culprit } of this.incidents) if (culprit && culprit.mark !== null) this.blamed.add(culprit.mark);
      this.scale = new guardfs.Scale(this.#times());
      this.places = Float64Array.from(this.time, (time) => this.scale.place(time));
      this.#tracks();
    }

    text(index) { return this.shared.strings[index]; }
    facts(i) { return this.shared.facts[this.flat[i * STEP + 2]]; }
    op(i) { return this.text(this.facts(i)[0]); }
    quiet(i) { return this.facts(i)[9] === 1; }
    failed(i) { return this.facts(i)[7] !== 0; }
    held(i) { return this.facts(i)[5] !== 0 || !["", "allow"].includes(this.text(this.facts(i)[4])); }
    bytes(i) { return this.flat[i * STEP + 3]; }
    count(i) { return this.flat[i * STEP + 5]; }
    until(i) { return this.untils[i] ?? this.time[i]; }
    record(i) { return this.records[this.flat[i * STEP + 4] - 1] || null; }
    writer(i) { return this.shared.writers[this.facts(i)[2]]; }
    clock(time, utc, what = "full") { return guardfs.clock(this.begin + time, utc, what); }

    /** The fence that an incident broke. */
    broken(incident) {
      return this.fences.findLast((each) => each.lane === incident.lane && each.open <= incident.time &&
        (each.close === null || each.close >= incident.time - 1e6)) || null;
    }

    /** The same thing as in *before*, an older state of this session; null if it is not there any more. */
    again(thing, before) {
      const shift = before.begin - this.begin, at = (time) => time + shift;
      if (thing.kind === "incident") {
        const incident = this.incidents.find((each) => each.number === thing.incident.number);
        return incident ? { kind: "incident", incident } : null;
      }
      if (thing.kind === "incidents") {
        const numbers = new Set(thing.incidents.map((each) => each.number));
        const incidents = this.incidents.filter((each) => numbers.has(each.number));
        return incidents.length ? { kind: "incidents", incidents } : null;
      }
      if (thing.kind === "fence") {
        const fence = this.fences.find(({ token, open }) => token === thing.fence.token && open === at(thing.fence.open));
        return fence ? { kind: "fence", fence } : null;
      }
      if (thing.kind === "note") {
        const note = this.notes.find(([time, said]) => time === at(thing.note[0]) && said === thing.note[1]);
        return note ? { kind: "note", note } : null;
      }
      if (thing.kind !== "mark") return null;
      const name = before.lanes[before.lane[thing.index]].name, op = before.op(thing.index), time = at(before.time[thing.index]);
      for (let i = guardfs.lower(this.time, time); i < this.n && this.time[i] === time; i++) {
        if (this.lanes[this.lane[i]].name === name && this.op(i) === op) return { ...thing, index: i, ...this.#members(thing, i) };
      }
      return null;
    }
    /** The marks that are drawn as one with mark *index*, by their new numbers. */
    #members({ members, index: old }, index) {
      if (!members) return {};
      const found = members.map((each) => each - old + index);
      return found.every((each) => each < this.n && this.lane[each] === this.lane[index]) ? { members: found } : { members: [index] };
    }

    #times() {
      const times = Array.from(this.time);
      for (const key in this.untils) times.push(this.untils[key]);
      for (const { time, culprit } of this.incidents) times.push(time, ...(culprit ? [culprit.time] : []));
      for (const { open, close } of this.fences) times.push(open, ...(close === null ? [] : [close]));
      for (const [time] of this.notes) times.push(time);
      if (this.now !== null) times.push(this.now);
      return times;
    }

    /** Fences of one lane that overlap get lines of their own. */
    #tracks() {
      const ends = this.lanes.map(() => []);
      for (const fence of this.fences) {
        const lane = ends[fence.lane];
        let track = lane.findIndex((end) => end <= fence.open);
        if (track < 0) track = lane.length < 3 ? lane.push(0) - 1 : 2;
        lane[track] = fence.close === null ? Infinity : fence.close;
        fence.track = track;
      }
      this.tracks = ends.map((lane) => Math.max(1, lane.length));
    }
  };
})();
