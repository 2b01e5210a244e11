/* The form that begins a measurement. */
import { by, send, trouble } from "./dom.js";

const form = by("start");

/* One task a line: a question, and its right answers after =>, divided by |; or an object in JSON. */
function task(line, index) {
  if (line.trimStart().startsWith("{")) {
    try {
      return JSON.parse(line);
    } catch {
      throw new Error("Task " + (index + 1) + " begins as JSON and is none.");
    }
  }
  const at = line.lastIndexOf("=>");
  if (at < 0) return { text: line.trim(), references: [] };
  const references = line.slice(at + 2).split("|").map((each) => each.trim()).filter(Boolean);
  return { text: line.slice(0, at).trim(), references };
}

function tasks() {
  const lines = by("tasks").value.split("\n").filter((line) => line.trim());
  const family = by("family").value.trim();
  return lines.map(task).map((one) => (family && !one.family ? { ...one, family } : one));
}

function count() {
  let told = "";
  try {
    const found = tasks();
    const bare = judged() ? 0 : found.filter((one) => !(one.references || []).length).length;
    if (found.length) told = found.length === 1 ? "1 task" : found.length + " tasks";
    if (bare) told += "; " + bare + " without a right answer";
  } catch (error) {
    told = error.message;
  }
  by("counted").textContent = told;
}

function judged() {
  return by("scorer").value.startsWith("judge:");
}

/* A strategy with its parameters, as the service names it; what is as usual is left out. */
function system(box) {
  const fields = [...form.querySelectorAll("[data-of]")].filter((field) => field.dataset.of === box.value);
  const told = fields.filter((field) => field.value !== field.defaultValue);
  if (!told.length) return box.value;
  return box.value + "(" + told.map((field) => field.dataset.name + "=" + field.value).join(", ") + ")";
}

function systems() {
  const chosen = [...form.querySelectorAll('[name="system"]:checked')].map(system);
  return [...chosen, ...by("systems-too").value.split(";").map((each) => each.trim()).filter(Boolean)];
}

/* Fields that play a part are shown, and the others neither shown nor checked. */
function settle() {
  for (const box of form.querySelectorAll('[name="system"]')) {
    for (const field of form.querySelectorAll("[data-of]")) {
      if (field.dataset.of !== box.value) continue;
      field.disabled = field.parentElement.hidden = !box.checked;
    }
  }
  by("repeats").disabled = by("repeats").parentElement.hidden = !judged();
  const picks = systems().some((name) => name.startsWith("best_of_n")) && !by("selector").value;
  by("selector").setCustomValidity(picks ? "best_of_n needs a model that picks one of the answers." : "");
  const none = !systems().length && "Choose a system.";
  form.querySelector('[name="system"]').setCustomValidity(none || "");
  count();
}

function asked() {
  const whole = (id) => Number(by(id).value);
  const [kind, who] = [by("scorer").value.split(":", 1)[0], by("scorer").value.replace(/^[^:]*:/, "")];
  const body = {
    tasks: tasks(),
    systems: systems(),
    model: by("model").value,
    agents: whole("agents"),
    replicates: whole("replicates"),
    max_tokens: whole("max-tokens"),
    margin: Number((whole("margin") / 100).toPrecision(12)),
    sequential: by("sequential").checked,
    concurrency: whole("concurrency"),
    answer_tokens: whole("answer-tokens"),
    fresh: by("fresh-answers").checked,
    watch_drift: by("watch-drift").checked,
  };
  if (kind === "judge") Object.assign(body, { judge: who, judge_repeats: whole("repeats") });
  else body.evaluator = who;
  if (by("selector").value) body.selector = by("selector").value;
  if (by("temperature").value) body.temperature = whole("temperature");
  if (by("seed").value) body.seed = whole("seed");
  if (by("max-cost").value) body.max_cost = by("max-cost").value;
  if (by("name").value.trim()) body.name = by("name").value.trim();
  return body;
}

if (form) {
  settle();
  form.addEventListener("input", settle);
  // What is wrong in a part that is closed could be neither seen nor reached.
  form.addEventListener("invalid", (event) => event.target.closest("details").setAttribute("open", ""), true);
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
