// The host around this page: JSON-RPC over postMessage, as MCP Apps speaks it (SEP-1865). Knows
// nothing about pictures.

import { notice } from "../../../page/speak.js";

const REVISION = "2026-01-26";
const PATIENCE_MS = 90_000; // longer than any call here asks the server to hold

export class Host {
  capabilities = {};
  context = {};
  #window;
  #handlers = new Map();
  #waiting = new Map();
  #progress = new Map();
  #last = 0;

  constructor(hostWindow) {
    this.#window = hostWindow;
    addEventListener("message", (event) => {
      if (event.source === hostWindow && event.data?.jsonrpc === "2.0") this.#receive(event.data);
    });
    this.on("ping", () => ({}));
    this.on("notifications/progress", (step) => this.#progress.get(step.progressToken)?.(step));
  }

  // What a handler returns is the answer, where the host asks for one.
  on(method, handler) {
    this.#handlers.set(method, handler);
  }

  async connect(name, version) {
    const met = await this.request("ui/initialize", {
      protocolVersion: REVISION,
      appInfo: { name, version },
      appCapabilities: { availableDisplayModes: ["inline", "fullscreen"] },
    });
    this.capabilities = met.hostCapabilities ?? {};
    this.context = met.hostContext ?? {};
    this.notify("ui/notifications/initialized");
  }

  offers(capability) {
    return this.capabilities[capability] !== undefined;
  }

  notify(method, params = {}) {
    this.#send({ method, params });
  }

  // Without `patience` it waits for as long as a person takes to answer the host.
  request(method, params = {}, patience = null) {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      const timer =
        patience && setTimeout(() => this.#settle(id, { message: "The host is silent." }), patience);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#send({ id, method, params });
    });
  }

  // Hosts may pass progress on; they need not.
  async callTool(name, args, onProgress = null) {
    const progressToken = `viewer-${++this.#last}`;
    const meta = onProgress && { _meta: { progressToken } };
    if (onProgress) this.#progress.set(progressToken, onProgress);
    try {
      return await this.request("tools/call", { name, arguments: args, ...meta }, PATIENCE_MS);
    } finally {
      this.#progress.delete(progressToken);
    }
  }

  async readResource(uri) {
    const { contents } = await this.request("resources/read", { uri }, PATIENCE_MS);
    return contents[0];
  }

  #send(message) {
    this.#window.postMessage({ jsonrpc: "2.0", ...message }, "*"); // a host's origin is not known
  }

  #receive({ id, method, params, result, error }) {
    if (method === undefined) return this.#settle(id, error, result);
    const handler = this.#handlers.get(method);
    const answer = handler?.(params ?? {});
    if (id === undefined) return;
    if (handler) this.#send({ id, result: answer ?? {} });
    else this.#send({ id, error: { code: -32601, message: `Unknown method ${method}` } });
  }

  #settle(id, error, result) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    if (error) waiting.reject(new Error(error.message));
    else waiting.resolve(result);
  }
}

// What only the host can do; null where it does not.
export async function asked(host, method, params) {
  try {
    const result = await host.request(method, params);
    if (!result.isError) return result;
    notice("The host did not do it.");
  } catch (error) {
    notice(error.message);
  }
  return null;
}
