// One visit a test: a tab of one browser on the page of one server, and what must not happen there.
// CASTMATE_URL: the server; CASTMATE_PAID_URL: one whose pictures cost money; CASTMATE_REFERENCE: a
// picture; CASTMATE_TURNED: one whose file says how it is turned; CASTMATE_SHOTS: for screenshots.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, afterEach, before, beforeEach } from "node:test";
import { browser } from "../viewer/chromium.mjs";

export const {
  CASTMATE_URL,
  CASTMATE_PAID_URL,
  CASTMATE_REFERENCE,
  CASTMATE_TURNED,
  CASTMATE_SHOTS,
} = process.env;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");
const PATIENCE_MS = 60_000; // on a busy machine the first picture takes long

export let tab;
let chromium;
let visits = [];

// `complaints`: errors on the console, broken policies among them; `strangers`: other hosts asked.
class Visit {
  complaints = [];
  strangers = [];

  static async begin({ server = CASTMATE_URL, hash = "", width = 1100, features = [] } = {}) {
    const visit = new Visit();
    visits.push(visit);
    visit.page = await chromium.newPage();
    await visit.page.setViewport({ width, height: 800 });
    await visit.page.emulateMediaFeatures(features);
    visit.page.on("console", (said) => {
      if (["error", "warn"].includes(said.type()))
        visit.complaints.push(`${said.text()} ${said.location().url ?? ""}`);
    });
    visit.page.on("pageerror", (error) => visit.complaints.push(error.stack));
    visit.page.on("request", (request) => {
      const url = request.url();
      if (!url.startsWith(server) && !/^(data|blob):/.test(url)) visit.strangers.push(url);
    });
    await visit.page.goto(`${server}/${hash}`);
    return visit;
  }

  // Another view of the same page.
  async to(hash) {
    await this.look((wanted) => (location.hash = wanted), hash);
    return this;
  }

  until(selector, { text = "", timeout = PATIENCE_MS } = {}) {
    return this.page.waitForFunction(
      (wanted, said) =>
        [...document.querySelectorAll(wanted)].find(
          (one) => one.checkVisibility() && one.textContent.includes(said),
        ),
      { timeout, polling: 100 },
      selector,
      text,
    );
  }

  // Asked for by the clock: a tab that draws no frames answers, too.
  holds(read, ...args) {
    return this.page.waitForFunction(read, { timeout: PATIENCE_MS, polling: 100 }, ...args);
  }

  gone(selector) {
    return this.page.waitForFunction(
      (one) => !document.querySelector(one),
      { timeout: PATIENCE_MS, polling: 100 },
      selector,
    );
  }

  // At once where it is found: what is shown may be replaced or moved by what arrives. In a call of
  // its own each time: a click that leads to another document would be waited for there again.
  async click(selector, text = "") {
    const deadline = Date.now() + PATIENCE_MS;
    const found = () =>
      this.look(
        (wanted, said) => {
          const one = [...document.querySelectorAll(wanted)].find(
            (one) => one.checkVisibility() && !one.disabled && one.textContent.includes(said),
          );
          one?.click();
          return !!one;
        },
        selector,
        text,
      );
    while (!(await found())) {
      assert.ok(Date.now() < deadline, `no ${selector} says "${text}"`);
      await new Promise((go) => setTimeout(go, 100));
    }
  }

  async fill(selector, text) {
    const field = await this.until(selector);
    await field.evaluate((one) => ((one.value = ""), one.focus()));
    await this.page.keyboard.type(text);
  }

  look(read, ...args) {
    return this.page.evaluate(read, ...args);
  }

  text(selector) {
    return this.look((one) => document.querySelector(one)?.innerText, selector);
  }

  // A file, as a "drop" or "paste" brings it.
  give(how, bytes) {
    return this.look(
      (name, text) => {
        const files = new DataTransfer();
        files.items.add(new File([Uint8Array.fromBase64(text)], "picture", { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        document.body.dispatchEvent(
          name === "drop"
            ? new DragEvent("drop", { dataTransfer: files, ...options })
            : new ClipboardEvent("paste", { clipboardData: files, ...options }),
        );
      },
      how,
      bytes.toString("base64"),
    );
  }

  async add(name, file = CASTMATE_REFERENCE) {
    const [chooser] = await Promise.all([this.page.waitForFileChooser(), this.page.click(".add")]);
    await chooser.accept([file]);
    await this.until(".pair .seen");
    await this.fill("#character-name", name);
    await this.page.keyboard.press("Enter");
    await this.gone("dialog");
  }

  // A prompt, and what makes it quick or long.
  async write(prompt, parameters = {}) {
    if (!(await this.look(() => document.querySelector(".advanced").open)))
      await this.click("summary", "Advanced");
    for (const [name, value] of Object.entries({ ...QUICK, ...parameters }))
      await this.fill(`#field-${name}`, String(value));
    await this.fill("#prompt", prompt);
  }

  async send() {
    await this.page.keyboard.down("Control");
    await this.page.keyboard.press("Enter");
    await this.page.keyboard.up("Control");
  }

  // What the accessibility checker finds, and what does not fit into the width.
  async isSound() {
    await this.look(() =>
      Promise.allSettled(
        document
          .getAnimations()
          .map(({ finished }) =>
            Promise.race([finished, new Promise((go) => setTimeout(go, 500))]),
          ),
      ),
    );
    if (!(await this.look(() => "axe" in window))) await this.look(AXE);
    const violations = await this.look(async () =>
      (await axe.run({ resultTypes: ["violations"] })).violations.map(
        ({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join(" | ")}`,
      ),
    );
    assert.deepEqual(violations, []);
    const [needed, given] = await this.look(() => [
      document.documentElement.scrollWidth,
      innerWidth,
    ]);
    assert.ok(needed <= given, `${needed} px are needed, there are ${given}`);
  }

  async shot(name) {
    if (!CASTMATE_SHOTS) return;
    mkdirSync(CASTMATE_SHOTS, { recursive: true });
    await this.page.screenshot({ path: `${CASTMATE_SHOTS}/${name}.png` });
  }
}

const QUICK = { size: "512*512", num_inference_steps: 4, seed: 7 };
export const LONG = { size: "1536*1536", num_inference_steps: 50, seed: 7 };

export const visit = (options) => Visit.begin(options);

export async function api(method, path, body) {
  const headers = { "content-type": "application/json" };
  const answer = await fetch(`${CASTMATE_URL}/api/v3${path}`, {
    method,
    headers,
    body: body && JSON.stringify(body),
  });
  const { data, message } = await answer.json();
  assert.ok(answer.ok, message);
  return data;
}

before(async () => {
  chromium = await browser();
});
after(() => chromium?.close());
beforeEach(async () => {
  tab = await visit();
  await tab.until(".compose");
});
afterEach(async () => {
  const ended = visits;
  visits = [];
  for (const { page } of ended) await page.close();
  for (const { complaints, strangers } of ended) {
    assert.deepEqual(complaints, [], "errors on the console, broken policies among them");
    assert.deepEqual(strangers, [], "requests to other hosts");
  }
});
