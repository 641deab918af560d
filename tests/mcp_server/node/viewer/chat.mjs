// One chat a test, in a host made of the official parts, over a server that draws.
// CASTMATE_URL: where it serves MCP; CASTMATE_REFERENCE: a picture; CASTMATE_SHOTS: a folder for
// screenshots, if any are wanted.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, afterEach, before, beforeEach } from "node:test";
import { Stage } from "./stage.mjs";

const { CASTMATE_URL, CASTMATE_REFERENCE, CASTMATE_SHOTS } = process.env;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");
export const DRAW = "generate_character_image";
const PICTURE = { job_id: "job_1", image_id: `img_${"0".repeat(32)}-0`, width: 512, height: 512 };

export let tab, image;
let stage, drawn;

export const quick = (changed = {}) => ({
  prompt: "waving on the beach",
  image,
  size: "512*640",
  num_inference_steps: 4,
  seed: 7,
  ...changed,
});
export const long = (changed = {}) =>
  quick({ size: "1536*1536", num_inference_steps: 50, num_images: 4, cache: "off", ...changed });

export function result(data, isError = false) {
  const content = [{ type: "text", text: typeof data === "string" ? data : JSON.stringify(data) }];
  return isError ? { content, isError } : { content, structuredContent: data };
}

export function finished(changed = {}) {
  const { job_id, ...picture } = PICTURE;
  const images = [{ ...picture, image_uri: `image://${picture.image_id}`, seed: 7, ...changed }];
  return result({ status: "completed", job_id, images, client: "local", cost_usd: 0, next_step: "" });
}

// Shows a picture that is there: the page gets what the call that drew it brought.
export async function show(options = {}) {
  drawn ??= await tab.ask("call", DRAW, quick());
  await tab.ask("pretend", DRAW, quick(), drawn, options);
  return drawn.structuredContent;
}

export async function shot(name) {
  if (!CASTMATE_SHOTS) return;
  mkdirSync(CASTMATE_SHOTS, { recursive: true });
  await tab.page.screenshot({ path: `${CASTMATE_SHOTS}/${name}.png`, fullPage: true });
}

export const text = (selector) => tab.look((one) => document.querySelector(one)?.innerText, selector);
export const buttons = () => tab.look(() => [...document.querySelectorAll("button")].map((b) => b.innerText));
const cancelAll = () =>
  tab.page.evaluate(async () => {
    const list = { name: "list_library", arguments: { kind: "jobs" } };
    const { items } = (await client.callTool(list)).structuredContent;
    for (const { id, status } of items) {
      if (["created", "running"].includes(status)) {
        await client.callTool({ name: "cancel_job", arguments: { job_id: id } });
      }
    }
  });

// What the accessibility checker finds, and what does not fit into the width.
export async function isSound() {
  const frame = await tab.view();
  await frame.evaluate(AXE);
  const violations = await frame.evaluate(async () =>
    (await axe.run({ resultTypes: ["violations"] })).violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`),
  );
  assert.deepEqual(violations, []);
  const [needed, given] = await tab.look(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(needed <= given, `${needed} px are needed, there are ${given}`);
}

before(async () => {
  stage = await Stage.open(CASTMATE_URL);
  image = `data:image/png;base64,${readFileSync(CASTMATE_REFERENCE).toString("base64")}`;
});
after(() => stage?.close());
beforeEach(async () => {
  tab = await stage.chat();
});
afterEach(async () => {
  await cancelAll();
  assert.deepEqual(tab.complaints, [], "errors on the console, broken policies among them");
  await tab.page.close();
});
