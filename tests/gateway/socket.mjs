// One request to a gateway over its WebSocket: node socket.mjs PORT METHOD PARAMS
//
// Prints one line of JSON: {"ok": true, "payload": ...} or {"ok": false, "error": ...}. `chat.send` is only acknowledged
// at once: its line is printed when the run has ended, and its payload is then the run's last event. The token comes
// from OPENCLAW_GATEWAY_TOKEN. Needs a Node with a WebSocket of its own (22 or later), and nothing else.
import { randomUUID } from "node:crypto";

const [port, method, params] = process.argv.slice(2);
const socket = new WebSocket(`ws://127.0.0.1:${port}`);
const waiting = new Map();
const ENDED = ["final", "error", "aborted"];
const events = [];
let run; // the id of the run that chat.send has started

const request = (name, values) =>
  new Promise((resolve) => {
    const id = randomUUID();
    waiting.set(id, resolve);
    socket.send(JSON.stringify({ type: "req", id, method: name, params: values }));
  });

const tell = (answer) => {
  console.log(JSON.stringify(answer));
  process.exit(0);
};

const tellEnd = () => {
  const last = events.find((event) => event.runId === run && ENDED.includes(event.state));
  if (last) tell({ ok: last.state === "final", payload: last, error: last.errorMessage });
};

const start = async () => {
  const client = { id: "gateway-client", version: "test", platform: "linux", mode: "backend" };
  const scopes = ["operator.admin", "operator.read", "operator.write"];
  const auth = { token: process.env.OPENCLAW_GATEWAY_TOKEN };
  const hello = { minProtocol: 3, maxProtocol: 4, client, role: "operator", scopes, caps: [], auth };
  const welcome = await request("connect", hello);
  if (!welcome.ok) tell(welcome);
  const values = JSON.parse(params ?? "{}");
  if (method !== "chat.send") tell(await request(method, values));
  const sent = await request(method, { idempotencyKey: randomUUID(), ...values });
  if (!sent.ok) tell(sent);
  run = sent.payload.runId;
  tellEnd(); // it may have ended before it was acknowledged
};

socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.type === "res") {
    const { ok, payload, error } = frame;
    waiting.get(frame.id)?.({ ok, payload, error });
    waiting.delete(frame.id);
  } else if (frame.event === "connect.challenge") {
    start();
  } else if (frame.event === "chat") {
    events.push(frame.payload);
    if (run) tellEnd();
  }
};
socket.onerror = (event) => tell({ ok: false, error: event.message ?? "no connection" });
socket.onclose = (event) => tell({ ok: false, error: `closed: ${event.code} ${event.reason}` });
