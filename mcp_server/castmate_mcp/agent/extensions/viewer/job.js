// One job: its progress while it is drawn, and what came of it.

import { copyButton } from "../../../page/copy.js";
import { drawing } from "../../../page/drawing.js";
import { button, element } from "../../../page/element.js";
import { announce, notice } from "../../../page/speak.js";
import { duration, money } from "../../../page/words.js";
import { applyContext } from "./context.js";
import { Follower, previews, structured, words } from "./follow.js";
import { asked } from "./host.js";
import { pictureActions } from "./pictures.js";
import { show } from "./show.js";

export class JobScreen {
  #host;
  #pictures;
  #about;
  #follower;
  #jobId = null;
  #final = false;
  #began = Date.now();
  #drawing = null;
  #clock = null;
  #modelWaits = false;

  // `about`: the prompt, size and image of the call, as far as they are known; `back`: a way out.
  constructor(host, pictures, about) {
    this.#host = host;
    this.#pictures = pictures;
    this.#about = about;
    this.#follower = new Follower(host);
  }

  // A call that has just begun: its job is not known yet.
  begin() {
    this.#start();
    this.#watch();
  }

  // A job of which only the id is known.
  look(jobId) {
    show(...this.#around(element("h1", { class: "typed" }, this.#about.prompt ?? "A job")));
    this.#watch(jobId);
  }

  stop() {
    clearInterval(this.#clock);
    this.#follower.stop();
  }

  // The result of the call that the view belongs to.
  receive(result) {
    this.#modelWaits = structured(result)?.status === "running";
    this.#take(result);
  }

  // The host gave up the call; a job that has begun goes on without it.
  interrupted(reason) {
    if (this.#final || this.#jobId) return;
    const why = reason ? `The host stopped the call: ${reason}.` : "The host stopped the call.";
    this.#pause(this.#problem("Stopped", `${why} A picture that was begun is in the library later.`));
  }

  #take(result) {
    if (this.#final) return;
    const job = structured(result);
    if (result.isError || !job) return this.#end(this.#problem("Not drawn", words(result)));
    if (job.status === "running") return this.#running(job);
    if (job.status === "cancelled") return this.#cancelled(job.next_step);
    this.#end(finished(this.#host, this.#pictures, job, previews(result), this.#about));
    announce(job.images.length === 1 ? "The picture is finished." : "The pictures are finished.");
    if (this.#modelWaits && this.#host.offers("updateModelContext")) {
      const ids = job.images.map((image) => image.image_id).join(", ");
      const text = `Job ${job.job_id} is finished and the user sees it: image_id ${ids}.`;
      const context = { content: [{ type: "text", text }] };
      this.#host.request("ui/update-model-context", context).catch(() => {}); // get_job returns it too
    }
  }

  #start() {
    this.#drawing = drawing(this.#about);
    if (this.#jobId) this.#drawing.cancellable(() => this.#cancel());
    show(...this.#around(this.#drawing.section));
    announce("Drawing.");
    this.#clock = setInterval(() => {
      this.#drawing.time(Math.max(0, Math.floor((Date.now() - this.#began) / 1000)));
    }, 1000);
  }

  #running(job) {
    if (!this.#drawing) this.#start();
    if (job.elapsed_s != null) this.#began = Date.now() - job.elapsed_s * 1000;
    this.#drawing.step(job.progress);
    if (!this.#jobId) this.#watch(job.job_id);
    if (!this.#jobId) this.#drawing.step("Ask in the chat whether it is finished");
  }

  async #watch(jobId = null) {
    if (!this.#host.offers("serverTools")) return;
    this.#follower.stop();
    const follower = new Follower(this.#host);
    this.#follower = follower;
    const found = jobId ?? (await follower.find(this.#about.prompt).catch(() => null));
    if (!found || this.#follower !== follower) return;
    this.#jobId = found;
    this.#drawing?.cancellable(() => this.#cancel());
    try {
      await follower.follow(
        found,
        (result) => this.#take(result),
        ({ progress, total, message }) => this.#drawing?.step(message, progress, total),
      );
    } catch (error) {
      const again = button("Look again", () => this.look(found));
      this.#pause(this.#problem("Out of touch", `${error.message} The job goes on.`, again));
    }
  }

  async #cancel() {
    announce("Cancelling.");
    try {
      const result = await this.#host.callTool("cancel_job", { job_id: this.#jobId });
      const job = structured(result);
      if (result.isError || !job) throw new Error(words(result));
      if (job.status === "cancelled") this.#cancelled(job.next_step);
    } catch (error) {
      this.#drawing?.cancellable(() => this.#cancel());
      notice(`Not cancelled: ${error.message}`);
    }
  }

  // Its first sentence says what it cost; the rest is for the model.
  #cancelled(nextStep) {
    this.#end(this.#problem("Cancelled", `${nextStep.split(".")[0]}.`));
  }

  #end(section) {
    if (this.#final) return;
    this.#final = true;
    this.#pause(section);
  }

  // Until there is a result after all.
  #pause(section) {
    this.stop();
    this.#drawing = null;
    this.#jobId = null;
    show(...this.#around(section));
  }

  #problem(title, text, ...actions) {
    announce(`${title}. ${text}`);
    return element(
      "section",
      { class: "problem" },
      element("p", { class: "eyebrow" }, title),
      element("h1", {}, this.#about.prompt ?? title),
      element("p", { class: "message" }, text),
      actions.length > 0 && element("p", { class: "actions" }, ...actions),
    );
  }

  #around(section) {
    const { back } = this.#about;
    return back ? [button("Back", back, { class: "chip back" }), section] : [section];
  }
}

function finished(host, pictures, job, small, { prompt, image: reference }) {
  const name = prompt ?? "A picture";
  const shown = job.sheet ? [job.sheet, ...job.images] : job.images;
  const figures = shown.map((image, number) => {
    const of = shown.length > 1 ? `Picture ${number + 1} of ${shown.length}: ` : "";
    const alt = image.caption ?? (image === job.sheet ? "All scenes" : name);
    return figure(host, pictures, image, { alt: of + alt, preview: small[number] });
  });
  const [first] = shown;
  const steps = job.computed_steps && `${job.computed_steps} steps computed`;
  const details = [
    `${first.width} × ${first.height}`,
    money(job.cost_usd ?? 0),
    job.client && `by ${job.client}`,
    steps,
  ].filter(Boolean);
  const failed = (job.failed ?? []).map(({ scene, why }) => `Scene ${scene} was not drawn: ${why}`);
  const remarks = [...failed, ...(job.warnings ?? [])];
  if (job.deduplicated) remarks.unshift("The same call was being drawn already: this is its job.");
  return element(
    "section",
    { class: "job" },
    element("div", { class: figures.length > 1 ? "figures several" : "figures" }, ...figures),
    element(
      "div",
      { class: "facts" },
      element(
        "p",
        { class: "eyebrow" },
        job.elapsed_s == null ? "Drawn" : `Drawn in ${duration(job.elapsed_s)}`,
      ),
      element("h1", {}, name),
      element("ul", { class: "details" }, ...details.map((text) => element("li", {}, text))),
      remarks.length > 0 &&
        element("ul", { class: "remarks" }, ...remarks.map((text) => element("li", {}, text))),
      nextScene(host, usable(reference) ? reference : first.image_id),
      displayButtons(host),
    ),
  );
}

// One picture with all that can be done with it.
export function figure(host, pictures, image, { alt, preview = null }) {
  if (image.has_nsfw) {
    const text = "Held back: it was found unsafe and replaced by a black picture.";
    return element("figure", {}, element("p", { class: "withheld" }, text));
  }
  return element(
    "figure",
    {},
    pictures.image({ ...image, uri: image.image_uri, preview, alt }),
    element(
      "figcaption",
      {},
      image.seed != null && copyButton(`Seed ${image.seed}`, image.seed),
      copyButton("Copy id", image.image_id),
      image.file_path && copyButton("Copy path", image.file_path),
      ...pictureActions(host, pictures, image),
    ),
  );
}

// Another picture of the same character is asked for in the chat, where the model draws it.
export function nextScene(host, reference) {
  if (!host.offers("message")) return null;
  const scene = element("input", {
    type: "text",
    maxlength: 1000,
    placeholder: "Another scene",
    "aria-label": "Another scene with this character",
    keydown: (event) => event.key === "Enter" && !event.isComposing && send(),
    input: () => (draw.disabled = scene.value.trim() === ""),
  });
  const send = async () => {
    const prompt = scene.value.trim();
    if (prompt === "") return;
    const text =
      `Draw this character in another scene: ${prompt}\n` +
      `(generate_character_image with image ${reference})`;
    const message = { role: "user", content: [{ type: "text", text }] };
    if (!(await asked(host, "ui/message", message))) return;
    scene.value = "";
    draw.disabled = true;
    notice("Asked for in the chat.");
  };
  const draw = button("Draw", send, { disabled: true });
  return element("div", { class: "scene" }, scene, draw);
}

// An address, id or path; not a whole picture as text.
function usable(reference) {
  return reference && !reference.startsWith("data:");
}

// Each is shown in the other mode.
export function displayButtons(host) {
  if (!host.context.availableDisplayModes?.includes("fullscreen")) return null;
  const turn = (mode) => async () => {
    const shown = await asked(host, "ui/request-display-mode", { mode });
    applyContext({ displayMode: shown?.mode });
  };
  return element(
    "p",
    { class: "actions" },
    button("Full screen", turn("fullscreen"), { class: "chip when-inline" }),
    button("Leave full screen", turn("inline"), { class: "chip when-fullscreen" }),
  );
}
