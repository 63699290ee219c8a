// From time to place and back. Where nothing happens for long, time is narrow: a day of silence between two turns of a
// second would leave nothing to see of them.
(() => {
  "use strict";
  const SILENCE = 2e6; // us; shorter pauses are drawn as long as they are

  /** A little more than *number*: the same for most neighbours, so that a picture whose log grows stands still. */
  const rough = (number) => 1.25 ** Math.ceil(Math.log(number) / Math.log(1.25));

  /** The index of the first element of a sorted array that is not below *value*. */
  guardfs.lower = (array, value) => {
    let low = 0, high = array.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (array[middle] < value) low = middle + 1;
      else high = middle;
    }
    return low;
  };

  /**
   * times: us, in any order, of all that happened. A place is a number that grows with time: a microsecond is one,
   * outside of silences. end: the last place. silences: [{from, to, begin, end}], times and places.
   */
  guardfs.Scale = class Scale {
    #times = [];
    #places = [];

    constructor(times) {
      const sorted = Float64Array.from(times).sort(), gaps = [];
      let silent = 0;
      for (let i = 1; i < sorted.length; i++) {
        const wide = sorted[i] - sorted[i - 1];
        if (wide <= SILENCE) continue;
        gaps.push([sorted[i - 1], sorted[i]]);
        silent += wide;
      }
      const first = sorted.length ? sorted[0] : 0, last = sorted.length ? sorted[sorted.length - 1] : 0;
      const active = rough(Math.max(last - first - silent, 1000));
      const edge = active * 0.03; // air around all
      const air = edge / Math.max(1.5, gaps.length / 4); // and around what stands between two silences
      // all silences together take two fifths at most, one alone no more than it needs for its label
      const width = Math.max(active / Math.max(16, gaps.length * 2), air * 2);
      this.silences = [];
      this.#knot(first - edge, 0);
      this.#knot(first, edge);
      for (const [from, to] of gaps) {
        const rest = Math.min(air, (to - from) / 4);
        this.#step(from, 1);
        this.#step(from + rest, 1);
        const begin = this.end;
        this.#knot(to - rest, begin + Math.min(width, to - from - 2 * rest));
        this.silences.push({ from, to, begin, end: this.end });
        this.#step(to, 1);
      }
      this.#step(last, 1);
      this.#step(last + edge, 1);
    }

    get end() { return this.#places[this.#places.length - 1]; }
    get first() { return this.#times[0]; }
    get last() { return this.#times[this.#times.length - 1]; }

    place(time) { return this.#convert(time, this.#times, this.#places); }
    time(place) { return this.#convert(place, this.#places, this.#times); }

    #knot(time, place) {
      this.#times.push(time);
      this.#places.push(place);
    }
    #step(time, slope) { this.#knot(time, this.end + (time - this.last) * slope); }

    #convert(value, from, to) {
      const at = Math.min(Math.max(guardfs.lower(from, value), 1), from.length - 1);
      const wide = from[at] - from[at - 1];
      if (!wide) return to[at];
      const part = Math.min(Math.max((value - from[at - 1]) / wide, 0), 1);
      return to[at - 1] + part * (to[at] - to[at - 1]);
    }
  };
})();
