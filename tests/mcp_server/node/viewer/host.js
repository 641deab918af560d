// A chat host in a page: the official client and the official bridge, connected to a real server.

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import {
  AppBridge,
  PostMessageTransport,
  RESOURCE_MIME_TYPE,
  buildAllowAttribute,
  getToolUiResourceUri,
} from "@modelcontextprotocol/ext-apps/app-bridge";

const ALL = {
  serverTools: {},
  serverResources: {},
  openLinks: {},
  downloadFile: {},
  message: { text: {} },
  updateModelContext: { text: {} },
};

const extensions = { "io.modelcontextprotocol/ui": { mimeTypes: [RESOURCE_MIME_TYPE] } };
const client = new Client({ name: "test-host", version: "1" }, { capabilities: { extensions } });
await client.connect(new StreamableHTTPClientTransport(new URL("/mcp", location.href)));
const { tools } = await client.listTools();

// What hosts must allow by the specification, given what a resource asks for.
function policy({ connectDomains = [], resourceDomains = [], frameDomains = [] } = {}) {
  const sources = (...named) => (named.length > 0 ? named.join(" ") : "'none'");
  return [
    "default-src 'none'",
    `script-src ${sources("'self'", "'unsafe-inline'", ...resourceDomains)}`,
    `style-src ${sources("'self'", "'unsafe-inline'", ...resourceDomains)}`,
    `img-src ${sources("'self'", "data:", ...resourceDomains)}`,
    `connect-src ${sources(...connectDomains)}`,
    `frame-src ${sources(...frameDomains)}`,
    "object-src 'none'",
    "base-uri 'self'",
  ].join("; ");
}

class Chat {
  seen = { messages: [], downloads: [], links: [], contexts: [], calls: [] };
  bridge = null;
  open = 0; // calls of the view that are not answered yet
  broken = false; // whether they fail

  // Shows what a tool names, as it is done while its call runs.
  async mount(tool, { capabilities = ALL, context = {}, passProgress = false } = {}) {
    const definition = tools.find(({ name }) => name === tool);
    const uri = getToolUiResourceUri(definition);
    const [page] = (await client.readResource({ uri })).contents;
    if (page.mimeType !== RESOURCE_MIME_TYPE) throw new Error(page.mimeType);
    const stored = await fetch("/views", {
      method: "POST",
      headers: { "x-policy": policy(page._meta.ui.csp) },
      body: page.text,
    });
    const frame = document.createElement("iframe");
    frame.title = "Castmate";
    frame.sandbox = "allow-scripts allow-same-origin";
    frame.allow = buildAllowAttribute(page._meta.ui.permissions);
    document.body.replaceChildren(frame);
    const forwarded = "serverTools" in capabilities || "serverResources" in capabilities;
    const hostContext = { toolInfo: { tool: definition }, displayMode: "inline", ...context };
    const bridge = new AppBridge(
      forwarded ? client : null,
      { name: "test-host", version: "1" },
      capabilities,
      { hostContext },
    );
    this.#listen(bridge, frame);
    const ready = new Promise((resolve) => (bridge.oninitialized = resolve));
    await bridge.connect(new PostMessageTransport(frame.contentWindow, frame.contentWindow));
    if (forwarded) this.#watchCalls(bridge, passProgress);
    frame.src = await stored.text();
    await ready;
    this.bridge = bridge;
  }

  // One call of the model, from its arguments to its result.
  async call(name, args, options = {}) {
    await this.mount(name, options);
    await this.bridge.sendToolInput({ arguments: args });
    const result = await client.callTool({ name, arguments: args });
    await this.bridge.sendToolResult(result);
    return result;
  }

  // A call whose result the test makes up: what the demo model cannot bring about.
  async pretend(name, args, result, options = {}) {
    await this.mount(name, options);
    await this.bridge.sendToolInput({ arguments: args });
    await this.bridge.sendToolResult(result);
  }

  #listen(bridge, frame) {
    bridge.onsizechange = ({ height }) => {
      if (frame.dataset.display !== "fullscreen") frame.style.height = `${height}px`;
    };
    bridge.onmessage = async (message) => (this.seen.messages.push(message), {});
    bridge.ondownloadfile = async ({ contents }) => (this.seen.downloads.push(...contents), {});
    bridge.onopenlink = async ({ url }) => (this.seen.links.push(url), {});
    bridge.onupdatemodelcontext = async (context) => (this.seen.contexts.push(context), {});
    bridge.onrequestdisplaymode = async ({ mode }) => {
      frame.dataset.display = mode;
      frame.style.height = "";
      return { mode };
    };
  }

  #watchCalls(bridge, passProgress) {
    bridge.oncalltool = async (params, { mcpReq }) => {
      this.seen.calls.push(params.name);
      if (this.broken) throw new Error("The server is gone.");
      const { _meta, ...asked } = params;
      const progress = (step) =>
        bridge.notification({
          method: "notifications/progress",
          params: { ...step, progressToken: _meta.progressToken },
        });
      const options = { signal: mcpReq.signal };
      if (passProgress && _meta?.progressToken) options.onprogress = progress;
      this.open += 1;
      try {
        return await client.request({ method: "tools/call", params: asked }, options);
      } finally {
        this.open -= 1;
      }
    };
  }
}

window.client = client;
window.newChat = () => (window.chat = new Chat());
window.newChat();
