// The shapes of marks, and what they mean.
(() => {
  "use strict";
  const { svg, html } = guardfs;
  const SYMBOLS = {
    circle: "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    square: "M-4.2-4.2h8.4v8.4h-8.4z",
    cut: "M-4.5-4.5h9l-9 9z",
    plus: "M-1.6-5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z",
    up: "M0-5.4l5.4 9.6h-10.8z",
    right: "M5.6 0l-9.6 5.2v-10.4z",
    cross: "M-5-3l2-2 3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3z",
    star: "M-1.4-5.6h2.8v3.2l2.8-1.6 1.4 2.4-2.8 1.6 2.8 1.6-1.4 2.4-2.8-1.6v3.2h-2.8v-3.2l-2.8 1.6-1.4-2.4 2.8-1.6-2.8-1.6 1.4-2.4 2.8 1.6z",
    down: "M-1.6-5.4h3.2v4.4h3.6l-5.2 6-5.2-6h3.6z",
    diamond: "M0-9.5l9.5 9.5-9.5 9.5-9.5-9.5z",
  };
  const SHAPES = {
    append: "circle", write: "square", rewrite: "square", truncate: "cut", create: "plus", mknod: "plus",
    mkdir: "plus", symlink: "plus", attributes: "up", xattr: "up", rename: "right", "rename away": "right",
    "rename over": "right", link: "right", unlink: "cross", rmdir: "cross",
  };

  /** The path of what an operation, or an incident's change, is drawn as. */
  guardfs.shape = (op) => {
    if (op.startsWith("unseen")) return SYMBOLS.star;
    return SYMBOLS[op.startsWith("rebased") ? "down" : SHAPES[op] || "circle"];
  };
  guardfs.around = SYMBOLS.diamond;

  guardfs.culprit = (op) =>
    [svg("circle", { class: "ring", r: 10 }), svg("path", { class: "symbol", d: guardfs.shape(op) })];
  guardfs.died = () => [svg("circle", { r: 7 }), svg("path", { d: "M-3-3l6 6m0-6l-6 6" })];

  /** The shapes with their meanings: elements to put into a page. */
  guardfs.legend = () => {
    const entry = (shape, text) => html("span", { class: "lanes-legend" },
      svg("svg", { width: 22, height: 22, viewBox: "-11 -11 22 22", class: "lanes", "aria-hidden": "true" }, shape),
      text);
    const symbol = (op) => svg("g", { class: "mark role-own" }, svg("path", { class: "symbol", d: guardfs.shape(op) }));
    const held = svg("g", { class: "mark held role-own" },
      svg("path", { class: "around", d: SYMBOLS.diamond }), svg("path", { class: "symbol", d: SYMBOLS.circle }));
    return [
      entry(svg("g", { class: "fence" }, svg("rect", { x: -10, y: -6, width: 20, height: 12, rx: 3 })),
        "fence: the owner relies on the file"),
      entry(svg("g", { class: "culprit" }, ...guardfs.culprit("append")), "culprit"),
      entry(svg("g", { class: "check lost" }, ...guardfs.died()), "the check that the turn died of"),
      entry(symbol("append"), "append"), entry(symbol("write"), "write"), entry(symbol("truncate"), "truncate"),
      entry(symbol("create"), "create"), entry(symbol("attributes"), "attributes"),
      entry(symbol("rename"), "rename, link"), entry(symbol("unlink"), "remove"),
      entry(symbol("unseen"), "below the mount"), entry(held, "staged or held, or would be"),
      entry(symbol("rebased"), "rebased: it is in the file now"),
      entry(svg("path", { class: "looks role-own", d: "M-4-3v7M0-3v7M4-3v7" }), "looks, opens, lock file"),
    ];
  };
})();
