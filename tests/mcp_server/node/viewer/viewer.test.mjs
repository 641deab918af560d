// All of the page beside the chat in one process, so that one browser is enough.

import "./job.mjs";
import "./page.mjs";
import "./pictures.mjs";
