// The dialog for admins. The token stays in its field; nothing is stored.

import { byId } from "./dom.js";
import { state } from "./stream.js";

const FIELDS = { hold: ["minutes"], target: ["watts", "minutes"] };

function wish(action) {
  const why = byId("admin-why").value;
  const forS = Number(byId("admin-minutes").value) * 60 || null;
  switch (action) {
    case "hold": return ["hold", { for_s: forS, why }];
    case "resume": return ["hold", { on: false, why }];
    case "observe": return ["observe", { on: true, why }];
    case "manage": return ["observe", { on: false, why }];
    case "target": return ["target", { watts: Number(byId("admin-kw").value) * 1000, for_s: forS, why }];
    default: return ["target", { watts: null, why }];
  }
}

function answer(kind, text) {
  byId("admin-answer").className = `caption ${kind}`;
  byId("admin-answer").textContent = text;
}

async function send() {
  const [path, content] = wish(byId("admin-action").value);
  answer("", "asking");
  try {
    const reply = await fetch(`/api/admin/${path}`, {
      method: "POST",
      headers: {
        "Content-Type": "application/json", "X-Slurm-Power": "dashboard",
        Authorization: `Bearer ${byId("admin-token").value.trim()}`,
      },
      body: JSON.stringify(content),
    });
    answer(reply.ok ? "good" : "bad", reply.ok ? "Done. It holds from the next tick on." : await reply.text());
  } catch {
    answer("bad", "The controller does not answer.");
  }
}

function showFields() {
  const shown = FIELDS[byId("admin-action").value] ?? [];
  for (const name of ["watts", "minutes"]) byId(`admin-${name}-row`).hidden = !shown.includes(name);
  answer("", "");
}

export function prepareAdmin() {
  byId("admin-open").addEventListener("click", () => {
    const target = state.parts.now?.target_watts;
    if (target && !byId("admin-kw").value) byId("admin-kw").value = Math.round(target / 1000);
    showFields();
    byId("admin").showModal();
  });
  byId("admin-close").addEventListener("click", () => byId("admin").close());
  byId("admin-action").addEventListener("change", showFields);
  byId("admin-send").addEventListener("click", send);
  byId("admin-form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
}
