// What is known of the session that is drawn: puts what is new behind what was there, and lets go of what is too old.
const STEP = 6; // numbers a mark, as in guardfs/report/model.py
const WINDOW = 600e6; // us, as in guardfs/web/live.py
const MOST = 1500; // changes, and as many looks, as there
const NEAR = 2000; // us between a change as the incident tells it and its mark
const TABLES = 20000; // entries after which they are made anew

/** A table in which each value stands once. */
class Table {
  #index = new Map();
  values = [];

  of(value, key = value) {
    let found = this.#index.get(key);
    if (found === undefined) {
      found = this.values.push(value) - 1;
      this.#index.set(key, found);
    }
    return found;
  }
}

export class Store {
  constructor() { this.#clear(); }

  get empty() { return this.lanes.length === 0; }
  /** Whether it has grown so much that it should be asked for anew. */
  get worn() { return this.records.length > TABLES || this.facts.values.length > TABLES || this.strings.values.length > TABLES; }

  #clear() {
    this.begin = null;
    this.newest = 0;
    this.lanes = [];
    this.marks = [];
    this.records = [];
    this.fences = new Map();
    this.incidents = new Map();
    this.notes = [];
    this.about = null;
    for (const name of ["strings", "writers", "facts", "names"]) this[name] = new Table();
    this.strings.of("");
  }

  /** Takes what the server tells (`guardfs.report.model.newer`). */
  take(told) {
    if (told.fresh) this.#clear();
    const { session } = told;
    this.begin ??= session.begin;
    this.about = session;
    this.lanes = session.lanes;
    const shift = session.begin - this.begin, lane = session.lanes.map(({ name }) => this.names.of(name));
    this.#marks(told, session, lane, shift);
    for (const fence of session.fences) {
      const kept = { ...fence, lane: lane[fence.lane], open: fence.open + shift, close: fence.close === null ? null : fence.close + shift };
      this.fences.set(`${kept.token} ${kept.open}`, kept);
      this.newest = Math.max(this.newest, kept.close ?? kept.open);
    }
    for (const incident of session.incidents) {
      const { culprit } = incident;
      this.incidents.set(incident.number, {
        ...incident, lane: lane[incident.lane], time: incident.time + shift,
        culprit: culprit && { ...culprit, lane: lane[culprit.lane], time: culprit.time + shift },
      });
      this.newest = Math.max(this.newest, incident.time + shift);
    }
    for (const [time, said] of session.notes) this.notes.push([time + shift, said]);
    this.#trim();
  }

  #marks({ strings, writers, facts }, { marks, records }, lane, shift) {
    const text = strings.map((each) => this.strings.of(each));
    const who = writers.map(([comm, exe, tgid, tid, main, known]) => {
      const row = [text[comm], text[exe], tgid, tid, main, text[known]];
      return this.writers.of(row, row.join());
    });
    const what = facts.map(([op, path, writer, rule, verdict, would, fence, errno, to, quiet]) => {
      const row = [text[op], text[path], who[writer], text[rule], text[verdict], text[would], text[fence], errno, text[to], quiet];
      return this.facts.of(row, row.join());
    });
    let last = this.marks.length ? this.marks[this.marks.length - 1][0] : -Infinity, sorted = true;
    for (let i = 0; i < marks.length; i += STEP) {
      const time = marks[i] + shift, record = marks[i + 4];
      if (time < last) sorted = false;
      last = time;
      const place = record ? this.records.push(records[record - 1]) : 0;
      this.marks.push([time, lane[marks[i + 1]], what[marks[i + 2]], marks[i + 3], place, marks[i + 5]]);
      this.newest = Math.max(this.newest, time);
    }
    if (!sorted) this.marks.sort((one, other) => one[0] - other[0]);
  }

  #trim() {
    const since = this.newest - WINDOW, quiet = (mark) => this.facts.values[mark[2]][9];
    if (this.marks.length && this.marks[0][0] < since) this.marks = this.marks.filter((mark) => mark[0] >= since);
    if (this.marks.length > 2.5 * MOST) {
      const left = [MOST, MOST], kept = [];
      for (let i = this.marks.length - 1; i >= 0; i--) if (left[quiet(this.marks[i])]-- > 0) kept.push(this.marks[i]);
      this.marks = kept.reverse();
    }
    for (const [key, { close }] of this.fences) if (close !== null && close < since) this.fences.delete(key);
    for (const [key, { time }] of this.incidents) if (time < since) this.incidents.delete(key);
    if (this.notes.length && this.notes[0][0] < since) this.notes = this.notes.filter(([time]) => time >= since);
  }

  /** [model, session] as the picture takes them. now: us since the epoch, if the picture is to reach so far. */
  model(now) {
    const rank = new Map(this.lanes.map(({ name }, index) => [this.names.of(name), index]));
    const of = (lane) => rank.get(lane) ?? 0, marks = new Array(this.marks.length * STEP);
    this.marks.forEach(([time, lane, facts, bytes, record, count], i) => {
      const at = i * STEP;
      marks[at] = time;
      marks[at + 1] = of(lane);
      marks[at + 2] = facts;
      marks[at + 3] = bytes;
      marks[at + 4] = record;
      marks[at + 5] = count;
    });
    const session = {
      ...this.about, begin: this.begin, marks, until: {}, records: this.records,
      fences: [...this.fences.values()].map((fence) => ({ ...fence, lane: of(fence.lane) })).sort((a, b) => a.open - b.open),
      incidents: [...this.incidents.values()].map((incident) => ({
        ...incident, lane: of(incident.lane),
        culprit: incident.culprit && { ...incident.culprit, lane: of(incident.culprit.lane), mark: this.#mark(incident.culprit) },
      })),
      notes: this.notes, now: now === null ? null : Math.max(now - this.begin, this.newest),
    };
    return [{ strings: this.strings.values, writers: this.writers.values, facts: this.facts.values }, session];
  }

  /** The mark that is the culprit's change, if it stands alone. */
  #mark({ time, lane }) {
    const times = this.marks.map((mark) => mark[0]);
    let best = null;
    for (let i = guardfs.lower(times, time - NEAR); i < times.length && times[i] <= time + NEAR; i++) {
      const [, its, facts, , , count] = this.marks[i];
      if (its !== lane || count !== 1 || this.facts.values[facts][9]) continue;
      if (best === null || Math.abs(times[i] - time) < Math.abs(times[best] - time)) best = i;
    }
    return best;
  }
}
