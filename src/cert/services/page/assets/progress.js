/* A measurement at work: its progress as it comes, its end, and how to end it. */
import { by, say, send, trouble, visible } from "./dom.js";
import { events } from "./stream.js";

const WORDS = { queued: "Waiting", running: "At work", succeeded: "Done", failed: "Failed", cancelled: "Cancelled" };
const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const work = by("work");

function money(text) {
  return "$" + Number(text).toFixed(4);
}

function told(name, data) {
  if (name === "progress") {
    by("bar").value = data.done;
    by("done").textContent = data.done;
    if (data.spent !== undefined) by("spent").textContent = money(data.spent);
    if (data.saved !== undefined) by("saved").textContent = money(data.saved);
    by("at").replaceChildren(visible([data.system, data.task_id].filter(Boolean).join(", ")));
    return false;
  }
  if (name === "error") throw new Error(data.detail || data.title);
  if (name !== "state") return false;
  by("state").firstElementChild.textContent = WORDS[data.state] || data.state;
  say(WORDS[data.state] || data.state);
  return FINAL.has(data.state);
}

/* Follows until the end; a connection that breaks is taken up where it broke. */
async function follow(url) {
  let last = "0";
  for (let failed = 0; ; failed++) {
    try {
      const answer = await fetch(url, { headers: { "Last-Event-ID": last }, redirect: "error" });
      if (!answer.ok) throw new Error("The service refused (" + answer.status + ").");
      for await (const { name, data, id } of events(answer)) {
        failed = 0;
        if (id) last = id;
        if (told(name, data)) return location.reload();
      }
    } catch (error) {
      if (failed >= 5) return trouble(error);
    }
    await new Promise((resolve) => setTimeout(resolve, 1000 * 2 ** Math.min(failed, 4)));
  }
}

if (work && "open" in work.dataset) {
  const url = "/v1/measurements/" + encodeURIComponent(work.dataset.id);
  follow(url + "/events");
  const cancel = by("cancel");
  if (cancel) {
    cancel.addEventListener("click", async () => {
      cancel.disabled = true;
      try {
        await send("POST", url + "/cancel");
        by("state").firstElementChild.textContent = "Ending";
      } catch (error) {
        trouble(error);
        cancel.disabled = false;
      }
    });
  }
}
