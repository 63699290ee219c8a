// Times and amounts for people. Times are microseconds since the epoch.
(() => {
  "use strict";
  const two = (number) => String(number).padStart(2, "0");

  /** what: "date", "minute", "second", "milli", "micro", or "full": date, milliseconds and zone. */
  guardfs.clock = (us, utc, what) => {
    const date = new Date(Math.floor(us / 1000));
    if (Number.isNaN(date.getTime())) return "?";
    const get = (part) => date[(utc ? "getUTC" : "get") + part]();
    const day = `${get("FullYear")}-${two(get("Month") + 1)}-${two(get("Date"))}`;
    if (what === "date") return day;
    let text = `${two(get("Hours"))}:${two(get("Minutes"))}`;
    if (what !== "minute") text += `:${two(get("Seconds"))}`;
    const rest = String(((us % 1e6) + 1e6) % 1e6).padStart(6, "0");
    if (what === "micro") text += `.${rest}`;
    if (what === "milli" || what === "full") text += `.${rest.slice(0, 3)}`;
    return what === "full" ? `${day} ${text} ${guardfs.zone(us, utc)}` : text;
  };

  /** "UTC", or the reader's own offset at that time: "+02:00". */
  guardfs.zone = (us, utc) => {
    if (utc) return "UTC";
    const minutes = -new Date(us / 1000).getTimezoneOffset(), size = Math.abs(minutes);
    return `${minutes < 0 ? "−" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}`;
  };

  /** A duration: "38 µs", "412 ms", "3.0 s", "4 min 10 s". */
  guardfs.span = (us) => {
    const s = us / 1e6;
    if (s < 0.001) return `${Math.round(us)} µs`;
    if (s < 1) return `${(us / 1000).toFixed(us < 1e4 ? 1 : 0)} ms`;
    if (s < 60) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min${s % 60 >= 1 ? ` ${Math.floor(s % 60)} s` : ""}`;
    if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    return `${(s / 86400).toFixed(1)} days`;
  };

  guardfs.count = (number) => number.toLocaleString("en");
  guardfs.bytes = (number) => `${guardfs.count(number)} byte${number === 1 ? "" : "s"}`;
})();
