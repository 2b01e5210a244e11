import { by, element, send, trouble } from "./dom.js";

const place = by("label");
if (place) {
  place.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const correct = button.dataset.correct === "true";
    for (const each of place.querySelectorAll("button")) each.disabled = true;
    try {
      await send("POST", place.dataset.to, { correct });
      place.replaceChildren("You said that this answer is ", element("b", "", correct ? "right" : "wrong"), ".");
    } catch (error) {
      for (const each of place.querySelectorAll("button")) each.disabled = false;
      trouble(error);
    }
  });
  // Until somebody listens, a click would be lost.
  for (const each of place.querySelectorAll("button")) each.disabled = false;
}
