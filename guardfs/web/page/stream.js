// The stream of what is new, across lost connections.
const RETRY = 2000; // ms after an answer that is no stream

/** onmessage: gets each message. onstate: "live", "lost", and why. */
export class Stream {
  #source = null;
  #timer = 0;
  #id = "";
  #about = {};

  constructor({ onmessage, onstate }) {
    this.onmessage = onmessage;
    this.onstate = onstate;
    // a page that a browser keeps to go back to would keep its connection too, and of those there are six
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => event.persisted && this.#connect([]));
  }

  /** Asks for something else. about: names and values of the address; fresh: what is to be told from the beginning. */
  open(about, fresh = []) {
    this.#about = about;
    this.#connect(fresh);
  }

  /** What the page knows is void. */
  forget() { this.#id = ""; }

  #connect(fresh) {
    this.#close();
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(this.#about)) if (value) query.set(name, value);
    if (this.#id) query.set("from", this.#id);
    if (fresh.length) query.set("fresh", fresh.join(","));
    const source = (this.#source = new EventSource(`stream?${query}`));
    let first = true;
    source.onopen = () => this.onstate("live", "");
    source.onmessage = (event) => {
      this.#id = event.lastEventId;
      const message = JSON.parse(event.data);
      // what was asked for anew must come, whatever was on its way before
      if (first && fresh.length) message.first = true;
      first = false;
      this.onmessage(message);
    };
    source.onerror = () => {
      this.onstate("lost", "");
      if (source.readyState === EventSource.CLOSED) this.#why(`stream?${query}`, fresh);
    };
  }

  /** A browser does not say why there was no stream: asks once more, and tries again. */
  async #why(address, fresh) {
    const asked = this.#source;
    try {
      const control = new AbortController(), answer = await fetch(address, { signal: control.signal });
      const text = answer.ok ? "" : (await answer.text()).slice(0, 200).trim();
      control.abort();
      if (this.#source === asked) this.onstate("lost", text);
    } catch { /* there is no server at all: the state says so already */ }
    if (this.#source !== asked) return;
    this.#timer = setTimeout(() => this.#connect(fresh), RETRY);
  }

  #close() {
    clearTimeout(this.#timer);
    if (this.#source) this.#source.close();
    this.#source = null;
  }
}
