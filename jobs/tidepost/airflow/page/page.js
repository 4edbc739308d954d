// Airflow's own theme, links out of its frame, and a page that keeps itself up to date part by part.
"use strict";

// ------------------------------------------------------------------------------------------------ theme

const frame = (() => {
  try {
    return window.parent !== window && window.parent.document ? window.parent : null;
  } catch {
    return null; // framed by somebody else
  }
})();

function takeTheme() {
  const around = frame?.document.documentElement;
  const dark = around?.classList.contains("dark");
  const light = around?.classList.contains("light");
  if (dark || light) document.documentElement.dataset.theme = dark ? "dark" : "light";
}

takeTheme();
if (frame) {
  new MutationObserver(takeTheme).observe(frame.document.documentElement, { attributeFilter: ["class"] });
}

// ------------------------------------------------------------------------------------------------ links

// Airflow's frame allows neither new windows nor leaving it: a link to Airflow's own pages is followed outside.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || !frame || event.defaultPrevented) return;
  event.preventDefault();
  const outside = frame.document.createElement("a");
  outside.href = link.href;
  if (event.ctrlKey || event.metaKey || event.shiftKey) outside.target = "_blank";
  outside.click();
});

// ---------------------------------------------------------------------------------------------- refresh

// Only what changed is replaced: parts, and of the table its rows. What is open stays open, and the focus stays.
function take(part, fresh) {
  const focused = part.contains(document.activeElement) ? whatIs(document.activeElement) : null;
  const opened = [...part.querySelectorAll("details[open]")].map((one) => one.id);
  for (const one of fresh.querySelectorAll("details")) one.open = opened.includes(one.id);
  const known = new Map([...part.children].map((one) => [one.outerHTML, one]));
  const kept = [...fresh.childNodes].map((one) => known.get(one.outerHTML) ?? one);
  if (kept.length === part.childNodes.length && kept.every((one, at) => one === part.childNodes[at])) return;
  part.replaceChildren(...kept);
  if (focused) [...part.querySelectorAll("a, summary")].find((one) => whatIs(one) === focused)?.focus();
}

function whatIs(element) {
  return `${element.localName} ${element.getAttribute("href") ?? element.parentElement?.id}`;
}

function tell(text, link) {
  const place = document.getElementById("refreshed");
  if (place.dataset.text === text) return;
  place.dataset.text = text;
  place.replaceChildren(text);
  if (!link) return;
  const anchor = document.createElement("a");
  anchor.href = "../";
  anchor.append(link);
  place.append(" ", anchor);
}

async function refresh() {
  let answer;
  try {
    answer = await fetch(".", { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(30_000) });
  } catch {
    return tell("Airflow does not answer: this is how it was then.");
  }
  if (answer.status === 401 || answer.status === 403) return tell("Your session has ended.", "Sign in again");
  if (!answer.ok) return tell(`Airflow answered ${answer.status}: this is how it was then.`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-part]")) {
    const other = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
    if (other) take(part, other);
  }
  const shell = fresh.querySelector("[data-shell]");
  if (shell) document.querySelector("[data-shell]").hidden = shell.hidden;
  tell("");
}

document.addEventListener("DOMContentLoaded", () => {
  const every = Number(document.body.dataset.refresh) * 1000;
  const wait = (then) => setTimeout(then, every);
  const turn = async () => {
    if (!document.hidden) await refresh();
    wait(turn);
  };
  wait(turn);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
});
