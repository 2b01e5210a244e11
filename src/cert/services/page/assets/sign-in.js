import { by } from "./dom.js";

const form = by("sign-in");
const key = by("key");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const wrong = by("key-wrong");
  wrong.textContent = "";
  key.removeAttribute("aria-invalid");
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const answer = await fetch("/ui/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ key: key.value.trim() }),
    });
    if (answer.ok) return location.assign(form.dataset.after);
    wrong.textContent = answer.status === 401 ? "This is no key of this service." : "The service refused (" + answer.status + "). Try again.";
    key.setAttribute("aria-invalid", "true");
    key.select();
  } catch {
    wrong.textContent = "The service does not answer.";
  } finally {
    button.disabled = false;
  }
  key.focus();
});
key.focus();
