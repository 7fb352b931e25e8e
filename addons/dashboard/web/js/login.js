// The login: a token, checked by asking who it is.

import { json, setToken } from "./api.js";
import { fill, h, message } from "./dom.js";

/** Who the token belongs to. */
export async function whoami() {
  const review = await json("/apis/authentication.k8s.io/v1/selfsubjectreviews", {
    method: "POST", body: { apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" } });
  return review.status.userInfo.username;
}

/** Shows the form; calls `done(name)` after a login. */
export function showLogin(place, why, done) {
  const token = h("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true });
  const keep = h("input", { type: "checkbox", id: "keep" });
  const problem = h("div", {}, why && message("bad", why));
  const form = h("form", { class: "login", onsubmit: async (event) => {
    event.preventDefault();
    setToken(token.value.trim(), keep.checked);
    try {
      done(await whoami());
    } catch (error) {
      setToken("", false);
      fill(problem, message("bad", error.status === 401 ? "This token is not valid." : error.message));
    }
  } },
  h("h1", {}, "Kubernetes dashboard"), problem,
  h("label", { for: "token" }, "Bearer token"), token,
  h("div", { class: "row" }, keep, h("label", { for: "keep" }, "Stay logged in until this tab is closed")),
  h("button", { type: "submit", class: "primary" }, "Log in"),
  h("p", { class: "faint" }, "A token of a service account: ",
    h("kbd", {}, "kubectl -n kubernetes-dashboard create token admin-user")));
  fill(place, form);
  token.focus();
}
