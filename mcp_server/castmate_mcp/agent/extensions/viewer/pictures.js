// Pictures: a small one at once, the whole one from the server when it comes into sight.

import { button, element } from "../../../page/element.js";
import { notice } from "../../../page/speak.js";
import { asked } from "./host.js";

const AT_A_TIME = 3; // reads of a gallery, so that a host is not flooded

export class Pictures {
  #host;
  #known = new Map();
  #running = 0;
  #queue = [];
  #seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      this.#seen.unobserve(target);
      target.dispatchEvent(new Event("seen"));
    }
  });

  constructor(host) {
    this.#host = host;
  }

  // A data: address, which is all that the strict policy of the page lets in.
  read(uri) {
    if (!this.#known.has(uri)) {
      const reading = this.#turn(async () => {
        const { blob, mimeType } = await this.#host.readResource(uri);
        return `data:${mimeType};base64,${blob}`;
      });
      reading.catch(() => this.#known.delete(uri));
      this.#known.set(uri, reading);
    }
    return this.#known.get(uri);
  }

  // An image that starts with `preview`, if there is one, and loads `uri` once it is seen.
  image({ preview = null, uri, alt, width = null, height = null }) {
    const made = element("img", { alt, width, height, src: preview });
    made.classList.toggle("empty", !preview);
    if (uri && this.#host.offers("serverResources")) {
      made.addEventListener("seen", async () => {
        try {
          const whole = element("img", { src: await this.read(uri) });
          await whole.decode(); // the small one stays until the whole one can be shown
          made.src = whole.src;
          made.classList.remove("empty");
          made.dataset.whole = "true";
        } catch {
          if (!preview) made.replaceWith(element("p", { class: "quiet" }, "No preview."));
        }
      }, { once: true });
      this.#seen.observe(made);
    }
    return made;
  }

  async #turn(work) {
    if (this.#running >= AT_A_TIME) await new Promise((go) => this.#queue.push(go));
    this.#running += 1;
    try {
      return await work();
    } finally {
      this.#running -= 1;
      this.#queue.shift()?.();
    }
  }
}

// Whatever the host offers to get at the whole picture; nothing where it offers nothing.
export function pictureActions(host, pictures, image) {
  const file = `castmate-${image.image_id}.png`;
  const actions = [];
  const whole = async () => {
    const [head, blob] = (await pictures.read(image.image_uri)).split(";base64,");
    const resource = { uri: `file:///${file}`, mimeType: head.replace("data:", ""), blob };
    return { type: "resource", resource };
  };
  const link = { type: "resource_link", name: file, uri: image.download_url };
  const readable = host.offers("serverResources");
  if (host.offers("downloadFile") && (readable || image.download_url)) {
    const download = async () => {
      const content = await (readable ? whole() : link);
      await asked(host, "ui/download-file", { contents: [content] });
    };
    const failed = (error) => notice(error.message);
    actions.push(button("Download", () => download().catch(failed), { class: "chip" }));
  }
  if (host.offers("openLinks") && image.download_url) {
    const open = () => asked(host, "ui/open-link", { url: image.download_url });
    actions.push(button("Open", open, { class: "chip", title: "Open in the browser" }));
  }
  return actions;
}
