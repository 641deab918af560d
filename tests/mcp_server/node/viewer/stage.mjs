// A browser and a web server with the host's page; the MCP server is behind the same address.

import { createServer, request } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";
import { browser } from "./chromium.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const PAGE = `<!doctype html><html lang="en"><title>Chat</title>
<style>
  body { margin: 0 } iframe { display: block; width: 100%; border: 0 }
  iframe[data-display=fullscreen] { position: fixed; inset: 0; height: 100% }
</style>
<body><script type="module" src="/host.js"></script>`;

async function bundled() {
  const bundle = await rolldown({ input: join(HERE, "host.js"), platform: "browser" });
  const { output } = await bundle.generate({ format: "esm" });
  return output[0].code;
}

// The views come from another host name than the chat, as hosts separate them.
async function website(server) {
  const script = await bundled();
  const views = [];
  const site = createServer(async (incoming, answer) => {
    const send = (type, body, headers = {}) =>
      answer.writeHead(200, { "content-type": type, ...headers }).end(body);
    const { pathname } = new URL(incoming.url, "http://site");
    if (pathname === "/") return send("text/html", PAGE);
    if (pathname === "/host.js") return send("text/javascript", script);
    if (pathname === "/favicon.ico") return answer.writeHead(204).end();
    if (pathname === "/views") {
      const html = (await incoming.setEncoding("utf8").toArray()).join("");
      views.push({ html, policy: incoming.headers["x-policy"] });
      const { port } = site.address();
      return send("text/plain", `http://localhost:${port}/views/${views.length - 1}`);
    }
    if (pathname.startsWith("/views/")) {
      const { html, policy } = views[Number(pathname.slice(7))];
      return send("text/html; charset=utf-8", html, { "content-security-policy": policy });
    }
    const { origin, referer, ...headers } = incoming.headers;
    headers.host = new URL(server).host;
    const forwarded = request(server, { method: incoming.method, headers }, (reply) => {
      answer.writeHead(reply.statusCode, reply.headers);
      reply.pipe(answer);
    });
    answer.on("close", () => forwarded.destroy());
    forwarded.on("error", () => answer.destroy());
    incoming.pipe(forwarded);
  });
  await new Promise((ready) => site.listen(0, "127.0.0.1", ready));
  return site;
}

// A chat in a tab of its own. `complaints`: what a page that is well writes none of.
export class Stage {
  static async open(server) {
    const stage = new Stage();
    stage.site = await website(server);
    stage.browser = await browser();
    return stage;
  }

  async close() {
    await this.browser?.close();
    this.site?.closeAllConnections();
    this.site?.close();
  }

  async chat({ width = 720, features = [] } = {}) {
    const page = await this.browser.newPage();
    await page.setViewport({ width, height: 800 });
    await page.emulateMediaFeatures(features);
    const complaints = [];
    page.on("console", (said) => {
      const ours = said.location().url?.includes("/views/");
      if (said.type() === "error" || (ours && said.type() === "warn")) complaints.push(said.text());
    });
    page.on("pageerror", (error) => complaints.push(error.message));
    await page.goto(`http://127.0.0.1:${this.site.address().port}/`);
    await page.waitForFunction("window.chat", { timeout: 20_000 });
    return new Tab(page, complaints);
  }
}

class Tab {
  constructor(page, complaints) {
    this.page = page;
    this.complaints = complaints;
  }

  // Calls a method of the chat, in the page.
  ask(method, ...args) {
    return this.page.evaluate((name, given) => window.chat[name](...given), method, args);
  }

  seen() {
    return this.page.evaluate(() => window.chat.seen);
  }

  async view() {
    const frame = await this.page.waitForFrame((one) => one.url().includes("/views/"));
    return frame;
  }

  async until(selector, { timeout = 30_000, text = "" } = {}) {
    const frame = await this.view();
    return frame.waitForFunction(
      (wanted, said) =>
        [...document.querySelectorAll(wanted)].find((one) => one.textContent.includes(said)),
      { timeout, polling: 100 },
      selector,
      text,
    );
  }

  async click(label) {
    const found = await this.until("button", { text: label });
    await found.click();
  }

  async look(read, ...args) {
    return (await this.view()).evaluate(read, ...args);
  }
}
