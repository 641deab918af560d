// How soon a page is seen: `node first_paint.mjs URL LOADS` prints JSON, one entry a load. Each is a
// first visit, of which the browser has kept nothing; its process runs already.

import { browser } from "../tests/mcp_server/node/viewer/chromium.mjs";

const [url, loads] = process.argv.slice(2);
const TIMEOUT = 60_000;
const WARM_UPS = 2;

async function load(chromium) {
  const context = await chromium.createBrowserContext();
  const page = await context.newPage();
  await page.setViewport({ width: 1100, height: 800 });
  const paths = [];
  page.on("request", (request) => {
    if (request.url().startsWith("http")) paths.push(new URL(request.url()).pathname);
  });
  await page.goto(url);
  const when = async (polling, read) => {
    const found = await page.waitForFunction(read, { polling, timeout: TIMEOUT });
    return found.jsonValue();
  };
  const usable = await when(
    "mutation",
    () => document.querySelector(".compose") && performance.now(),
  );
  const painted = await when(
    "raf",
    () => performance.getEntriesByName("first-paint")[0]?.startTime,
  );
  await context.close();
  return { first_paint_ms: painted, usable_ms: usable, paths };
}

const chromium = await browser();
try {
  const found = [];
  for (let number = 0; number < WARM_UPS + Number(loads); number += 1)
    found.push(await load(chromium));
  console.log(JSON.stringify(found.slice(WARM_UPS)));
} finally {
  await chromium.close();
}
