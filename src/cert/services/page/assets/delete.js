/* Deletes a measurement that has ended, once somebody has said so twice. */
import { by, send, trouble } from "./dom.js";

const button = by("delete");
if (button) {
  button.addEventListener("click", async () => {
    if (!confirm("Delete this measurement with its texts and its report?")) return;
    button.disabled = true;
    try {
      await send("DELETE", "/v1/measurements/" + encodeURIComponent(button.dataset.id));
      location.assign("/ui");
    } catch (error) {
      trouble(error);
      button.disabled = false;
    }
  });
  button.disabled = false; // until somebody listens, a click would be lost
}
