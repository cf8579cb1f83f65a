// Replaces <main> every five seconds, so that focus, scroll position and selection outside of it stay. The button pauses
// it, and so does a focus or a selection inside: what is being read or copied doesn't go. #said tells when it is old.
const button = document.querySelector("button");
const main = document.querySelector("main");
const said = document.querySelector("#said");
let paused = false;
button.hidden = false;
button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Refresh again" : "Pause";
  say(paused ? "paused" : "");
});
function say(text) {
  if (said.textContent !== text) said.textContent = text; // a reader of screens speaks each change
}
async function refresh() {
  if (paused || document.hidden) return;
  const selection = getSelection();
  if (main.contains(document.activeElement) || (!selection.isCollapsed && main.contains(selection.anchorNode))) {
    say("waiting while something below is in use");
    return;
  }
  try {
    const answer = await fetch(location.href, { headers: { "X-Fragment": "main" } });
    if (!answer.ok) throw new Error(answer.status);
    main.innerHTML = await answer.text();
    const state = main.querySelector(".state").cloneNode(true);
    document.title = `Fourfold: ${state.textContent}`;
    document.querySelector("header .state").replaceWith(state);
    say("");
  } catch {
    say("no answer: what is below is old");
  }
}
setInterval(refresh, 5000);
