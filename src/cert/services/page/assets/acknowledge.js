/* Takes off an alarm that somebody has seen. */
import { send, trouble } from "./dom.js";

for (const button of document.querySelectorAll("button[data-series]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const seen = { raised_at: Number(button.dataset.raised) };
      await send("POST", "/v1/drift/" + encodeURIComponent(button.dataset.series) + "/acknowledge", seen);
      location.reload();
    } catch (error) {
      trouble(error);
      button.disabled = false;
    }
  });
  button.disabled = false; // until somebody listens, a click would be lost
}
