/* Ask a model, and see its answer come: each token in the colour of its surprisal, the alarm, the verdict. */
import { by, element, say, send, trouble, visible } from "./dom.js";
import { refresh } from "./page.js";
import { Pace } from "./pace.js";
import { events } from "./stream.js";

const form = by("ask");
const WORDS = {
  pass: ["Pass", "Every rule held."],
  fail: ["Fail", "At least one rule was exceeded."],
  undecided: ["Undecided", "Only bounds are known, and a threshold lies between them."],
  not_measured: ["Not measured", "A rule needs a number that this generation does not give."],
};

/* As cert.trajectory.report.view: class k begins at k² / 32 nats. */
function heat(surprisal) {
  if (typeof surprisal !== "number") return surprisal === "Infinity" ? "s15" : "sx";
  return "s" + Math.min(Math.floor(Math.sqrt(32 * Math.max(surprisal, 0))), 15);
}

class Answer {
  constructor() {
    this.pace = new Pace(by("curve"));
    this.abort = null;
  }

  get running() {
    return this.abort !== null;
  }

  begin(prompt) {
    this.count = this.measured = this.sum = 0;
    this.marks = { marks: 0 };
    this.tokens = [];
    this.pace.clear();
    this.began = null;
    by("asked").replaceChildren(visible(prompt));
    by("tokens-seen").replaceChildren();
    by("alarm").hidden = by("more").hidden = by("no-token").hidden = true;
    for (const name of ["rate", "mean", "perplexity"]) by("f-" + name).textContent = "–";
    by("f-tokens").textContent = "0";
    this.verdict(null, "Generating", "");
    by("live").hidden = false;
    by("live").classList.remove("ended");
  }

  token({ text, signals }) {
    const surprisal = signals ? signals.surprisal : null;
    const made = element("span", "t " + (signals ? heat(surprisal) : "sx") + (text ? "" : " part"));
    made.append(visible(text, this.marks));
    if (signals) made.title = "token " + this.count + (typeof signals.probability === "number" ? ", probability " + signals.probability.toPrecision(2) : "");
    by("tokens-seen").append(made);
    if (!signals) return;
    this.tokens.push(made);
    this.count += 1;
    if (typeof surprisal === "number") {
      this.measured += 1;
      this.sum += surprisal;
    }
    this.pace.add(surprisal);
    this.figures();
  }

  figures() {
    const now = performance.now();
    if (this.began === null) this.began = now;
    by("f-tokens").textContent = this.count;
    if (this.count > 1 && now > this.began) by("f-rate").textContent = Math.round(((this.count - 1) * 1000) / (now - this.began));
    if (!this.measured) return;
    by("f-mean").textContent = (this.sum / this.measured).toFixed(3);
    by("f-perplexity").textContent = Math.exp(this.sum / this.measured).toFixed(2);
  }

  alarm({ token }) {
    const box = by("alarm");
    box.textContent = "The gate raised its alarm at token " + token + ".";
    box.hidden = false;
    if (this.tokens[token]) this.tokens[token].classList.add("flagged");
    say(box.textContent);
  }

  verdict(name, word, meaning, reasons = []) {
    const box = by("verdict");
    box.className = "verdict hero" + (name ? " v-" + name : "");
    const icon = name && by("icons").content.querySelector('[data-of="' + name + '"] svg');
    box.querySelector(".big").replaceChildren(...(icon ? [icon.cloneNode(true)] : []), element("span", "", word));
    box.querySelector(".meaning").textContent = meaning;
    box.querySelector(".reasons").replaceChildren(
      ...reasons.map((reason) => {
        const item = element("li");
        item.append(visible(reason));
        return item;
      }),
    );
  }

  analysis(record) {
    const { verdict } = record.analysis;
    const [word, meaning] = WORDS[verdict];
    this.verdict(verdict, word, meaning, record.reasons);
    for (const check of record.analysis.gate.checks) {
      if (check.outcome === "fail" && this.tokens[check.token]) this.tokens[check.token].classList.add("flagged");
    }
    by("open").href = "/ui/analyses/" + encodeURIComponent(record.id);
    by("more").hidden = false;
    by("no-token").hidden = this.count > 0;
    say(word + ". " + meaning + " " + this.count + " tokens.");
    this.ended = true;
  }

  error(problem) {
    if (problem.partial) this.analysis(problem.partial);
    trouble(new Error(problem.detail || problem.title));
    this.ended = true;
  }

  async run(body) {
    this.begin(by("prompt").value);
    this.ended = false;
    this.abort = new AbortController();
    busy(true);
    try {
      const answer = await send("POST", "/v1/analyze/stream", body, this.abort.signal);
      for await (const { name, data } of events(answer)) this[name] && HANDLED.has(name) && this[name](data);
      if (!this.ended) throw new Error("The connection ended before the answer did.");
    } catch (error) {
      if (error.name === "AbortError") this.verdict("not_measured", "Stopped", "You stopped it after " + this.count + " tokens; what was not generated is not judged.");
      else {
        if (!this.ended) this.verdict("not_measured", "No verdict", "The answer did not come to its end.");
        trouble(error);
      }
      say(error.name === "AbortError" ? "Stopped." : "");
    } finally {
      this.abort = null;
      by("live").classList.add("ended");
      busy(false);
      refresh().catch(() => {});
    }
  }

  stop() {
    if (this.abort) this.abort.abort();
  }
}

const HANDLED = new Set(["token", "alarm", "analysis", "error"]);

function busy(is) {
  const [go, stop] = [by("go"), by("stop")];
  const focused = document.activeElement === go || document.activeElement === stop;
  go.hidden = is;
  stop.hidden = !is;
  if (focused) (is ? stop : go).focus();
}

function asked() {
  const prompt = by("prompt").value;
  const body = { ...(by("as").value === "chat" ? { messages: [{ role: "user", content: prompt }] } : { prompt }), detail: "tokens" };
  // What is left open is as the operator set it up, and so as a certificate covers it.
  if (by("tokens").value !== "") body.max_new_tokens = Number(by("tokens").value);
  if (by("temperature").value !== "") body.temperature = Number(by("temperature").value);
  if (by("model")) body.model = by("model").value;
  return body;
}

if (form) {
  const answer = new Answer();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    trouble(null);
    if (!answer.running && form.reportValidity()) answer.run(asked());
  });
  by("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  by("stop").addEventListener("click", () => answer.stop());
  addEventListener("keydown", (event) => event.key === "Escape" && answer.stop());
  for (const example of document.querySelectorAll(".example")) {
    example.addEventListener("click", () => {
      by("prompt").value = example.dataset.prompt;
      if (!answer.running) form.requestSubmit();
    });
  }
}
