/* The form that begins a measurement. */
import { by, send, trouble } from "./dom.js";

const form = by("start");

/* One task a line: a question, and its right answers after =>, divided by |. */
function tasks() {
  return by("tasks")
    .value.split("\n")
    .filter((line) => line.trim())
    .map((line) => {
      const at = line.lastIndexOf("=>");
      if (at < 0) return { text: line.trim(), references: [] };
      const references = line.slice(at + 2).split("|").map((each) => each.trim()).filter(Boolean);
      return { text: line.slice(0, at).trim(), references };
    });
}

function count() {
  const found = tasks();
  const bare = found.filter((task) => !task.references.length).length;
  const told = found.length === 1 ? "1 task" : found.length + " tasks";
  by("counted").textContent = !found.length ? "" : told + (bare ? "; " + bare + " without a right answer" : "");
}

function asked() {
  const body = {
    tasks: tasks(),
    systems: [...form.querySelectorAll('[name="system"]:checked')].map((box) => box.value),
    model: by("model").value,
    evaluator: by("evaluator").value,
    agents: Number(by("agents").value),
    replicates: Number(by("replicates").value),
  };
  if (by("max-cost").value) body.max_cost = by("max-cost").value;
  if (by("name").value.trim()) body.name = by("name").value.trim();
  return body;
}

if (form) {
  count();
  by("tasks").addEventListener("input", count);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    trouble(null);
    const button = form.querySelector("button.main");
    button.disabled = true;
    try {
      const answer = await send("POST", "/v1/measurements", asked());
      location.assign("/ui/measurements/" + encodeURIComponent((await answer.json()).id));
    } catch (error) {
      trouble(error);
      button.disabled = false;
    }
  });
}
