/* What every page does: times, sign-out, and lists that stay fresh. */
import { by, localTimes, send, trouble } from "./dom.js";

localTimes(document);

const out = by("sign-out");
if (out) {
  out.addEventListener("click", () =>
    send("DELETE", "/ui/session").then(() => location.assign("/ui/sign-in"), trouble),
  );
}

/* A part that says where it comes from is fetched again while somebody looks at it. What did not change is left
   alone, and so is a part in which somebody is: neither focus nor selection is taken away. */
const shown = new Map();

export async function refresh() {
  const part = by("fresh");
  if (!part || document.hidden) return;
  const answer = await fetch(part.dataset.from, { headers: { Accept: "text/html" }, redirect: "error" });
  if (!answer.ok) return;
  const made = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("fresh");
  if (!made || made.innerHTML === shown.get(part.dataset.from)) return;
  shown.set(part.dataset.from, made.innerHTML);
  const selection = getSelection();
  const held = part.contains(document.activeElement) || (!selection.isCollapsed && part.contains(selection.anchorNode));
  if (held) {
    shown.delete(part.dataset.from);
    return;
  }
  localTimes(made);
  part.replaceChildren(...made.childNodes);
}

const part = by("fresh");
if (part) {
  let failed = 0;
  const again = () => {
    const wait = Number(part.dataset.every) * 1000 * Math.min(2 ** failed, 20);
    setTimeout(() => refresh().then(() => (failed = 0), () => failed++).then(again), wait);
  };
  again();
  document.addEventListener("visibilitychange", () => refresh().catch(() => {}));
}
