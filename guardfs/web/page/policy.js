// The policy in force, with the hits of its rules.
const { html, count, span, clock } = guardfs;

export class Policy {
  #key = "";
  #bars = [];

  constructor(root) { this.root = root; }

  /** about: what is said of a guard (`guardfs.web.about.about`). now: us since the epoch. */
  draw(about, now, utc) {
    const { source, digest, rules, error, silent } = about;
    if (silent && !rules.length) {
      this.#key = "";
      return this.root.replaceChildren(html("p", { class: "empty" }, `The guard does not answer: ${silent}`));
    }
    const key = JSON.stringify([source, digest, about.mode, about.mode_from, about.reloads, error, utc, rules.map(([name]) => name)]);
    if (key !== this.#key) this.#build(about, utc);
    this.#key = key;
    this.age.textContent = `${clock(about.since, utc, "full")}, ${span(Math.max(0, now - about.since))} ago`;
    const most = Math.max(1, ...rules.map(([, hits]) => hits)), all = rules.reduce((sum, [, hits]) => sum + hits, 0);
    rules.forEach(([name, hits], index) => {
      const { row, number, bar } = this.#bars[index];
      number.textContent = count(hits);
      bar.value = hits / most;
      row.classList.toggle("none", hits === 0);
      row.title = `${name}: ${count(hits)} of ${count(all)} operations`;
    });
  }

  #build({ source, digest, mode, mode_from: from, reloads, error, lanes, rules }, utc) {
    this.age = html("dd");
    const fact = (name, value) => html("div", {}, html("dt", {}, name), typeof value === "string" ? html("dd", {}, value) : value);
    const facts = html("dl", { class: "about" }, fact("file", source || "?"), fact("mode", `${mode}, as the ${from || "policy"} says`),
      fact("in force since", this.age), fact("lanes", String(lanes)), fact("reloads", String(reloads)));
    if (digest) facts.append(fact("digest", digest.slice(0, 16)));
    this.#bars = rules.map(([name]) => {
      const number = html("span", { class: "hits" }), bar = html("meter", { min: 0, max: 1, "aria-hidden": "true" });
      return { row: html("li", {}, html("span", { class: "rule" }, name), number, bar), number, bar };
    });
    const list = html("ol", { class: "rules", "aria-label": "Rules, first match wins, with hits" }, ...this.#bars.map(({ row }) => row));
    const bad = error ? [html("p", { class: "bad" }, `The file is not what is in force: ${error}`)] : [];
    this.root.replaceChildren(...bad, list, facts);
  }
}
