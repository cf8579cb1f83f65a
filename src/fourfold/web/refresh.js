// Replaces <main> every five seconds, so that focus, scroll position and selection outside of it stay. The button pauses it.
const button = document.querySelector("button");
const said = document.querySelector("#said");
let paused = false;
button.hidden = false;
button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Refresh again" : "Pause";
  said.textContent = paused ? "paused" : "";
});
async function refresh() {
  const here = document.querySelector("main").contains(document.activeElement) || !getSelection().isCollapsed;
  if (paused || here || document.hidden) return;
  try {
    const answer = await fetch(location.href, { headers: { "X-Fragment": "main" } });
    if (!answer.ok) throw new Error(answer.status);
    document.querySelector("main").innerHTML = await answer.text();
    const state = document.querySelector("main").firstElementChild;
    document.querySelector("header .state").replaceWith(state.querySelector(".state").cloneNode(true));
    said.textContent = "";
  } catch {
    said.textContent = "no answer: what is below is old";
  }
}
setInterval(refresh, 5000);
