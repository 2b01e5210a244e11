/* Small things for every page: elements, text of strangers made visible, trouble, requests. */

export const csrf = document.querySelector('meta[name="csrf"]').content;

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function by(id) {
  return document.getElementById(id);
}

/* ---- text of strangers, as cert.core.visible shows it ---- */

const HIDDEN = /^[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]$/u;
const MARK = /^[\p{Mn}\p{Me}]$/u;
const AS_THEY_ARE = new Set(
  "\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u{110bd}\u{110cd}",
);
const MOST_MARKS = 8;

/* Text as nodes; marks in a row are counted on from the text before, so that a stream cannot stack them. */
export function visible(text, before = { marks: 0 }) {
  const made = document.createDocumentFragment();
  let plain = "";
  const flush = () => {
    if (plain) made.append(plain);
    plain = "";
  };
  for (const char of text) {
    before.marks = MARK.test(char) ? before.marks + 1 : 0;
    const special = before.marks > MOST_MARKS ? hidden(char) : shownAs(char);
    if (!special) {
      plain += char;
      continue;
    }
    flush();
    made.append(...special);
  }
  flush();
  return made;
}

function shownAs(char) {
  if (char === "\n") return [element("i", "nl"), "\n"];
  if (char === "\t") return [element("i", "tab"), "\t"];
  return HIDDEN.test(char) && !AS_THEY_ARE.has(char) ? hidden(char) : null;
}

function hidden(char) {
  const made = element("i", "hidden-char");
  made.dataset.c = "U+" + char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return [made];
}

/* ---- what is said to whoever looks ---- */

export function say(text) {
  by("said").textContent = text;
}

export function trouble(error) {
  const box = by("trouble");
  box.hidden = !error;
  if (!error) return;
  const close = element("button", "plain", "Close");
  close.type = "button";
  close.addEventListener("click", () => trouble(null));
  const told = element("p");
  told.append(visible(error.message || String(error)));
  box.replaceChildren(told, close);
}

/* ---- requests ---- */

export class Refused extends Error {
  constructor(problem, status) {
    super([problem.detail || problem.title || "The service refused (" + status + ")", problem.hint].filter(Boolean).join(". "));
    this.status = status;
  }
}

/* Sends JSON with the token of the session; throws what the service says is wrong. */
export async function send(method, url, body, signal) {
  const headers = {};
  if (csrf) headers["X-CSRF-Token"] = csrf;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(url, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer.");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) location.assign("/ui/sign-in?next=" + encodeURIComponent(location.pathname));
  throw new Refused(await answer.json().catch(() => ({})), answer.status);
}

/* ---- times, in the clock of whoever looks ---- */

export function localTimes(within) {
  const today = new Date().toDateString();
  for (const time of within.querySelectorAll("time")) {
    const { seconds } = time.dataset;
    const at = new Date(seconds ? Number(seconds) * 1000 : time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.dateTime = at.toISOString();
    time.title = at.toLocaleString();
    const hour = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    const day = at.toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" });
    if ("day" in time.dataset) time.textContent = day;
    else time.textContent = at.toDateString() === today ? hour : day + ", " + hour;
  }
}
