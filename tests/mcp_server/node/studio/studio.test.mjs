// All of the studio in one process: one browser for all of it. The server has to be a fresh one.

import "./drawing.mjs";
