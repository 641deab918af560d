// A job until it is final: asked for through the host, less and less often, and not while nobody
// looks.

const FIRST_WAIT_S = 1;
const LONGEST_WAIT_S = 8; // between two steps that are shown
const LONGEST_WAIT_WITH_PROGRESS_S = 30; // where the host passes progress on
const TRIES = 5;

export class Follower {
  #host;
  #stopped = false;
  #asleep = null;

  constructor(host) {
    this.#host = host;
  }

  stop() {
    this.#stopped = true;
    this.#asleep?.();
  }

  // Gives each result of get_job to `onResult`, until one is final.
  async follow(jobId, onResult, onProgress) {
    let wait = FIRST_WAIT_S;
    let longest = LONGEST_WAIT_S;
    const passedOn = (progress) => {
      longest = LONGEST_WAIT_WITH_PROGRESS_S;
      if (!this.#stopped) onProgress(progress);
    };
    await this.#repeat(async () => {
      const asked = { job_id: jobId, wait_seconds: wait };
      const result = await this.#host.callTool("get_job", asked, passedOn);
      if (!this.#stopped) onResult(result);
      wait = Math.min(wait * 1.5, longest);
      return result.isError || structured(result)?.status !== "running";
    });
  }

  // The job of a call that has not answered yet: the only unfinished one with its prompt.
  async find(prompt) {
    const about = [...prompt.trim()].slice(0, 200).join("");
    let found = null;
    let pause = FIRST_WAIT_S;
    await this.#repeat(async () => {
      await this.#sleep(pause);
      pause = Math.min(pause * 1.5, LONGEST_WAIT_S);
      const asked = { kind: "jobs", query: about, limit: 10 };
      const { items } = structured(await this.#host.callTool("list_library", asked)) ?? {};
      const open = (items ?? []).filter(
        (item) => item.about === about && ["waiting", "running"].includes(item.status),
      );
      if (open.length === 1) found = open[0].id;
      return found !== null || open.length > 1; // of several nobody knows which is meant
    });
    return found;
  }

  // Until `work` says that it is done; an answer that fails is asked for again, later.
  async #repeat(work) {
    let failures = 0;
    while (!this.#stopped) {
      await this.#visible();
      if (this.#stopped) return;
      try {
        if (await work()) return;
        failures = 0;
      } catch (error) {
        if (++failures === TRIES) throw error;
        await this.#sleep(2 ** failures);
      }
    }
  }

  async #visible() {
    while (document.hidden && !this.#stopped) {
      await new Promise((go) => {
        this.#asleep = go;
        document.addEventListener("visibilitychange", go, { once: true });
      });
    }
  }

  async #sleep(pause) {
    if (this.#stopped) return;
    await new Promise((go) => {
      this.#asleep = go;
      setTimeout(go, pause * 1000);
    });
  }
}

// The data of a tool's result; hosts drop either form of it.
export function structured(result) {
  if (result.structuredContent) return result.structuredContent;
  try {
    return JSON.parse(words(result));
  } catch {
    return null;
  }
}

export function words(result) {
  return (result.content ?? []).find((block) => block.type === "text")?.text ?? "";
}

export function previews(result) {
  return (result.content ?? [])
    .filter((block) => block.type === "image")
    .map((block) => `data:${block.mimeType};base64,${block.data}`);
}
