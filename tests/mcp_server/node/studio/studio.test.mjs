// All of the studio in one process, so that one browser is enough. In this order: the first test
// needs a server that nobody has used, and the last one locks it.

import "./drawing.mjs";
import "./newcomer.mjs";
import "./looking.mjs";
import "./stories.mjs";
import "./keys.mjs";
