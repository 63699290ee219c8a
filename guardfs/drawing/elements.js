// Elements of a page, made without markup: whatever a name holds, it gets into the page as text.
window.guardfs = window.guardfs || {};
(() => {
  "use strict";
  const NS = "http://www.w3.org/2000/svg";

  function filled(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  /** An SVG element. children: elements and texts. */
  guardfs.svg = (name, attributes = {}, ...children) =>
    filled(document.createElementNS(NS, name), attributes, children);

  /** An HTML element. */
  guardfs.html = (name, attributes = {}, ...children) =>
    filled(document.createElement(name), attributes, children);

  /** A button. label: what it does, for all; text: what it shows. */
  guardfs.button = (label, text, act) => {
    const element = guardfs.html("button", { type: "button", "aria-label": label, title: label }, text);
    element.addEventListener("click", act);
    return element;
  };
})();
