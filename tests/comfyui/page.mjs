// ComfyUI's own page in a browser: what it makes of a workflow, and how that looks.
//   node page.mjs URL prompt WORKFLOW            the graph as the page would queue it
//   node page.mjs URL workflow API_WORKFLOW      the same as a workflow, arranged
//   node page.mjs URL picture WORKFLOW FILE      a screenshot after it has run

import { readFileSync, writeFileSync } from "node:fs";
import { browser } from "../mcp_server/node/viewer/chromium.mjs";

const [url, command, file, output] = process.argv.slice(2);
const SIZE = { width: 1600, height: 780 };

async function opened(chrome) {
  const page = await chrome.newPage();
  await page.setViewport(SIZE);
  page.setDefaultTimeout(60_000);
  await page.goto(url, { waitUntil: "domcontentloaded" });
  await page.waitForFunction(() => window.app?.graph && window.app?.extensionManager);
  await page.waitForFunction(() => Object.keys(LiteGraph.registered_node_types).length > 50);
  return page;
}

const chrome = await browser();
try {
  const page = await opened(chrome);
  const given = JSON.parse(readFileSync(file, "utf8"));
  if (command === "workflow") {
    const made = await page.evaluate(async (given) => {
      await window.app.loadApiJson(given, "workflow");
      window.app.graph.arrange(60);
      return window.app.graph.serialize();
    }, given);
    console.log(JSON.stringify(made, null, 1));
  } else {
    await page.evaluate((given) => window.app.loadGraphData(given, true, true), given);
    if (command === "prompt") {
      const prompt = await page.evaluate(() => window.app.graphToPrompt());
      console.log(JSON.stringify(prompt.output));
    } else {
      await page.evaluate(async () => {
        await window.app.extensionManager.setting.set("Comfy.Minimap.Visible", false);
        window.app.canvas.ds.scale = 0.8;
        window.app.canvas.ds.offset = [50, 90];
      });
      await page.evaluate(async () => {
        window.before = Object.keys(await (await fetch("/history")).json());
        await window.app.queuePrompt(0, 1);
      });
      await page.waitForFunction(
        async () => {
          const runs = Object.entries(await (await fetch("/history")).json());
          return runs.some(([id, run]) => !window.before.includes(id) && run.status.completed);
        },
        { timeout: 120_000, polling: 500 },
      );
      await new Promise((done) => setTimeout(done, 3000)); // the pictures are loaded
      writeFileSync(output, await page.screenshot({ type: "png" }));
    }
  }
} finally {
  await chrome.close();
}
