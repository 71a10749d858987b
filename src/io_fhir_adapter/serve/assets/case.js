// The case page: shows the form with LHC-Forms, keeps drafts, asks the service what is still open, and signs.
//
// What is typed lives in this page and in the ledger, nowhere else: nothing is put into the browser's storage.
"use strict";

(() => {
  const LOOK_MS = 400;
  const QUIET_MS = 4000; // a draft is saved so long after the last change
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const page = read("case-data");
  const words = page.words;
  const place = document.getElementById("form");
  const status = document.getElementById("draft-status");
  const state = document.getElementById("state");
  const problem = document.getElementById("problem");
  const openList = document.getElementById("open-items");
  const openCount = document.getElementById("open-count");

  let revision = page.revision;
  let saved = "";
  let timer = 0;
  let work = Promise.resolve();
  let refused = false; // a stale revision: nothing more is saved by itself

  // The answers without what LHC-Forms adds: its version, the time, and the texts of the items.
  function answers() {
    const found = LForms.Util.getFormFHIRData("QuestionnaireResponse", "R4", place);
    delete found.meta;
    delete found.authored;
    return found;
  }

  const written = () => JSON.stringify(answers());
  // LHC-Forms has no answers to give while it builds the form.
  const ready = () => place.getAttribute("aria-busy") === "false";
  const changed = () => ready() && written() !== saved;

  function say(text, kind = "") {
    status.textContent = text;
    status.dataset.kind = kind;
  }

  function complain(title, sentence, link) {
    problem.replaceChildren();
    const head = document.createElement("strong");
    head.textContent = title;
    const body = document.createElement("p");
    body.textContent = sentence;
    problem.append(head, body);
    if (link) {
      const way = document.createElement("a");
      way.href = link.href;
      way.textContent = link.text;
      if (link.apart) {
        way.target = "_blank";
        way.rel = "noopener";
      }
      problem.append(way);
    }
    problem.hidden = false;
    problem.focus();
  }

  const relax = () => { problem.hidden = true; };

  // A new session has a new token; whoever signed in again in another tab goes on here. Says whether there is one.
  async function freshToken() {
    const answer = await fetch(page.path, { redirect: "manual", cache: "no-store" });
    if (answer.type === "opaqueredirect" || answer.status === 401) return "ended";
    if (!answer.ok) return "none";
    const other = new DOMParser().parseFromString(await answer.text(), "text/html");
    const data = other.getElementById("case-data");
    const token = data ? JSON.parse(data.textContent).csrf : page.csrf;
    if (token === page.csrf) return "none";
    page.csrf = token;
    return "fresh";
  }

  // The answer; null where the session has ended.
  async function post(path, body) {
    const send = () => fetch(path, {
      method: "POST",
      redirect: "manual",
      headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRF-Token": page.csrf },
      body: JSON.stringify(body),
    });
    const answer = await send();
    if (answer.type !== "opaqueredirect" && answer.status !== 401 && answer.status !== 403) return answer;
    const token = await freshToken();
    if (token === "fresh") return send();
    return token === "ended" ? null : answer;
  }

  async function told(answer) {
    const type = answer.headers.get("content-type") || "";
    return type.startsWith("application/json") ? answer.json() : {};
  }

  // One request after the other, so that each knows the revision that the one before it made.
  function inTurn(step) {
    work = work.then(step).catch(() => {
      say(words.unsaved, "bad");
      complain(words.unreachable, words.kept);
      return false;
    });
    return work;
  }

  async function send(path, extra = {}) {
    const sent = written();
    const answer = await post(path, { revision, answers: JSON.parse(sent), ...extra });
    if (answer === null) {
      say(words.unsaved, "bad");
      complain(words.ended, words.ended_help, { href: page.signIn, text: words.sign_in_again, apart: true });
      return null;
    }
    const said = await told(answer);
    if (answer.status === 409) {
      refused = true;
      say(words.unsaved, "bad");
      complain(words.stale, said.message || words.kept, { href: page.path, text: words.reload, apart: true });
      return null;
    }
    if (said.revision !== undefined) {
      revision = said.revision;
      saved = sent;
      refused = false;
      state.className = "pill draft";
      state.textContent = page.draftWord;
      say(`${words.saved} ${new Date().toLocaleTimeString(document.documentElement.lang, { timeStyle: "short" })}`, "good");
    }
    if (answer.ok) {
      relax();
    } else if (!said.open) {
      if (said.revision === undefined) say(words.unsaved, "bad");
      complain(words.refused, said.message || words.kept);
    }
    return { ok: answer.ok, said };
  }

  const save = () => inTurn(async () => {
    if (!changed()) return true;
    say(words.saving);
    const done = await send(page.draftPath);
    return done !== null && done.ok;
  });

  // What was typed is looked at once the hands rest, not at every key.
  function soon() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (!changed()) return;
      say(words.changed);
      if (!refused) timer = setTimeout(save, QUIET_MS - LOOK_MS);
    }, LOOK_MS);
  }

  function inputOf(linkId) {
    const item = document.getElementById(`item-${linkId}/1/1`) || document.getElementById(`item-${linkId}/1`);
    return { item, input: item && item.querySelector("input:not([type=hidden]), textarea, select, button") };
  }

  function jump(linkId) {
    const { item, input } = inputOf(linkId);
    if (!item) return;
    item.scrollIntoView({ block: "center" });
    item.classList.add("sought");
    setTimeout(() => item.classList.remove("sought"), 2500);
    if (input) input.focus({ preventScroll: true });
  }

  // The list of what is open is the service's answer; here it is only shown.
  function show(open) {
    openCount.textContent = open.length;
    openList.replaceChildren();
    let group = "";
    let list = null;
    for (const item of open) {
      if (item.group !== group || list === null) {
        group = item.group;
        const head = document.createElement("h3");
        head.textContent = group;
        list = document.createElement("ul");
        openList.append(head, list);
      }
      const row = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.className = "jump";
      button.dataset.item = item.link_id;
      button.textContent = item.text;
      row.append(button);
      if (item.reason) {
        const why = document.createElement("span");
        why.className = "why";
        why.textContent = item.reason;
        row.append(why);
      }
      list.append(row);
    }
    if (!open.length) {
      const none = document.createElement("p");
      none.className = "all-answered";
      none.textContent = words.complete;
      openList.append(none);
    }
    document.getElementById("open").open = open.length > 0;
  }

  // Why the record left an item open stands beside it, too.
  function explain() {
    for (const [linkId, reason] of Object.entries(page.reasons)) {
      const label = document.getElementById(`label-${linkId}/1/1`);
      if (!label || label.parentElement.querySelector(".why")) continue;
      const why = document.createElement("span");
      why.className = "why";
      why.textContent = reason;
      label.parentElement.append(why);
    }
  }

  const check = () => inTurn(async () => {
    const done = await send(page.checkPath);
    if (done !== null && done.said.open) {
      show(done.said.open);
      relax();
      say(done.said.open.length ? `${words.saved}; ${done.said.message}` : words.complete, done.said.open.length ? "" : "good");
      if (done.said.open.length) document.getElementById("open").scrollIntoView({ block: "start" });
    }
  });

  const sign = () => inTurn(async () => {
    const done = await send(page.signPath);
    if (done === null) return;
    if (done.ok) {
      saved = written();
      location.assign(done.said.next);
    } else if (done.said.open) {
      show(done.said.open);
      complain(words.incomplete, done.said.message);
    }
  });

  // Looking at the identity must not cost what was typed since the last draft: only its part of the page is renewed.
  document.addEventListener("submit", (event) => {
    const part = event.target.closest("#identity");
    if (!part) return;
    event.preventDefault();
    inTurn(async () => {
      const body = new URLSearchParams(new FormData(event.target));
      const answer = await fetch(event.target.action, { method: "POST", redirect: "manual", body });
      if (!answer.ok) {
        complain(words.ended, words.ended_help, { href: page.signIn, text: words.sign_in_again, apart: true });
        return;
      }
      const shown = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("identity");
      part.replaceChildren(...shown.childNodes);
    });
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.jump");
    if (button) jump(button.dataset.item);
  });
  for (const [id, act] of [["save", save], ["check", check], ["sign", sign]]) {
    document.getElementById(id).addEventListener("click", act);
  }
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") {
      event.preventDefault();
      save();
    }
  });
  window.addEventListener("beforeunload", (event) => {
    if (changed()) event.preventDefault();
  });

  // LHC-Forms speaks English alone. Its own labels are put into the page's language as they appear; the texts and
  // options of the form are the service's, and an option's words in a list are how LHC-Forms knows it: they are left.
  const LABELLED = ["placeholder", "aria-label", "title"];
  const LABELS_IN = "lhc-item-boolean, lhc-validate, #reader_log, #lhc-tools-moreResults";
  const escaped = (text) => text.replace(/[.*+?^$|()[\]\\]/g, "\\$&");
  const labels = Object.entries(page.labels).map(([own, said]) => {
    const names = [...own.matchAll(/\{(\w+)\}/g)].map((found) => found[1]);
    return { pattern: new RegExp(`^${escaped(own).replace(/\{\w+\}/g, "(.+)")}$`), names, said };
  });

  function inWords(text) {
    for (const { pattern, names, said } of labels) {
      const found = pattern.exec(text.trim());
      if (found) return names.reduce((made, name, at) => made.replace(`{${name}}`, () => found[at + 1]), said);
    }
    return null;
  }

  function relabelAttributes(element) {
    for (const name of LABELLED) {
      const said = element.hasAttribute(name) ? inWords(element.getAttribute(name)) : null;
      if (said !== null) element.setAttribute(name, said);
    }
  }

  function relabel(node) {
    if (node.nodeType === Node.TEXT_NODE) {
      const said = node.parentElement && node.parentElement.closest(LABELS_IN) ? inWords(node.data) : null;
      if (said !== null) node.data = said;
    } else if (node.nodeType === Node.ELEMENT_NODE) {
      if (place.contains(node)) relabelAttributes(node);
      node.childNodes.forEach(relabel);
    }
  }

  function keepLabelled() {
    if (!labels.length) return;
    const watch = { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: LABELLED };
    new MutationObserver((changes) => {
      for (const change of changes) {
        if (change.type === "childList") change.addedNodes.forEach(relabel);
        else if (change.type === "attributes") { if (place.contains(change.target)) relabelAttributes(change.target); }
        else relabel(change.target);
      }
    }).observe(document.body, watch);
    relabel(place);
  }

  async function start() {
    let form = LForms.Util.convertFHIRQuestionnaireToLForms(page.questionnaire, "R4");
    form = LForms.Util.mergeFHIRDataIntoLForms("QuestionnaireResponse", page.response, form, "R4");
    await LForms.Util.addFormToPage(form, place, { hideFormControls: true, hideTreeLine: true });
    keepLabelled();
    explain();
    if (matchMedia("(max-width: 60rem)").matches) document.getElementById("open").open = false;
    saved = written();
    for (const name of ["input", "change", "click", "keyup", "focusout"]) place.addEventListener(name, soon);
    for (const id of ["save", "check", "sign"]) document.getElementById(id).disabled = false;
    say(page.savedText);
    place.setAttribute("aria-busy", "false");
  }

  start().catch(() => {
    say("");
    complain(words.no_form, words.no_form_help);
  });
})();
