// Snapshots: make another one live.

import { ask, Problem } from "./ask.js";
import { say } from "./dom.js";

for (const button of document.querySelectorAll(".activate")) {
  button.addEventListener("click", async () => {
    say("Opening it …");
    button.disabled = true;
    try {
      await ask(`/console/api/snapshots/${encodeURIComponent(button.dataset.snapshot)}/activate`, undefined,
        { method: "POST" });
      location.reload();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      say(error.message);
      button.disabled = false;
    }
  });
}
