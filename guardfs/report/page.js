// The report's own part: draws each session's picture when it is first seen, and leads from stories to pictures.
(() => {
  "use strict";
  const { html } = guardfs;
  const model = JSON.parse(document.getElementById("model").textContent);
  const pictures = new Map();
  let utc = true;

  const story = (incident) => document.getElementById(`incident-${incident.number}`) ? `#incident-${incident.number}` : null;

  function picture(details) {
    const number = Number(details.dataset.session);
    let found = pictures.get(number);
    if (!found) {
      found = new guardfs.Swimlanes(details.querySelector(".picture"), { href: story });
      pictures.set(number, found);
      found.utc(utc);
      found.set(model, model.sessions[number]);
    }
    return found;
  }

  for (const details of document.querySelectorAll("details.session")) {
    if (details.open) picture(details);
    details.addEventListener("toggle", () => details.open && picture(details));
  }

  document.getElementById("legend").append(...guardfs.legend());
  const zone = html("button", { type: "button", "aria-pressed": "false" }, "Local time");
  zone.addEventListener("click", () => {
    utc = !utc;
    zone.setAttribute("aria-pressed", String(!utc));
    for (const each of pictures.values()) each.utc(utc);
  });
  if (model.sessions.length) document.getElementById("tools").append(zone);

  for (const button of document.querySelectorAll("button[data-show]")) {
    button.addEventListener("click", () => {
      const details = document.querySelector(`details.session[data-session="${Number(button.dataset.session)}"]`);
      details.open = true;
      const shown = picture(details);
      shown.show(Number(button.dataset.show));
      details.scrollIntoView({ block: "start" });
      shown.focus();
    });
  }
})();
