// A Chromium that npm installs, unpacked once; for whatever a test wants to see as a browser does.

import chromium, { inflate } from "@sparticuz/chromium";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import puppeteer from "puppeteer-core";

const HERE = dirname(fileURLToPath(import.meta.url));
const UNPACKED = join(HERE, "../node_modules/.cache/chromium");

// The package is made for one cloud: its libraries and fonts are in it, and have to be pointed at.
async function unpacked() {
  if (!existsSync(UNPACKED)) {
    mkdirSync(dirname(UNPACKED), { recursive: true });
    const fresh = mkdtempSync(`${UNPACKED}-`); // one that is interrupted leaves no half browser
    const before = process.env.TMPDIR ?? tmpdir();
    process.env.TMPDIR = fresh; // where the package unpacks to
    await chromium.executablePath();
    const packed = dirname(fileURLToPath(import.meta.resolve("@sparticuz/chromium")));
    await inflate(join(packed, "../bin/al2023.tar.br"));
    process.env.TMPDIR = before;
    const fonts = `<fontconfig><dir>${UNPACKED}/fonts/fonts</dir></fontconfig>`;
    writeFileSync(join(fresh, "fonts.conf"), fonts);
    try {
      renameSync(fresh, UNPACKED);
    } catch (error) {
      if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
      rmSync(fresh, { recursive: true }); // another test was quicker
    }
  }
  return UNPACKED;
}

export async function browser() {
  const folder = await unpacked();
  return puppeteer.launch({
    executablePath: join(folder, "chromium"),
    headless: "shell",
    args: ["--no-sandbox", "--no-zygote", "--disable-gpu", "--font-render-hinting=none"],
    env: {
      ...process.env,
      LD_LIBRARY_PATH: join(folder, "al2023/lib"),
      FONTCONFIG_FILE: join(folder, "fonts.conf"),
    },
  });
}
