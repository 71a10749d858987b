// Evidence of the standards: the digest of a file is made here, and the file is sent nowhere.
"use strict";

(() => {
  const LARGEST = 1e9;

  async function digest(file) {
    const made = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
    return [...new Uint8Array(made)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  // The part of the page that holds the evidence is renewed; what was chosen in the form beside it stays.
  async function renew(form) {
    const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    if (!answer.ok || answer.redirected && !answer.url.includes("/standards")) return false;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const shown = page.getElementById("evidence");
    if (!shown) return false;
    const chosen = document.getElementById("evidence-link").value;
    document.getElementById("evidence").replaceChildren(...shown.childNodes);
    document.getElementById("evidence-link").value = chosen;
    return true;
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.closest("#evidence")) return;
    event.preventDefault();
    const told = document.querySelector(".evidence-form").dataset;
    const say = (text) => { document.getElementById("evidence-status").textContent = text; };
    try {
      if (form.matches(".evidence-form")) {
        const [file] = document.getElementById("evidence-file").files;
        if (!crypto.subtle) return say(told.insecure);
        if (file.size > LARGEST) return say(told.large);
        say(told.hashing);
        form.elements.name.value = file.name;
        form.elements.size.value = file.size;
        form.elements.sha256.value = await digest(file);
      }
      if (await renew(form)) document.getElementById("evidence-file").focus();
      else say(told.failed);
    } catch {
      say(told.failed);
    }
  });
})();
