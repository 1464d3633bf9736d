// What the members have in common, against everybody.

import { ask, Problem } from "./ask.js";
import { find, show } from "./dom.js";

export async function portrait(target, signal) {
  show(find("#common-card"), false);
}
